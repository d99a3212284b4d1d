// How much of a message a packet wire asks the kernel to keep in one piece.
// SPDX-License-Identifier: BSD-3-Clause
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "netstack/wires/segment_train.h"
#include "sent_frames.h"

namespace {

using netstack::VnetHeader;

constexpr uint32_t kHeaders = netstack::SegmentTrain::kHeaderBytes, kDestinationAt = 30, kTcpWordsAt = 46;
constexpr uint32_t kEightPages = 32 << 10;

// A wire whose messages a socket of the test gets.
class SentMessages : public packet_bed::SentFrames {
 protected:
  void SetUp() override {
    SentFrames::SetUp();
    if (bed_ != nullptr) wire().mutable_facts().host_be = host_be_;
  }

  // Sends one segment with so many bytes, and returns how many of the frame's the kernel was asked to keep in one piece.
  uint32_t send(uint32_t payload_bytes, uint32_t to_be) const {
    const std::vector<uint8_t> payload(payload_bytes, 1);
    netstack::TxFrame frame;
    EXPECT_TRUE(bed_->wire->allocate(&frame));
    memset(frame.data, 0, kHeaders);
    memcpy(frame.data + kDestinationAt, &to_be, sizeof to_be);
    frame.data[kTcpWordsAt] = 5 << 4;
    const netstack::Piece piece{payload.data(), payload_bytes};
    bed_->wire->send_tcp_with(frame.handle, kHeaders, &piece, 1);
    bed_->wire->flush();
    std::vector<uint8_t> got(sizeof(VnetHeader) + kHeaders + payload_bytes + 1);
    EXPECT_EQ(recv(kernel_, got.data(), got.size(), 0), static_cast<ssize_t>(got.size() - 1));
    VnetHeader header;
    memcpy(&header, got.data(), sizeof header);
    return header.hdr_len;
  }

  const uint32_t host_be_ = htonl(0xc6120001), other_be_ = htonl(0xc6120063);
};

TEST_F(SentMessages, AreInOnePieceToThisMachine) {
  EXPECT_EQ(send(1000, host_be_), kHeaders + 1000);
  EXPECT_EQ(send(16384, host_be_), kHeaders + 16384);
  EXPECT_EQ(send(kEightPages, host_be_), kHeaders) << "larger than the pages that the kernel has ready";
}

TEST_F(SentMessages, AreOnlyHeadersInOnePieceToOthers) { EXPECT_EQ(send(16384, other_be_), kHeaders); }

}  // namespace
