// The rings of memif against a peer that writes what it wants: nothing is touched outside the regions and frames, nothing runs on for ever,
// and what is right among it still comes.
// SPDX-License-Identifier: BSD-3-Clause
#include "memif_bed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace memif_bed;

constexpr uint8_t kLog2 = 2;
constexpr uint32_t kSlots = 1 << kLog2;

// Once as a client, once as a server.
class MemifRingsTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    free_before_ = Bed::pool().free_count();
    testing::internal::CaptureStderr();
    ASSERT_TRUE(bed_.attach());
  }
  void TearDown() override {
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), lines_expected_) << said;
    EXPECT_EQ(Bed::pool().free_count(), free_before_) << "frames that leaked";
  }

  // The lengths of what is received now.
  std::vector<uint32_t> received(int capacity = netstack::kBurst) {
    RxFrame frames[netstack::kBurst];
    const int count = bed_.receive(frames, capacity);
    std::vector<uint32_t> lengths;
    for (int i = 0; i < count; i++) {
      lengths.push_back(frames[i].length);
      Bed::release(frames[i]);
    }
    return lengths;
  }
  // What we have given back of what the peer sent.
  [[nodiscard]] uint16_t given_back() const {
    return bed_.peer.client ? static_cast<uint16_t>(bed_.incoming().head - kSlots) : bed_.incoming().tail;
  }
  void fill_and_publish(uint32_t length) {
    bed_.rings.fill(length);
    bed_.rings.publish();
  }
  // What the peer sees of ours.
  [[nodiscard]] uint16_t published() const { return bed_.peer.client ? bed_.outgoing().head : bed_.outgoing().tail; }

  Bed bed_{GetParam(), kLog2};
  uint32_t free_before_ = 0;
  int lines_expected_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Roles, MemifRingsTest, testing::Bool(),
                         [](const auto& role) { return std::string(role.param ? "Client" : "Server"); });

constexpr uint32_t kEnd = Bed::kBuffersBytes;
using Lengths = std::vector<uint32_t>;

TEST_P(MemifRingsTest, PositionsGoRoundMoreThanOnce) {
  for (uint32_t i = 0; i < 70000; i++) {
    bed_.send({0, 1, 60, i % 16 * kFrameBytes, 0});
    ASSERT_EQ(received(), Lengths{60}) << i;
    ASSERT_EQ(given_back(), bed_.sent()) << i;
    TxFrame frame;
    ASSERT_TRUE(bed_.rings.open(&frame)) << i;
    ASSERT_GE(frame.capacity, kFrameBytes);
    fill_and_publish(64);
    ASSERT_EQ(bed_.outgoing().descriptors[i % kSlots].length, 64U);
    ASSERT_EQ(published(), static_cast<uint16_t>(i + 1));
    bed_.outgoing().descriptors[i % kSlots].length = kFrameBytes;
    bed_.room()++;
  }
}

TEST_P(MemifRingsTest, SaysWhetherThePeerHasReadEverything) {
  EXPECT_TRUE(bed_.rings.taken());
  for (uint32_t i = 0; i < 70000; i++) {
    TxFrame frame;
    ASSERT_TRUE(bed_.rings.open(&frame)) << i;
    fill_and_publish(64);
    ASSERT_FALSE(bed_.rings.taken()) << i;
    bed_.outgoing().descriptors[i % kSlots].length = kFrameBytes;
    bed_.room()++;
    ASSERT_TRUE(bed_.rings.taken()) << i;
  }
}

TEST_P(MemifRingsTest, AFrameMayEndWhereItsRegionEnds) {
  for (const uint32_t length : {1U, 63U, 64U, 65U, 1500U, kFrameBytes}) {
    for (uint32_t i = 0; i < length; i++) bed_.buffers[kEnd - length + i] = static_cast<uint8_t>(i + length);
    bed_.send({0, 1, length, kEnd - length, 0});
    RxFrame frame;
    ASSERT_EQ(bed_.receive(&frame, 1), 1);
    EXPECT_EQ(frame.length, length);
    EXPECT_EQ(memcmp(frame.data, bed_.buffers + kEnd - length, length), 0);
    Bed::release(frame);
  }
}

TEST_P(MemifRingsTest, WhatLiesOutsideIsDropped) {
  const Descriptor bad[] = {
      {0, 1, 0, 0, 0},                      // nothing
      {0, 1, kFrameBytes + 1, 0, 0},        // more than a frame
      {0, 1, UINT32_MAX, 0, 0},             {0, 1, 0x80000000, 0, 0},
      {0, 1, UINT32_MAX - 4095, 4096, 0},   // wraps to the region's begin
      {0, 1, 1, kEnd, 0},                   {0, 1, 2, kEnd - 1, 0},
      {0, 1, kFrameBytes, kEnd - 2047, 0},  {0, 1, 60, UINT32_MAX, 0},
      {0, 1, 60, UINT32_MAX - 59, 0},       {0, 1, 60, 0x80000000, 0},
      {0, 2, 60, 0, 0},                     // a region that is not there
      {0, 4, 60, 0, 0},                     {0, 0x8001, 60, 0, 0},
      {0, UINT16_MAX, 60, 0, 0},            {0, 0, 60, 2 * Bed::kRingBytes - 59, 0},
  };
  for (const Descriptor& descriptor : bad) {
    SCOPED_TRACE(testing::Message() << "region " << descriptor.region << " offset " << descriptor.offset << " length "
                                    << descriptor.length);
    bed_.send(descriptor);
    bed_.send({0, 1, 77, 0, 0});
    EXPECT_EQ(received(), Lengths{77});
    EXPECT_EQ(given_back(), bed_.sent());
  }
  lines_expected_ = 1;
}

TEST_P(MemifRingsTest, UnknownFlagsMeanNothing) {
  bed_.send({0xfffe, 1, 60, 0, UINT32_MAX});
  EXPECT_EQ(received(), Lengths{60});
}

TEST_P(MemifRingsTest, ChainsAreOneFrame) {
  bed_.send({kMore, 1, 100, 0, 0});
  bed_.send({kMore, 1, 0, 4096, 0});
  bed_.send({0, 1, 200, 8192, 0});
  EXPECT_EQ(received(), Lengths{300});
  bed_.send({kMore, 1, 1024, 0, 0});
  bed_.send({0xffff, 1, 1023, 0, 0});
  bed_.send({0, 1, 1, 0, 0});
  EXPECT_EQ(received(), Lengths{kFrameBytes});
}

TEST_P(MemifRingsTest, ChainsThatMakeNoFrameAreDropped) {
  bed_.send({kMore, 1, 1024, 0, 0});
  bed_.send({kMore, 1, 1025, 0, 0});  // too long
  bed_.send({0, 1, 1, 0, 0});
  bed_.send({0, 1, 60, 0, 0});
  EXPECT_EQ(received(), Lengths{60});
  bed_.send({kMore, 1, UINT32_MAX, 0, 0});  // a sum that wraps
  bed_.send({0, 1, 61, 0, 0});
  bed_.send({0, 1, 60, 0, 0});
  EXPECT_EQ(received(), Lengths{60});
  bed_.send({kMore, 1, 60, 0, 0});
  bed_.send({0, 3, 60, 0, 0});  // half of it in a region that is not there
  bed_.send({0, 1, 60, 0, 0});
  EXPECT_EQ(received(), Lengths{60});
  for (uint32_t i = 0; i < kSlots; i++) bed_.send({kMore, 1, 60, 0, 0});  // without an end, all round the ring
  EXPECT_EQ(received(), Lengths{});
  EXPECT_EQ(given_back(), bed_.sent());
  bed_.send({0, 1, 60, 0, 0});
  EXPECT_EQ(received(), Lengths{60});
  lines_expected_ = 1;
}

TEST_P(MemifRingsTest, PositionsThatCannotBeAreNothingThere) {
  for (int i = 0; i < 3; i++) {
    bed_.send({0, 1, 60, 0, 0});
    EXPECT_EQ(received(), Lengths{60});
  }
  const uint16_t right = bed_.sent();
  for (const uint16_t wrong :
       {right - 1, right - 3, right + static_cast<int>(kSlots) + 1, right + 0x7fff, right + 0x8000, right + 0xff00}) {
    bed_.sent() = wrong;
    EXPECT_EQ(received(), Lengths{}) << wrong;
    EXPECT_EQ(given_back(), right) << wrong;
  }
  bed_.sent() = static_cast<uint16_t>(right + kSlots);
  EXPECT_EQ(received().size(), kSlots) << "the whole ring is no nonsense";
  bed_.send({0, 1, 61, 0, 0});
  EXPECT_EQ(received(), Lengths{61}) << "it goes on";
  lines_expected_ = 1;
}

TEST_P(MemifRingsTest, PositionsThatCannotBeAreNoRoom) {
  TxFrame frame;
  const uint8_t data[100] = {};
  const uint16_t right = bed_.room();
  for (const uint16_t wrong :
       {right - static_cast<int>(kSlots) - 1, right + 1, right + static_cast<int>(kSlots), right + 0x7fff, right + 0x8000}) {
    bed_.room() = wrong;
    EXPECT_FALSE(bed_.rings.open(&frame)) << wrong;
    EXPECT_FALSE(bed_.rings.copy(data, sizeof data)) << wrong;
    EXPECT_EQ(bed_.rings.unpublished(), 0U);
  }
  bed_.room() = right;
  EXPECT_TRUE(bed_.rings.open(&frame));
}

TEST_P(MemifRingsTest, NothingIsWrittenToBuffersOutside) {
  const Descriptor bad[] = {
      {0, 1, kFrameBytes, kEnd - kFrameBytes + 1, 0}, {0, 1, kFrameBytes, kEnd, 0},   {0, 1, kFrameBytes, UINT32_MAX, 0},
      {0, 1, kFrameBytes, UINT32_MAX - 2047, 0},      {0, 2, kFrameBytes, 0, 0},      {0, 4, kFrameBytes, 0, 0},
      {0, UINT16_MAX, kFrameBytes, 0, 0},             {0, 0x8001, kFrameBytes, 0, 0},
  };
  const uint8_t data[kFrameBytes] = {};
  for (const Descriptor& descriptor : bad) {
    SCOPED_TRACE(testing::Message() << "region " << descriptor.region << " offset " << descriptor.offset);
    bed_.outgoing().descriptors[0] = descriptor;
    TxFrame frame;
    EXPECT_FALSE(bed_.rings.open(&frame));
    EXPECT_FALSE(bed_.rings.copy(data, sizeof data));
    EXPECT_EQ(bed_.rings.unpublished(), 0U);
  }
  bed_.outgoing().descriptors[0] = Bed::usable(0);
  EXPECT_TRUE(bed_.rings.copy(data, sizeof data)) << "as soon as it offers memory again";
  lines_expected_ = 1;
}

TEST_P(MemifRingsTest, BuffersOfOtherLengths) {
  const uint8_t data[100] = {1, 2, 3};
  for (uint32_t i = 0; i < kSlots; i++) bed_.outgoing().descriptors[i] = {0xffff, 1, i == 0 ? 0 : 30U, 64 * i, 0};
  TxFrame frame;
  if (bed_.peer.client) {  // the client's buffers have the length that it gave them
    EXPECT_TRUE(bed_.rings.open(&frame));
    EXPECT_EQ(frame.capacity, kFrameBytes);
    return;
  }
  lines_expected_ = 1;
  EXPECT_FALSE(bed_.rings.open(&frame));
  EXPECT_FALSE(bed_.rings.copy(data, sizeof data)) << "a buffer of no length";
  bed_.outgoing().descriptors[0].length = 9;
  EXPECT_FALSE(bed_.rings.open(&frame));
  EXPECT_FALSE(bed_.rings.copy(data, sizeof data)) << "9 and 3 times 30 are less than 100";
  EXPECT_TRUE(bed_.rings.copy(data, 99));
  EXPECT_EQ(bed_.rings.unpublished(), kSlots);
  for (uint32_t i = 0; i < kSlots; i++) {
    EXPECT_EQ(bed_.outgoing().descriptors[i].flags, i + 1 < kSlots ? kMore : 0);
    EXPECT_EQ(bed_.outgoing().descriptors[i].length, i == 0 ? 9U : 30U);
  }
}

TEST_P(MemifRingsTest, RefusesRingsThatAreNotInARegion) {
  bed_.rings.detach();
  const uint32_t bytes = 128 + 16 * kSlots;
  const struct {
    MemifRing ring;
    const char* what;
  } bad[] = {
      {{-1, 2, 0, kLog2}, "a region that is not there"},
      {{-1, 0, 32, kLog2}, "not at a line's begin"},
      {{-1, 0, 2 * Bed::kRingBytes, kLog2}, "at the end"},
      {{-1, 0, 2 * Bed::kRingBytes - 64, kLog2}, "over the end"},
      {{-1, 0, 2 * Bed::kRingBytes - bytes / 64 * 64 + 64, kLog2}, "descriptors over the end"},
      {{-1, 0, UINT32_MAX - 63, kLog2}, "far behind the end"},
      {{-1, 0, 0, 9}, "more slots than the region holds"},
      {{-1, 0, 0, 15}, "more slots than positions tell apart"},
      {{-1, 0, 0, 63}, "a shift too far"},
      {{-1, 0, 0, 255}, "a shift much too far"},
      {{-1, 1, 0, kLog2}, "no cookie"},
  };
  for (const auto& [ring, what] : bad) {
    for (MemifRing* side : {&bed_.peer.to_client, &bed_.peer.to_server}) {
      const MemifRing good = *side;
      *side = ring;
      EXPECT_FALSE(bed_.attach()) << what;
      EXPECT_FALSE(bed_.rings.attached()) << what;
      *side = good;
    }
  }
  bed_.to_client().cookie++;
  EXPECT_FALSE(bed_.attach()) << "another cookie";
  bed_.to_client().cookie--;
  RxFrame frame;
  EXPECT_EQ(bed_.receive(&frame, 1), 0) << "without rings nothing comes";
  TxFrame out;
  EXPECT_FALSE(bed_.rings.open(&out));
  EXPECT_TRUE(bed_.attach());
  lines_expected_ = 1;
}

TEST_P(MemifRingsTest, RecoversWhateverThePositionsAre) {
  std::mt19937 random(3);
  for (int i = 0; i < 1000; i++) {
    for (uint16_t* position : {&bed_.to_client().head, &bed_.to_client().tail, &bed_.to_server().head, &bed_.to_server().tail}) {
      *position = static_cast<uint16_t>(random());
    }
    bed_.rings.recover();
    EXPECT_EQ(bed_.rings.unpublished(), 0U);
    TxFrame frame;
    for (uint32_t sent = 0; bed_.rings.open(&frame); sent++) {
      ASSERT_LT(sent, kSlots);
      bed_.rings.fill(60);
    }
    bed_.rings.publish();
    ASSERT_LE(received().size(), kSlots);
  }
  (void)testing::internal::GetCapturedStderr();
  testing::internal::CaptureStderr();
}

// Everything in the rings changes all the time, read or not.
TEST_P(MemifRingsTest, ThePeerWritesWhileWeRead) {
  constexpr int kTurns = 500, kMostTurns = 1'000'000;
  std::atomic<bool> done = false;
  std::thread peer([&] {
    std::mt19937 random(4);
    const uint32_t offsets[] = {0, 64, kEnd - 100, kEnd - 1, kEnd, UINT32_MAX, 0x80000000};
    const uint32_t lengths[] = {60, 1500, kFrameBytes, 0, kFrameBytes + 1, UINT32_MAX};
    while (!done.load(std::memory_order_relaxed)) {
      for (Ring* ring : {&bed_.incoming(), &bed_.outgoing()}) {
        for (uint32_t i = 0; i < kSlots; i++) {
          Descriptor& descriptor = ring->descriptors[i];
          std::atomic_ref(descriptor.flags).store(static_cast<uint16_t>(random() % 4 == 0));
          std::atomic_ref(descriptor.region).store(static_cast<uint16_t>(random() % 8 == 0 ? random() : 1));
          std::atomic_ref(descriptor.offset).store(offsets[random() % std::size(offsets)]);
          std::atomic_ref(descriptor.length).store(lengths[random() % std::size(lengths)]);
        }
      }
      std::atomic_ref(bed_.sent()).store(static_cast<uint16_t>(given_back() + random() % (kSlots + 2)));
      std::atomic_ref(bed_.room()).store(static_cast<uint16_t>(published() + random() % (2 * kSlots)));
    }
  });
  uint64_t frames = 0, sent = 0;
  const uint8_t data[kFrameBytes] = {};
  for (int turn = 0; turn < kTurns || ((frames == 0 || sent == 0) && turn < kMostTurns); turn++) {
    const uint64_t before = frames;
    for (const uint32_t length : received()) {
      EXPECT_GE(length, 1U);
      EXPECT_LE(length, kFrameBytes);
      frames++;
    }
    TxFrame frame;
    if (bed_.rings.open(&frame)) {
      ASSERT_GE(frame.capacity, kFrameBytes);
      memset(frame.data, turn, kFrameBytes);
      bed_.rings.fill(kFrameBytes);
      sent++;
    }
    if (bed_.rings.copy(data, 1 + static_cast<uint32_t>(turn) % kFrameBytes)) sent++;
    bed_.rings.publish();
    if (turn % 1000 == 0) bed_.rings.recover();
    if (frames == before) std::this_thread::yield();  // the peer may need our processor
  }
  done = true;
  peer.join();
  EXPECT_GT(frames, 0U);
  EXPECT_GT(sent, 0U);
  lines_expected_ = 1;
}

}  // namespace
