// Frames that the kernel refuses for want of memory: they go later, whole, or are dropped if it takes none for long.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <vector>

#include "netstack/wires/segment_train.h"
#include "packet_bed.h"

namespace {

constexpr uint32_t kHeaders = netstack::SegmentTrain::kHeaderBytes;

// A wire whose kernel takes a few frames and refuses the rest until read() made room.
class RefusedFrames : public testing::Test {
 protected:
  // The pool is the process's.
  static void SetUpTestSuite() {
    if (unshare(CLONE_NEWNET) == 0) bed_ = new packet_bed::Bed;
  }

  static constexpr uint32_t kPayload = 1000, kWhole = sizeof(netstack::VnetHeader) + kHeaders + kPayload;
  static constexpr uint32_t kLong = 10'000, kLongWhole = sizeof(netstack::VnetHeader) + kHeaders + kLong;

  void SetUp() override {
    if (bed_ == nullptr) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
    const int room = kLongWhole;
    ASSERT_EQ(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    ASSERT_EQ(dup2(pair[0], bed_->sending()), bed_->sending());
    close(pair[0]);
    kernel_ = pair[1];
    free_before_ = bed_->wire->free_frames();
  }
  void TearDown() override { close(kernel_); }
  // So many frames whose payload is in `elsewhere_`, each with another byte; the first is `first`.
  void queue(uint8_t first, uint8_t count) {
    for (uint8_t i = 0; i < count; i++) {
      elsewhere_.emplace_back(kPayload, static_cast<uint8_t>(first + i));
      netstack::TxFrame frame;
      ASSERT_TRUE(bed_->wire->allocate(&frame));
      memset(frame.data, 0, kHeaders);
      const netstack::Piece payload{elsewhere_.back().data(), kPayload};
      bed_->wire->send_tcp_with(frame.handle, kHeaders, &payload, 1);
    }
  }
  // A segment in four pieces that is longer than a frame; the last byte of its payload is `last`.
  void queue_long(uint8_t last) {
    long_.assign(kLong, 1);
    long_[kLong - 1] = last;
    netstack::Piece pieces[netstack::kMostPieces];
    for (uint32_t i = 0; i < netstack::kMostPieces; i++) pieces[i] = {long_.data() + i * kLong / 4, kLong / 4};
    netstack::TxFrame frame;
    ASSERT_TRUE(bed_->wire->allocate(&frame));
    memset(frame.data, 0, kHeaders);
    bed_->wire->send_tcp_with(frame.handle, kHeaders, pieces, netstack::kMostPieces);
  }
  // The promise of a sender with payload elsewhere ends with the flush.
  void flush_and_forget() {
    bed_->wire->flush();
    for (auto& payload : elsewhere_) payload.assign(kPayload, 0xff);
    long_.assign(kLong, 0xff);
  }
  // What frame arrived: its payload's byte, -1 if none did, -2 if it is not what was sent.
  int read() const {
    uint8_t frame[kWhole + 1];
    const ssize_t length = recv(kernel_, frame, sizeof frame, 0);
    if (length < 0) return -1;
    const uint8_t* payload = frame + kWhole - kPayload;
    for (uint32_t i = 0; i < kPayload; i++) {
      if (payload[i] != payload[0]) return -2;
    }
    return length == kWhole ? payload[0] : -2;
  }
  // Frames 1 to `last` in order, and nothing else, with a flush wherever there is room again.
  void read_all(int last) const {
    for (int i = 1; i <= last; i++) {
      int frame = read();
      if (frame == -1) {
        bed_->wire->flush();
        frame = read();
      }
      ASSERT_EQ(frame, i);
    }
    EXPECT_EQ(read(), -1);
  }

  static inline packet_bed::Bed* bed_ = nullptr;
  std::vector<std::vector<uint8_t>> elsewhere_;
  std::vector<uint8_t> long_;
  int kernel_ = -1, free_before_ = 0;
};

TEST_F(RefusedFrames, GoWholeLater) {
  constexpr uint8_t kCount = 40;
  ASSERT_NO_FATAL_FAILURE(queue(1, kCount));
  flush_and_forget();
  EXPECT_GT(bed_->wire->backlog(), 0);
  ASSERT_NO_FATAL_FAILURE(read_all(kCount));
  EXPECT_EQ(bed_->wire->backlog(), 0);
  EXPECT_EQ(bed_->wire->free_frames(), free_before_);
}

// There is no room to keep what is longer than a frame; what is queued before and after it stays in order.
TEST_F(RefusedFrames, AreLostIfTooLongToKeep) {
  std::vector<uint8_t> frame(kLongWhole + 1);
  ASSERT_NO_FATAL_FAILURE(queue_long(77));
  bed_->wire->flush();
  ASSERT_EQ(recv(kernel_, frame.data(), frame.size(), 0), ssize_t{kLongWhole});
  EXPECT_EQ(frame[kLongWhole - 2], 1);
  EXPECT_EQ(frame[kLongWhole - 1], 77);
  ASSERT_NO_FATAL_FAILURE(queue(1, 20));
  ASSERT_NO_FATAL_FAILURE(queue_long(78));
  ASSERT_NO_FATAL_FAILURE(queue(21, 2));
  flush_and_forget();
  EXPECT_GT(bed_->wire->backlog(), 2);
  ASSERT_NO_FATAL_FAILURE(read_all(22));
  EXPECT_EQ(bed_->wire->free_frames(), free_before_);
}

TEST_F(RefusedFrames, AreDroppedIfTheKernelNeverTakesThem) {
  constexpr int kCount = 25;
  ASSERT_NO_FATAL_FAILURE(queue(1, kCount));
  flush_and_forget();
  const int refused = bed_->wire->backlog();
  EXPECT_TRUE(bed_->wire->refused());
  ASSERT_GT(refused, 1);
  const auto begin = std::chrono::steady_clock::now();
  const auto waited = [&] { return std::chrono::steady_clock::now() - begin; };
  while (bed_->wire->backlog() == refused && waited() < std::chrono::seconds(5)) bed_->wire->flush();
  EXPECT_GT(waited(), std::chrono::milliseconds(90)) << "memory may lack for a moment";
  EXPECT_FALSE(bed_->wire->refused());
  EXPECT_EQ(bed_->wire->backlog(), 0);
  EXPECT_EQ(bed_->wire->free_frames(), free_before_);
  for (int i = 1; i <= kCount - refused; i++) ASSERT_EQ(read(), i);
  EXPECT_EQ(read(), -1);
  ASSERT_NO_FATAL_FAILURE(queue(100, 1));
  flush_and_forget();
  EXPECT_EQ(read(), 100) << "and what comes later goes again";
}

}  // namespace
