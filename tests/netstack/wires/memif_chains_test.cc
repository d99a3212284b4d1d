// Frames that are longer than a buffer of memif's rings: chains of buffers on the ring, pieces at the stack.
// SPDX-License-Identifier: BSD-3-Clause
#include "memif_bed.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace {

using namespace memif_bed;
using netstack::Piece;

constexpr uint8_t kLog2 = 3;
constexpr uint32_t kLongest = 3 * kFrameBytes;

class MemifChains : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    bed_.longest = kLongest;
    ASSERT_TRUE(bed_.attach());
    for (uint32_t i = 0; i < Bed::kBuffersBytes; i++) bed_.buffers[i] = static_cast<uint8_t>(i * 7 + i / kFrameBytes);
  }
  void TearDown() override {
    release();
    EXPECT_EQ(Bed::pool().free_count(), Bed::pool().total()) << "frames that leaked";
  }

  // A chain of `lengths` in buffers one behind the other, and the bytes that it holds.
  std::string send(const std::vector<uint32_t>& lengths) {
    std::string bytes;
    for (size_t i = 0; i < lengths.size(); i++) {
      const auto at = static_cast<uint32_t>(i) * kFrameBytes;
      bed_.send({i + 1 < lengths.size() ? kMore : uint16_t{0}, 1, lengths[i], at, 0});
      bytes.append(reinterpret_cast<const char*>(bed_.buffers + at), lengths[i]);
    }
    return bytes;
  }
  int receive(int capacity = netstack::kBurst) { return count_ = bed_.receive(frames_, capacity); }
  // What the pieces hold together that are received now.
  std::string whole() {
    std::string bytes;
    for (int i = 0; i < count_; i++) {
      EXPECT_EQ(frames_[i].continues, i > 0);
      bytes.append(reinterpret_cast<const char*>(frames_[i].data), frames_[i].length);
    }
    return bytes;
  }
  void release() {
    while (count_ > 0) Bed::release(frames_[--count_]);
  }

  Bed bed_{GetParam(), kLog2};
  RxFrame frames_[netstack::kBurst];
  int count_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Roles, MemifChains, testing::Bool(),
                         [](const auto& role) { return std::string(role.param ? "Client" : "Server"); });

TEST_P(MemifChains, ComeAsPiecesThatAreFull) {
  for (const std::vector<uint32_t>& lengths :
       {std::vector<uint32_t>{kFrameBytes, kFrameBytes, kFrameBytes}, {kFrameBytes, 1}, {100, kFrameBytes, 70}, {0, kFrameBytes, 0, 100}}) {
    const std::string bytes = send(lengths);
    EXPECT_EQ(receive(), static_cast<int>((bytes.size() + kFrameBytes - 1) / kFrameBytes));
    EXPECT_EQ(whole(), bytes);
    EXPECT_FALSE(bed_.rings.waits());
    release();
  }
}

TEST_P(MemifChains, MayLieInOneLargeBuffer) {
  const std::string bytes = send({2 * kFrameBytes + 100});
  EXPECT_EQ(receive(), 3);
  EXPECT_EQ(whole(), bytes);
}

TEST_P(MemifChains, ThatAreTooLongAreDropped) {
  (void)send({kFrameBytes, kFrameBytes, kFrameBytes, 1});
  (void)send({kLongest + 1});
  const std::string bytes = send({77});
  EXPECT_EQ(receive(), 1);
  EXPECT_EQ(whole(), bytes);
}

// All pieces of a frame come in one receive().
TEST_P(MemifChains, WaitForTheNextCall) {
  (void)send({60});
  const std::string bytes = send({kFrameBytes, 60});
  EXPECT_EQ(receive(2), 1);
  EXPECT_TRUE(bed_.rings.waits());
  release();
  EXPECT_EQ(receive(2), 2);
  EXPECT_EQ(whole(), bytes);
}

TEST_P(MemifChains, WithoutAPlaceInAnyCallAreDropped) {
  (void)send({kFrameBytes, 60});
  EXPECT_EQ(receive(1), 0);
  EXPECT_FALSE(bed_.rings.waits());
}

TEST_P(MemifChains, WaitForFramesOfThePool) {
  std::vector<void*> held(Bed::pool().total() - 2);
  ASSERT_TRUE(Bed::pool().take(held.data(), static_cast<unsigned>(held.size())));
  const std::string bytes = send({kFrameBytes, kFrameBytes, kFrameBytes});
  for (int i = 0; i < 3; i++) EXPECT_EQ(receive(), 0);
  EXPECT_TRUE(bed_.rings.waits());
  Bed::pool().give(held.data(), static_cast<unsigned>(held.size()));
  EXPECT_EQ(receive(), 3);
  EXPECT_EQ(whole(), bytes);
}

TEST_P(MemifChains, AreLaidBehindTheHeaders) {
  const std::string first(kFrameBytes, 'a'), second(1000, 'b');
  for (uint32_t round = 0; round < 20; round++) {
    TxFrame frame;
    ASSERT_TRUE(bed_.rings.open(&frame, 2));
    memset(frame.data, 'h', 54);
    const Piece pieces[] = {{first.data(), static_cast<uint32_t>(first.size())}, {second.data(), static_cast<uint32_t>(second.size())}};
    ASSERT_TRUE(bed_.rings.fill_with(54, pieces, 2));
    bed_.rings.publish();
    std::string bytes;
    for (uint32_t i = 0; i < 2; i++) {
      Descriptor& descriptor = bed_.outgoing().descriptors[(2 * round + i) % bed_.slots];
      EXPECT_EQ(descriptor.flags, i == 0 ? kMore : 0);
      bytes.append(reinterpret_cast<const char*>(bed_.buffers + descriptor.offset), descriptor.length);
      descriptor.length = kFrameBytes;
    }
    EXPECT_EQ(bytes, std::string(54, 'h') + first + second);
    bed_.room() = static_cast<uint16_t>(bed_.room() + 2);
  }
}

TEST_P(MemifChains, AreNotLaidHalf) {
  TxFrame frame;
  const std::string bytes(kFrameBytes, 'x');
  const Piece piece{bytes.data(), kFrameBytes};
  EXPECT_FALSE(bed_.rings.open(&frame, bed_.slots + 1));
  ASSERT_TRUE(bed_.rings.open(&frame, bed_.slots));
  for (uint32_t i = 0; i + 1 < bed_.slots; i++) ASSERT_TRUE(bed_.rings.copy(&piece, 1));
  EXPECT_FALSE(bed_.rings.open(&frame, 2));
  ASSERT_TRUE(bed_.rings.open(&frame, 1));
  EXPECT_FALSE(bed_.rings.fill_with(54, &piece, 1)) << "there is one buffer, and it takes two";
  EXPECT_EQ(bed_.rings.unpublished(), bed_.slots - 1);
  const Piece both[] = {piece, piece};
  EXPECT_FALSE(bed_.rings.copy(both, 2));
  EXPECT_TRUE(bed_.rings.copy(&piece, 1));
}

}  // namespace
