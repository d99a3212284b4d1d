// What options do to connections: waiting with accept(), ending early, keeping little unsent, sending slowly, peeking at an offset, hearing
// the near only, keeping the SYN.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

void set(int fd, int level, int name, int value) { ASSERT_EQ(setsockopt(fd, level, name, &value, sizeof value), 0) << strerror(errno); }

int get(int fd, int level, int name) {
  int value = -77;
  socklen_t size = sizeof value;
  EXPECT_EQ(getsockopt(fd, level, name, &value, &size), 0) << strerror(errno);
  return value;
}

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  return info;
}

class Effects : public DiffTest {
 protected:
  // A listener that defers, and a peer that is connected to it and silent.
  int defer(int seconds) {
    sockaddr_in at{};
    listener_ = listen_here(&at, 64, SOCK_NONBLOCK);
    set(listener_, IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds);
    theirs_ = peer.socket();
    EXPECT_EQ(peer.connect(theirs_, at).result, 0);
    return listener_;
  }
  int listener_ = -1, theirs_ = -1;
};

class EffectsBothWays : public BothWays {};
ZPS_BOTH_WAYS(EffectsBothWays);

TEST_F(Effects, DeferredUntilDataComes) {
  defer(10);
  EXPECT_EQ(wait_for(listener_, POLLIN, 300), 0);
  EXPECT_EQ(accept(listener_, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EAGAIN);
  ASSERT_EQ(peer.send(theirs_, "data").result, 4);
  ASSERT_EQ(wait_for(listener_, POLLIN), POLLIN);
  const int fd = accept(listener_, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(read_all(fd, 4), "data");
}

TEST_F(Effects, DeferredForItsTime) {
  const uint64_t begin = now_ms();
  defer(1);
  ASSERT_EQ(wait_for(listener_, POLLIN), POLLIN);
  EXPECT_GE(now_ms() - begin, 700u);
  const int fd = accept(listener_, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(peer.send(theirs_, "late").result, 4);
  EXPECT_EQ(read_all(fd, 4), "late");
}

TEST_F(Effects, DeferredUntilTheEndComes) {
  defer(10);
  peer.shutdown(theirs_, SHUT_WR);
  ASSERT_EQ(wait_for(listener_, POLLIN), POLLIN);
  const int fd = accept(listener_, nullptr, nullptr);
  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
}

// Who does not wait for the peer's end resets it.
TEST_P(EffectsBothWays, NoFinWait2) {
  const Connection c = connect_pair();
  set(c.mine, IPPROTO_TCP, TCP_LINGER2, -1);
  EXPECT_EQ(get(c.mine, IPPROTO_TCP, TCP_LINGER2), -1);
  close(c.mine);
  const Reply seen = peer.call(PeerOp::poll, c.theirs, POLLHUP, 30'000);
  EXPECT_NE(seen.result & (POLLHUP | POLLERR), 0);
}

struct Held {
  int level, name, value, seen;
};
constexpr Held kHeld[] = {{IPPROTO_TCP, TCP_NODELAY, 7, 1},    {IPPROTO_TCP, TCP_CORK, -1, 1},     {SOL_SOCKET, SO_KEEPALIVE, 2, 1},
                          {IPPROTO_TCP, TCP_KEEPIDLE, 77, 77}, {IPPROTO_TCP, TCP_KEEPINTVL, 5, 5}, {IPPROTO_TCP, TCP_KEEPCNT, 9, 9}};

// What is set on a connection is the socket's when that is over: it may connect again, or listen, and then those that it accepts have it.
TEST_P(EffectsBothWays, WhatAConnectionWasToldStaysTheSockets) {
  const Connection c = connect_pair();
  for (const Held& held : kHeld) {
    set(c.mine, held.level, held.name, held.value);
    EXPECT_EQ(get(c.mine, held.level, held.name), held.seen) << held.name;
  }
  for (const auto& [name, wrong] : {std::pair{TCP_KEEPIDLE, 0}, {TCP_KEEPIDLE, 32768}, {TCP_KEEPINTVL, -1}, {TCP_KEEPCNT, 128}}) {
    EXPECT_EQ(setsockopt(c.mine, IPPROTO_TCP, name, &wrong, sizeof wrong), -1);
    EXPECT_EQ(errno, EINVAL);
  }
  const int on = 1;
  EXPECT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_CORK, &on, 2), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_NODELAY, reinterpret_cast<void*>(8), sizeof on), -1);
  EXPECT_EQ(errno, EFAULT);
  const sockaddr nowhere{AF_UNSPEC, {}};
  ASSERT_EQ(connect(c.mine, &nowhere, sizeof nowhere), 0);
  for (const Held& held : kHeld) EXPECT_EQ(get(c.mine, held.level, held.name), held.seen) << held.name;
  ASSERT_EQ(listen(c.mine, 4), 0) << strerror(errno);
  for (const Held& held : kHeld) EXPECT_EQ(get(c.mine, held.level, held.name), held.seen) << held.name;
}

TEST_P(EffectsBothWays, LittleUnsent) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_SNDBUF, 1'000'000);
  set(c.mine, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 20'000);
  const std::string bytes(50'000, 'n');
  while (wait_for(c.mine, POLLOUT, 300) != 0) ASSERT_GT(send(c.mine, bytes.data(), bytes.size(), MSG_DONTWAIT), 0);
  const tcp_info info = info_of(c.mine);
  EXPECT_GE(info.tcpi_notsent_bytes, 10'000u);
  EXPECT_LE(info.tcpi_notsent_bytes, 150'000u) << "the buffer would hold more";
  peer.start(PeerOp::drain, c.theirs);
  EXPECT_NE(wait_for(c.mine, POLLOUT), 0);
}

TEST_P(EffectsBothWays, SlowlySent) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_MAX_PACING_RATE, 1'000'000);
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_MAX_PACING_RATE), 1'000'000);
  constexpr size_t kBytes = 600'000;
  const int job = peer.start(PeerOp::drain, c.theirs);
  const uint64_t begin = now_ms();
  const std::string bytes(kBytes, 's');
  ASSERT_EQ(send(c.mine, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(kBytes));
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kBytes));
  EXPECT_GE(now_ms() - begin, 350u);
}

TEST_P(EffectsBothWays, PeekingGoesOn) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 0);
  ASSERT_EQ(peer.send(c.theirs, "abcdefgh").result, 8);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  char bytes[8] = {};
  EXPECT_EQ(recv(c.mine, bytes, 3, MSG_PEEK), 3);
  EXPECT_EQ(std::string(bytes, 3), "abc");
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), 3);
  EXPECT_EQ(recv(c.mine, bytes, 2, MSG_PEEK), 2);
  EXPECT_EQ(std::string(bytes, 2), "de");
  EXPECT_EQ(recv(c.mine, bytes, 4, 0), 4) << "what is read is no longer in front";
  EXPECT_EQ(std::string(bytes, 4), "abcd");
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), 1);
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 3);
  EXPECT_EQ(std::string(bytes, 3), "fgh");
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK | MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  const int job = peer.start(PeerOp::send, c.theirs, 0, 0, 0, "ijk");
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 3) << "it waits for what is new";
  EXPECT_EQ(std::string(bytes, 3), "ijk");
  peer.finish(job);
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, -1);
  EXPECT_EQ(recv(c.mine, bytes, 2, MSG_PEEK), 2);
  EXPECT_EQ(std::string(bytes, 2), "ef");
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), -1);
  EXPECT_EQ(read_all(c.mine, 7), "efghijk");
}

TEST_P(EffectsBothWays, PeekingComesToTheEnd) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 2);
  ASSERT_EQ(peer.send(c.theirs, "abcd").result, 4);
  peer.shutdown(c.theirs, SHUT_WR);
  ASSERT_NE(wait_for(c.mine, POLLRDHUP) & POLLRDHUP, 0);
  char bytes[8] = {};
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 2);
  EXPECT_EQ(std::string(bytes, 2), "cd");
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 0);
  EXPECT_EQ(read_all(c.mine, 8), "abcd");
}

TEST_P(EffectsBothWays, ACallForNoBytesLooksWhereItWouldTake) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 100);
  ASSERT_EQ(peer.send(c.theirs, "abcd").result, 4);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  char bytes[8] = {};
  EXPECT_EQ(recv(c.mine, bytes, 0, 0), 0) << "there is something in front";
  EXPECT_EQ(recv(c.mine, bytes, 0, MSG_PEEK | MSG_DONTWAIT), -1) << "but nothing at the offset";
  EXPECT_EQ(errno, EAGAIN);
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 2);
  EXPECT_EQ(recv(c.mine, bytes, 0, MSG_PEEK), 0);
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), 2);
  EXPECT_EQ(read_all(c.mine, 4), "abcd");
}

// The window that the peer sees is no larger.
TEST_P(EffectsBothWays, AClampedWindow) {
  const Connection c = connect_pair();
  set(c.mine, IPPROTO_TCP, TCP_WINDOW_CLAMP, 30'000);
  EXPECT_EQ(get(c.mine, IPPROTO_TCP, TCP_WINDOW_CLAMP), 30'000);
}

// RFC 5082: who is far away is not heard, until he says that he is near.
TEST_P(EffectsBothWays, FarSegmentsAreDropped) {
  const Connection c = connect_pair();
  set(c.mine, IPPROTO_IP, IP_MINTTL, 100);
  const uint32_t segments = info_of(c.mine).tcpi_segs_in;
  ASSERT_EQ(peer.send(c.theirs, "far").result, 3);
  EXPECT_EQ(wait_for(c.mine, POLLIN, 300), 0);
  EXPECT_EQ(info_of(c.mine).tcpi_segs_in, segments);
  ASSERT_EQ(peer.call(PeerOp::set_option, c.theirs, IPPROTO_IP, IP_TTL, 255).result, 0);
  EXPECT_EQ(read_all(c.mine, 3), "far");
  EXPECT_GT(info_of(c.mine).tcpi_segs_in, segments);
  set(c.mine, IPPROTO_IP, IP_MINTTL, 0);
  ASSERT_EQ(peer.call(PeerOp::set_option, c.theirs, IPPROTO_IP, IP_TTL, 2).result, 0);
  ASSERT_EQ(peer.send(c.theirs, "away").result, 4);
  EXPECT_EQ(read_all(c.mine, 4), "away");
}

TEST_F(Effects, FarHandshakesAreDropped) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  set(listener, IPPROTO_IP, IP_MINTTL, 100);
  const int theirs = peer.socket();
  const int job = peer.start_connect(theirs, at);
  EXPECT_EQ(wait_for(listener, POLLIN, 300), 0);
  ASSERT_EQ(peer.call(PeerOp::set_option, theirs, IPPROTO_IP, IP_TTL, 255).result, 0);
  EXPECT_EQ(peer.finish(job).result, 0);
  const int fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(get(fd, IPPROTO_IP, IP_MINTTL), 100);
  ASSERT_EQ(peer.send(theirs, "near").result, 4);
  EXPECT_EQ(read_all(fd, 4), "near");
}

TEST_F(Effects, FarAnswersToASynAreDropped) {
  sockaddr_in at{};
  const int far = peer.listen(&at);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  set(fd, IPPROTO_IP, IP_MINTTL, 100);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  EXPECT_EQ(wait_for(fd, POLLOUT, 300), 0);
  ASSERT_EQ(peer.call(PeerOp::set_option, far, IPPROTO_IP, IP_TTL, 255).result, 0);
  EXPECT_EQ(wait_for(fd, POLLOUT), POLLOUT);
}

// What a getsockopt() with room for `most` bytes says; the error as a negative number, and the length in any case.
struct Told {
  int result;
  std::string bytes;
};

Told saved_syn(int fd, socklen_t most) {
  Told told{0, std::string(most, '\0')};
  socklen_t size = most;
  if (getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, told.bytes.data(), &size) != 0) told.result = -errno;
  told.bytes.resize(size);
  return told;
}

uint16_t be16(const std::string& bytes, size_t at) {
  return static_cast<uint16_t>(static_cast<uint8_t>(bytes[at]) << 8 | static_cast<uint8_t>(bytes[at + 1]));
}

void expect_headers_of_syn(const std::string& headers, const sockaddr_in& from, const sockaddr_in& to) {
  ASSERT_GE(headers.size(), 44u);
  EXPECT_EQ(headers[0], 0x45);
  EXPECT_EQ(headers[9], IPPROTO_TCP);
  uint32_t sum = 0;
  for (size_t i = 0; i < 20; i += 2) sum += be16(headers, i);
  const bool has_checksum = be16(headers, 10) != 0;  // over a memif there is none
  EXPECT_TRUE(!has_checksum || (sum & 0xffff) + (sum >> 16) == 0xffff);
  EXPECT_EQ(headers.compare(12, 4, reinterpret_cast<const char*>(&from.sin_addr), 4), 0);
  EXPECT_EQ(headers.compare(16, 4, reinterpret_cast<const char*>(&to.sin_addr), 4), 0);
  EXPECT_EQ(be16(headers, 20), ntohs(from.sin_port));
  EXPECT_EQ(be16(headers, 22), ntohs(to.sin_port));
  EXPECT_EQ(headers.compare(28, 4, std::string(4, '\0')), 0) << "acknowledges nothing";
  EXPECT_EQ(headers.size(), 20u + static_cast<uint8_t>(headers[32]) / 16 * 4u);
  EXPECT_EQ(headers[33] & 0x3f, 2) << "SYN";
  EXPECT_GT(be16(headers, 34), 1000) << "a window";
  EXPECT_EQ(be16(headers, 40), 0x0204) << "the first option is the largest segment";
}

TEST_F(Effects, TheSynIsSaved) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  for (const int how : {1, 2, 0}) {
    set(listener, IPPROTO_TCP, TCP_SAVE_SYN, how);
    ASSERT_EQ(peer.connect(peer.socket(), at).result, 0);
    sockaddr_in from{};
    socklen_t size = sizeof from;
    const int fd = accept(listener, reinterpret_cast<sockaddr*>(&from), &size);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(get(fd, IPPROTO_TCP, TCP_SAVE_SYN), how);
    const Told little = saved_syn(fd, 10), told = saved_syn(fd, 200), again = saved_syn(fd, 200);
    EXPECT_EQ(again.result, 0);
    EXPECT_EQ(again.bytes, "") << "told once";
    ASSERT_EQ(told.result, 0);
    EXPECT_EQ(little.result, how == 0 ? 0 : -EINVAL);
    EXPECT_EQ(little.bytes.size(), told.bytes.size());
    close(fd);
    if (how == 0) {
      EXPECT_EQ(told.bytes, "");
      continue;
    }
    const size_t frame_bytes = how == 2 ? 14 : 0;
    ASSERT_GE(told.bytes.size(), frame_bytes);
    EXPECT_TRUE(how == 1 || be16(told.bytes, 12) == 0x0800);
    expect_headers_of_syn(told.bytes.substr(frame_bytes), from, at);
  }
  const int value = 3;
  EXPECT_EQ(setsockopt(listener, IPPROTO_TCP, TCP_SAVE_SYN, &value, sizeof value), -1);
  EXPECT_EQ(errno, EINVAL);
}

// Nobody has to ask, and the listener may be gone.
TEST_F(Effects, ASavedSynIsThereAfterItsListener) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  set(listener, IPPROTO_TCP, TCP_SAVE_SYN, 1);
  for (int i = 0; i < 3; i++) ASSERT_EQ(peer.connect(peer.socket(), at).result, 0);
  const int first = accept(listener, nullptr, nullptr);
  close(accept(listener, nullptr, nullptr));
  close(listener);
  EXPECT_GE(saved_syn(first, 200).bytes.size(), 44u);
}

}  // namespace
