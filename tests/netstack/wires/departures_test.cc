// Frames that are given to the kernel without the lock: their order, and what becomes of them if their sender is refused, dies or is
// stopped.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>
#include <vector>

#include "base/robust_lock.h"
#include "netstack/wires/segment_train.h"
#include "netstack/wires/kernel/departures.h"
#include "sent_frames.h"

namespace {

constexpr uint32_t kHeaders = netstack::SegmentTrain::kHeaderBytes, kPayload = 100;
constexpr uint32_t kWhole = sizeof(netstack::VnetHeader) + kHeaders + kPayload;

// A wire that lets its frames depart, to a socket of this test's.
class Departures : public packet_bed::SentFrames {
 protected:
  void SetUp() override {
    SentFrames::SetUp();
    if (bed_ == nullptr) return;
    wire().allow_departures();
    free_before_ = wire().free_frames();
  }
  void TearDown() override {
    if (bed_ == nullptr) return;
    EXPECT_EQ(wire().backlog(), 0);
    EXPECT_TRUE(wire().delivered());
    EXPECT_EQ(wire().free_frames(), free_before_) << "every frame is back";
    SentFrames::TearDown();
  }

  // A segment of the connection with this port, all bytes of its payload `fill`; and a flush.
  static void write(uint8_t port, uint8_t fill) {
    netstack::TxFrame frame;
    ASSERT_TRUE(wire().allocate(&frame));
    memset(frame.data, 0, kHeaders);
    frame.data[12] = 0x08;  // ETH_P_IP
    frame.data[kHeaders - netstack::SegmentTrain::kTcpBytes + 1] = port;
    memset(frame.data + kHeaders, fill, kPayload);
    wire().send_tcp(frame.handle, kHeaders + kPayload);
    wire().flush();
  }
  // The payload's byte of the next frame that arrived, or -1.
  int read() const {
    uint8_t frame[kWhole + 1];
    return recv(kernel_, frame, sizeof frame, 0) == ssize_t{kWhole} ? frame[kWhole - 1] : -1;
  }
  // Whoever has the lock looks, as each turn does, until a frame arrives.
  int look_until_one_arrives() const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    int frame = -1;
    while (frame < 0 && std::chrono::steady_clock::now() < end) {
      bed_->receive();
      wire().flush();
      if (wire().departs()) {
        const int number = wire().take_departure();
        EXPECT_TRUE(number < 0 || wire().depart(number));
      }
      frame = read();
    }
    return frame;
  }

  int free_before_ = 0;
};

TEST_F(Departures, LeaveBehindTheLock) {
  EXPECT_FALSE(wire().departs());
  ASSERT_NO_FATAL_FAILURE(write(1, 11));
  ASSERT_NO_FATAL_FAILURE(write(2, 12));
  EXPECT_TRUE(wire().departs());
  EXPECT_FALSE(wire().refused()) << "no timer is needed: they leave with the lock";
  EXPECT_EQ(read(), -1);
  const int number = wire().take_departure();
  ASSERT_GE(number, 0);
  EXPECT_FALSE(wire().departs());
  EXPECT_EQ(wire().backlog(), 0);
  EXPECT_FALSE(wire().delivered());
  EXPECT_EQ(read(), -1);
  EXPECT_TRUE(wire().depart(number));
  EXPECT_EQ(read(), 11);
  EXPECT_EQ(read(), 12);
}

// The second connection's segments do not wait for the first one's, which come in order.
TEST_F(Departures, KeepEachConnectionsOrder) {
  ASSERT_NO_FATAL_FAILURE(write(1, 11));
  const int first = wire().take_departure();
  ASSERT_GE(first, 0);
  ASSERT_NO_FATAL_FAILURE(write(1, 12));
  ASSERT_NO_FATAL_FAILURE(write(2, 21));
  ASSERT_NO_FATAL_FAILURE(write(1, 13));
  const int second = wire().take_departure();
  ASSERT_GE(second, 0);
  EXPECT_EQ(wire().backlog(), 2);
  EXPECT_TRUE(wire().refused()) << "a timer covers the death of whoever would send them";
  EXPECT_FALSE(wire().depart(second)) << "there is more to send, though not yet";
  EXPECT_EQ(read(), 21);
  wire().flush();
  EXPECT_EQ(wire().take_departure(), -1);
  EXPECT_FALSE(wire().depart(first));
  wire().flush();
  const int third = wire().take_departure();
  ASSERT_GE(third, 0);
  EXPECT_TRUE(wire().depart(third));
  for (const int expected : {11, 12, 13, -1}) EXPECT_EQ(read(), expected);
}

// Over IPv6 the ports stand behind 40 bytes, and what is where IPv4 has them is the same in all frames.
TEST_F(Departures, ConnectionsOfIPv6DoNotWaitForEachOther) {
  uint64_t seen = 0;
  for (uint8_t port = 1; port <= 16; port++) {
    uint8_t frame[14 + 40 + 20] = {};
    frame[12] = 0x86;
    frame[13] = 0xdd;
    memset(frame + 14 + 8, 0xfd, 32);
    frame[14 + 40 + 1] = port;
    const uint64_t bit = netstack::Departures::connection_bit(frame);
    EXPECT_EQ(bit, netstack::Departures::connection_bit(frame));
    seen |= bit;
  }
  EXPECT_GT(__builtin_popcountll(seen), 8);
}

TEST_F(Departures, ManyAtOnce) {
  std::vector<int> under_way;
  for (uint8_t port = 1; port <= 20; port++) {
    ASSERT_NO_FATAL_FAILURE(write(port, port));
    if (const int number = wire().take_departure(); number >= 0) under_way.push_back(number);
  }
  EXPECT_GT(under_way.size(), 10U);
  for (auto number = under_way.rbegin(); number != under_way.rend(); number++) (void)wire().depart(*number);
  wire().flush();
  while (wire().departs()) {
    if (const int number = wire().take_departure(); number >= 0) (void)wire().depart(number);
  }
  uint32_t sum = 0;
  for (int i = 0; i < 20; i++) sum += static_cast<uint32_t>(read());
  EXPECT_EQ(sum, 210U);
  EXPECT_EQ(read(), -1);
}

TEST_F(Departures, WhatTheKernelRefusesIsQueuedAgain) {
  const int room = kWhole;
  ASSERT_EQ(setsockopt(bed_->sending(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
  for (uint8_t i = 1; i <= 40; i++) ASSERT_NO_FATAL_FAILURE(write(i, i));
  const int number = wire().take_departure();
  ASSERT_GE(number, 0);
  EXPECT_FALSE(wire().depart(number));
  wire().flush();
  EXPECT_EQ(wire().take_departure(), -1) << "the next attempt is made with the lock held, where a refusal is judged";
  EXPECT_TRUE(wire().refused());
  EXPECT_FALSE(wire().departs()) << "and nobody tries again at once";
  int next = 1;
  for (int turn = 0; turn < 100 && next <= 40; turn++) {
    bed_->receive();
    for (int frame = read(); frame >= 0; frame = read()) EXPECT_EQ(frame, next++);
    wire().flush();
    if (wire().departs()) {
      if (const int again = wire().take_departure(); again >= 0) (void)wire().depart(again);
    }
  }
  EXPECT_EQ(next, 41);
}

TEST_F(Departures, OfADeadSenderAreSentByOthers) {
  ASSERT_NO_FATAL_FAILURE(write(1, 11));
  std::thread([] { EXPECT_GE(wire().take_departure(), 0); }).join();
  ASSERT_NO_FATAL_FAILURE(write(1, 12));
  EXPECT_EQ(look_until_one_arrives(), 11);
  EXPECT_EQ(look_until_one_arrives(), 12);
  bed_->receive();
}

// Nobody knows whether it has sent them: once more does no harm. When it goes on its frames come back as ever.
TEST_F(Departures, OfAStoppedSenderAreSentInItsPlace) {
  ASSERT_NO_FATAL_FAILURE(write(1, 11));
  const pid_t child = fork();
  if (child == 0) {
    base::forget_thread_id();
    const int number = wire().take_departure();
    (void)raise(SIGSTOP);
    _exit(number >= 0 && wire().depart(number) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(look_until_one_arrives(), 11);
  EXPECT_EQ(read(), -1) << "once in its place, not again and again";
  EXPECT_FALSE(wire().delivered()) << "the frame is its own yet";
  ASSERT_EQ(kill(child, SIGCONT), 0);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(read(), 11);
  bed_->receive();
}

// A death inside the lock takes every frame back, but not what a living member is sending just now.
TEST_F(Departures, AreKeptWhenAMemberDiedInside) {
  ASSERT_NO_FATAL_FAILURE(write(1, 11));
  const int number = wire().take_departure();
  ASSERT_GE(number, 0);
  ASSERT_NO_FATAL_FAILURE(write(2, 12));
  wire().recover();
  EXPECT_EQ(wire().backlog(), 0);
  EXPECT_EQ(wire().free_frames(), free_before_ - 1);
  std::vector<netstack::TxFrame> all;
  for (netstack::TxFrame frame; wire().allocate(&frame);) {
    memset(frame.data, 0xff, kHeaders + kPayload);
    all.push_back(frame);
  }
  EXPECT_EQ(static_cast<int>(all.size()), free_before_ - 1);
  for (const netstack::TxFrame& frame : all) wire().release(frame.handle);
  EXPECT_TRUE(wire().depart(number));
  EXPECT_EQ(read(), 11);
  EXPECT_EQ(read(), -1);
}

}  // namespace
