// Consecutive TCP segments of one connection as one frame in pieces, for a device that cuts it again; or one frame alone.
// SPDX-License-Identifier: BSD-3-Clause
//
// The frames stay where they are: the payload of each but the first is another piece behind the first (rte_mbuf::next). What a device
// refuses is taken apart again.
#pragma once

#include <cstdint>

struct rte_mbuf;

namespace netstack {

class SegmentChain {
 public:
  static constexpr uint16_t kMostFrames = 16;

  // Takes as many of `count` frames as continue the first, `most` at most.
  void make(rte_mbuf** frames, uint16_t count, uint16_t most) noexcept;
  // Says in the first one what is left to the device; what is not (the sum over the IP header), is filled in.
  void finish(bool device_sums_ip) noexcept;
  // As they were before make(), but for what finish() and the last one's acknowledgement have changed in the first.
  void undo(rte_mbuf** frames) const noexcept;

  [[nodiscard]] uint16_t frames() const noexcept { return frames_; }

 private:
  rte_mbuf* first_;
  uint32_t header_bytes_;
  uint16_t frames_;
  uint16_t ip_length_be_;  // of the first alone
};

}  // namespace netstack
