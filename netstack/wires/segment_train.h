// Consecutive TCP segments of one connection as one frame for a device that cuts it again (virtio's TCPv4 segmentation offload).
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP makes segments of at most the wire's MSS, and everything in it (windows, retransmission, Nagle) counts in those. What waits for the
// wire in one burst is often one connection's stream in order. Such a train goes out as one frame of up to 64 KB: the payloads one behind
// the other under the first segment's headers, with the last one's acknowledgement and window. The kernel's TCP takes it as it is and only
// a real network card cuts it. Checksums are left to the device: the TCP checksum field holds the sum of the pseudo header.
//
// A peer whose link takes frames as large as the train gets it as one segment that is never cut: it acknowledges every other segment at
// once, and of one that is as large as all it was sent it waits for the program's answer, which carries the acknowledgement.
//
// A segment joins if it continues the sequence, its headers say the same otherwise, it has no options but timestamps as the first has, and
// no other flag than ACK and PSH, and all before it are as long as the first. The timestamps that travel are the last one's.
#pragma once

#include <cstdint>

namespace netstack {

// struct virtio_net_hdr of Linux, whose header is not C++.
struct VnetHeader {
  static constexpr uint8_t kNeedsChecksum = 1, kTcp4 = 1;
  uint8_t flags, gso_type;
  uint16_t hdr_len, gso_size, csum_start, csum_offset;
};
static_assert(sizeof(VnetHeader) == 10);

class SegmentTrain {
 public:
  static constexpr uint32_t kEthernetBytes = 14, kIpBytes = 20, kTcpBytes = 20;
  static constexpr uint32_t kHeaderBytes = kEthernetBytes + kIpBytes + kTcpBytes;

  // Starts with `frame`: Ethernet, IPv4 without options, TCP, `length` bytes in all.
  void begin(uint8_t* frame, uint32_t length) noexcept;
  // The headers of each frame of the train have so many bytes.
  [[nodiscard]] uint32_t header_bytes() const noexcept { return header_bytes_; }
  // Of the train as one frame.
  [[nodiscard]] uint32_t bytes() const noexcept { return header_bytes_ + payload_; }
  // Takes `frame` in if it continues the train; its payload is then what lies behind header_bytes().
  [[nodiscard]] bool join(const uint8_t* frame, uint32_t length) noexcept;
  // Completes the first frame's headers, the sum over the IP header included, and says to the device what is left to do. A train that
  // makes a frame of up to `most_whole` bytes becomes one segment for good.
  void finish(VnetHeader* out, uint32_t most_whole = 0) noexcept;

 private:
  uint8_t* first_ = nullptr;
  uint32_t header_bytes_ = kHeaderBytes;
  uint32_t first_payload_ = 0;  // 0: nothing joins
  uint32_t payload_ = 0;        // of the whole train
  uint32_t next_sequence_ = 0;
  bool open_ = false;           // the last segment was as long as the first
};

}  // namespace netstack
