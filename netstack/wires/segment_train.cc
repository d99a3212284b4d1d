// Headers of joined TCP segments.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/segment_train.h"

#include <arpa/inet.h>
#include <cstddef>
#include <cstring>

namespace netstack {
namespace {

constexpr uint32_t kIp = SegmentTrain::kEthernetBytes, kTcp = kIp + SegmentTrain::kIpBytes;
constexpr uint32_t kMostIpBytes = 65535;
constexpr uint8_t kPlainHeaderWords = 5 << 4, kStampedHeaderWords = 8 << 4, kPsh = 0x08, kAck = 0x10;
constexpr uint32_t kFlagsAt = kTcp + 13, kAcknowledgementAt = kTcp + 8, kWindowAt = kTcp + 14, kTcpSumAt = kTcp + 16, kWordsAt = kTcp + 12;
constexpr uint32_t kOptionsAt = kTcp + 20, kStampsAt = kOptionsAt + 4;
constexpr uint8_t kStampsOption[] = {1, 1, 8, 10};  // as the stack writes it: NOP, NOP, kind and length

uint16_t half(const uint8_t* at) noexcept {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return value;
}
uint32_t sequence_of(const uint8_t* frame) noexcept {
  uint32_t value;
  memcpy(&value, frame + kTcp + 4, sizeof value);
  return ntohl(value);
}
void put_half(uint8_t* at, uint32_t value) noexcept {
  const auto wire = static_cast<uint16_t>(value);
  memcpy(at, &wire, sizeof wire);
}

// Sums in wire order: one's complement addition does not mind (RFC 1071).
uint32_t sum_of(const uint8_t* at, uint32_t halves) noexcept {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < halves; i++) sum += half(at + 2 * i);
  return sum;
}
uint32_t folded(uint32_t sum) noexcept {
  sum = (sum & 0xffff) + (sum >> 16);
  return (sum & 0xffff) + (sum >> 16);
}

bool is_stamped(const uint8_t* frame) noexcept {
  return frame[kWordsAt] == kStampedHeaderWords && memcmp(frame + kOptionsAt, kStampsOption, sizeof kStampsOption) == 0;
}
bool is_plain(const uint8_t* frame) noexcept {
  return (frame[kFlagsAt] & ~kPsh) == kAck && (frame[kWordsAt] == kPlainHeaderWords || is_stamped(frame));
}

// Everything that has to be equal: Ethernet, type of service, fragmentation and time to live, protocol, addresses and ports.
bool same_flow(const uint8_t* a, const uint8_t* b) noexcept {
  return memcmp(a, b, kIp + 2) == 0 && memcmp(a + kIp + 6, b + kIp + 6, 4) == 0 && memcmp(a + kIp + 12, b + kIp + 12, 12) == 0;
}

}  // namespace

void SegmentTrain::begin(uint8_t* frame, uint32_t length) noexcept {
  first_ = frame;
  header_bytes_ = kTcp + (frame[kWordsAt] >> 4) * 4u;
  payload_ = length > header_bytes_ ? length - header_bytes_ : 0;
  first_payload_ = is_plain(frame) ? payload_ : 0;
  next_sequence_ = sequence_of(frame) + payload_;
  open_ = first_payload_ != 0;
}

bool SegmentTrain::join(const uint8_t* frame, uint32_t length) noexcept {
  if (!open_ || length <= header_bytes_ || frame[kWordsAt] != first_[kWordsAt] || !is_plain(frame)) return false;
  if (sequence_of(frame) != next_sequence_ || !same_flow(first_, frame)) return false;
  const uint32_t bytes = length - header_bytes_;
  if (bytes > first_payload_ || payload_ + bytes > kMostIpBytes + kEthernetBytes - header_bytes_) return false;
  payload_ += bytes;
  next_sequence_ += bytes;
  open_ = bytes == first_payload_;
  first_[kFlagsAt] |= frame[kFlagsAt] & kPsh;
  memcpy(first_ + kAcknowledgementAt, frame + kAcknowledgementAt, 4);
  memcpy(first_ + kWindowAt, frame + kWindowAt, 2);
  if (header_bytes_ > kHeaderBytes) memcpy(first_ + kStampsAt, frame + kStampsAt, 8);
  return true;
}

void SegmentTrain::finish(VnetHeader* out, uint32_t most_whole) noexcept {
  *out = {};
  out->flags = VnetHeader::kNeedsChecksum;
  out->csum_start = kTcp;
  out->csum_offset = kTcpSumAt - kTcp;
  out->hdr_len = static_cast<uint16_t>(header_bytes_);  // in one piece at the receiver, if not all is (packet_alloc_skb())
  if (first_payload_ != 0 && payload_ > first_payload_) {
    if (header_bytes_ + payload_ > most_whole) {
      out->gso_type = VnetHeader::kTcp4;
      out->gso_size = static_cast<uint16_t>(first_payload_);
    }
    put_half(first_ + kIp + 2, htons(static_cast<uint16_t>(header_bytes_ - kEthernetBytes + payload_)));
  }
  put_half(first_ + kIp + 10, 0);
  put_half(first_ + kIp + 10, ~folded(sum_of(first_ + kIp, kIpBytes / 2)));
  const auto tcp_bytes = static_cast<uint16_t>(ntohs(half(first_ + kIp + 2)) - kIpBytes);
  put_half(first_ + kTcpSumAt, folded(sum_of(first_ + kIp + 12, 4) + htons(first_[kIp + 9]) + htons(tcp_bytes)));
}

}  // namespace netstack
