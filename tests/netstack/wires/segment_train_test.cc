// Trains of TCP segments: what joins, what does not, and the headers that come out.
// SPDX-License-Identifier: BSD-3-Clause
#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "netstack/wires/segment_train.h"

namespace {

using netstack::SegmentTrain;
using netstack::VnetHeader;
using Frame = std::vector<uint8_t>;

constexpr uint8_t kAck = 0x10, kPsh = 0x08, kFin = 0x01;

struct Segment {
  uint32_t sequence = 1000, payload = 1460, acknowledgement = 7;
  uint16_t window = 100, port = 6379;
  uint8_t flags = kAck, header_words = 5;
  uint32_t stamp = 0;  // with timestamps, this one
};

template <class T>
void put(Frame& frame, size_t at, T value) {
  memcpy(&frame[at], &value, sizeof value);
}
uint16_t half(const Frame& frame, size_t at) { return static_cast<uint16_t>(frame[at] << 8 | frame[at + 1]); }

uint16_t sum(const uint8_t* data, size_t length, uint32_t total = 0) {
  for (size_t i = 0; i < length; i += 2) total += static_cast<uint32_t>(data[i] << 8 | (i + 1 < length ? data[i + 1] : 0));
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return static_cast<uint16_t>(total);
}

Frame frame_of(const Segment& segment) {
  Frame frame(SegmentTrain::kHeaderBytes + segment.payload, 0x5a);
  const uint8_t headers[] = {2, 0, 0, 0,    0, 1,  2, 0, 0, 0,   0,  2, 8, 0,   0x45, 0, 0,
                             0, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 2, 198, 18,   0, 1};
  memcpy(frame.data(), headers, sizeof headers);
  put(frame, 16, htons(static_cast<uint16_t>(frame.size() - 14)));
  put(frame, 24, htons(static_cast<uint16_t>(~sum(&frame[14], 20))));
  put(frame, 34, htons(segment.port));
  put(frame, 36, htons(40000));
  put(frame, 38, htonl(segment.sequence));
  put(frame, 42, htonl(segment.acknowledgement));
  frame[46] = static_cast<uint8_t>(segment.header_words << 4);
  frame[47] = segment.flags;
  put(frame, 48, htons(segment.window));
  if (segment.stamp == 0) return frame;
  Frame option(12);
  put(option, 0, htonl(0x0101080a));
  put(option, 4, htonl(segment.stamp));
  put(option, 8, htonl(segment.stamp + 1));
  frame.insert(frame.begin() + SegmentTrain::kHeaderBytes, option.begin(), option.end());
  frame[46] = 8 << 4;
  put(frame, 16, htons(static_cast<uint16_t>(frame.size() - 14)));
  put(frame, 24, uint16_t{0});
  put(frame, 24, htons(static_cast<uint16_t>(~sum(&frame[14], 20))));
  return frame;
}

bool joins(const Segment& first, const Segment& second) {
  Frame a = frame_of(first), b = frame_of(second);
  SegmentTrain train;
  train.begin(a.data(), static_cast<uint32_t>(a.size()));
  return train.join(b.data(), static_cast<uint32_t>(b.size()));
}

// The sum over the pseudo header, as a device expects it in the checksum field.
uint16_t pseudo_sum(const Frame& frame, uint32_t tcp_bytes) { return sum(&frame[26], 8, 6 + tcp_bytes); }

TEST(SegmentTrain, OneSegmentIsLeftAsItIs) {
  const Frame before = frame_of({});
  Frame frame = before;
  SegmentTrain train;
  VnetHeader header;
  train.begin(frame.data(), static_cast<uint32_t>(frame.size()));
  train.finish(&header);
  EXPECT_EQ(header.flags, VnetHeader::kNeedsChecksum);
  EXPECT_EQ(header.gso_type, 0);
  EXPECT_EQ(header.hdr_len, 54);
  EXPECT_EQ(header.csum_start, 34);
  EXPECT_EQ(header.csum_offset, 16);
  EXPECT_EQ(half(frame, 50), pseudo_sum(frame, 1480));
  put(frame, 50, half(before, 50) == 0 ? uint16_t{0} : htons(half(before, 50)));
  EXPECT_EQ(frame, before);
}

TEST(SegmentTrain, ConsecutiveSegmentsBecomeOneFrame) {
  Frame first = frame_of({});
  const Frame second = frame_of({.sequence = 2460, .acknowledgement = 9, .window = 50}),
              last = frame_of({.sequence = 3920, .payload = 100, .acknowledgement = 12, .window = 60, .flags = kAck | kPsh});
  SegmentTrain train;
  VnetHeader header;
  train.begin(first.data(), static_cast<uint32_t>(first.size()));
  ASSERT_TRUE(train.join(second.data(), static_cast<uint32_t>(second.size())));
  ASSERT_TRUE(train.join(last.data(), static_cast<uint32_t>(last.size())));
  const Frame next = frame_of({.sequence = 4020});
  EXPECT_FALSE(train.join(next.data(), static_cast<uint32_t>(next.size()))) << "nothing follows a short one";
  train.finish(&header);
  EXPECT_EQ(header.gso_type, VnetHeader::kTcp4);
  EXPECT_EQ(header.gso_size, 1460);
  EXPECT_EQ(header.hdr_len, 54);
  EXPECT_EQ(half(first, 16), 40 + 1460 + 1460 + 100);
  EXPECT_EQ(sum(&first[14], 20), 0xffff) << "the IP header's checksum is right";
  EXPECT_EQ(half(first, 50), pseudo_sum(first, 20 + 3020));
  EXPECT_EQ(half(first, 44), 12) << "the latest acknowledgement";
  EXPECT_EQ(half(first, 48), 60) << "and window";
  EXPECT_EQ(first[47], kAck | kPsh);
}

TEST(SegmentTrain, SegmentsWithTimestampsBecomeOneFrame) {
  Frame first = frame_of({.payload = 1448, .stamp = 77});
  const Frame last = frame_of({.sequence = 2448, .payload = 100, .stamp = 78});
  SegmentTrain train;
  VnetHeader header;
  train.begin(first.data(), static_cast<uint32_t>(first.size()));
  ASSERT_TRUE(train.join(last.data(), static_cast<uint32_t>(last.size())));
  EXPECT_EQ(train.header_bytes(), 66U);
  train.finish(&header);
  EXPECT_EQ(header.gso_type, VnetHeader::kTcp4);
  EXPECT_EQ(header.gso_size, 1448);
  EXPECT_EQ(header.hdr_len, 66);
  EXPECT_EQ(half(first, 16), 52 + 1448 + 100);
  EXPECT_EQ(sum(&first[14], 20), 0xffff);
  EXPECT_EQ(half(first, 50), pseudo_sum(first, 32 + 1548));
  EXPECT_EQ(half(first, 60), 78) << "the latest value";
  EXPECT_EQ(half(first, 64), 79) << "and echo";
}

TEST(SegmentTrain, IsOneSegmentForAPeerThatTakesIt) {
  for (const uint32_t most : {54 + 1559u, 54 + 1560u}) {
    Frame first = frame_of({});
    const Frame last = frame_of({.sequence = 2460, .payload = 100});
    SegmentTrain train;
    VnetHeader header;
    train.begin(first.data(), static_cast<uint32_t>(first.size()));
    ASSERT_TRUE(train.join(last.data(), static_cast<uint32_t>(last.size())));
    train.finish(&header, most);
    EXPECT_EQ(header.gso_type, most == 54 + 1560 ? 0 : VnetHeader::kTcp4);
    EXPECT_EQ(header.gso_size, most == 54 + 1560 ? 0 : 1460);
    EXPECT_EQ(half(first, 16), 40 + 1560);
    EXPECT_EQ(half(first, 50), pseudo_sum(first, 20 + 1560));
  }
}

TEST(SegmentTrain, WhatDiffersStaysAlone) {
  const Segment follows{.sequence = 2460};
  EXPECT_TRUE(joins({}, follows));
  EXPECT_FALSE(joins({}, {.sequence = 2461})) << "a hole";
  EXPECT_FALSE(joins({}, {.sequence = 1000})) << "a retransmission";
  EXPECT_FALSE(joins({}, {.sequence = 2460, .payload = 1461})) << "longer than the first";
  EXPECT_FALSE(joins({}, {.sequence = 2460, .payload = 0})) << "an acknowledgement";
  EXPECT_FALSE(joins({}, {.sequence = 2460, .port = 80})) << "another connection";
  EXPECT_FALSE(joins({}, {.sequence = 2460, .flags = kAck | kFin}));
  EXPECT_FALSE(joins({.flags = kAck | kFin}, follows));
  EXPECT_TRUE(joins({.stamp = 1}, {.sequence = 2460, .stamp = 2}));
  EXPECT_FALSE(joins({.stamp = 1}, follows)) << "one with timestamps, one without";
  EXPECT_FALSE(joins({}, {.sequence = 2460, .stamp = 1}));
  EXPECT_FALSE(joins({}, {.sequence = 2460, .header_words = 8})) << "options";
  EXPECT_FALSE(joins({.header_words = 8}, follows));
  EXPECT_FALSE(joins({.payload = 0}, {.sequence = 1000}));
}

TEST(SegmentTrain, EndsBeforeAnIpPacketCannotBeLonger) {
  Frame first = frame_of({});
  SegmentTrain train;
  train.begin(first.data(), static_cast<uint32_t>(first.size()));
  uint32_t joined = 1;
  for (;; joined++) {
    const Frame next = frame_of({.sequence = 1000 + joined * 1460});
    if (!train.join(next.data(), static_cast<uint32_t>(next.size()))) break;
  }
  EXPECT_EQ(joined, (65535U - 40) / 1460);
  VnetHeader header;
  train.finish(&header);
  EXPECT_EQ(half(first, 16), 40 + joined * 1460);
}

}  // namespace
