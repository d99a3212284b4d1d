// A wire whose frames are those of one VLAN of another wire (IEEE 802.1Q), tagged and untagged in software.
// SPDX-License-Identifier: BSD-3-Clause
//
// The stack knows no tags: its headers lie where they always do. So a frame is written four bytes behind the begin of its buffer, and when
// it is sent the two addresses move there and the tag goes between; what comes loses its tag the same way. The stack sums up all it sends:
// what wires do of that (checksums, cutting long segments) counts from the end of an Ethernet header without a tag.
//
// As on a VLAN interface of Linux' only frames with the tag's number are the stack's. Others are dropped and counted: those of other VLANs,
// and those of none, which the interface itself would have.
#pragma once

#include "netstack/wire.h"

namespace netstack {

class VlanWire final : public Wire {
 public:
  VlanWire(Wire& carrier, uint16_t vlan) noexcept;

  [[nodiscard]] const WireFacts& facts() const noexcept override { return facts_; }
  [[nodiscard]] int receive(RxFrame* out, int capacity) noexcept override;
  [[nodiscard]] bool crowded() const noexcept override { return carrier_.crowded(); }
  void release(void* handle) noexcept override { carrier_.release(handle); }
  [[nodiscard]] bool allocate(TxFrame* out) noexcept override;
  void send(void* handle, uint32_t length) noexcept override;
  void flush() noexcept override { carrier_.flush(); }
  [[nodiscard]] int backlog() const noexcept override { return carrier_.backlog(); }
  [[nodiscard]] bool delivered() const noexcept override { return carrier_.delivered(); }
  [[nodiscard]] bool refused() const noexcept override { return carrier_.refused(); }
  [[nodiscard]] int sleep_fd() noexcept override { return carrier_.sleep_fd(); }
  void arm() noexcept override { carrier_.arm(); }
  void disarm() noexcept override { carrier_.disarm(); }
  [[nodiscard]] int control_fd() noexcept override { return carrier_.control_fd(); }
  void run_control() noexcept override;
  void leave_name() noexcept override { carrier_.leave_name(); }
  [[nodiscard]] uint64_t foreign_frames() const noexcept override { return foreign_; }
  [[nodiscard]] int free_frames() const noexcept override { return carrier_.free_frames(); }
  [[nodiscard]] int total_frames() const noexcept override { return carrier_.total_frames(); }
  void recover() noexcept override;

 private:
  void follow() noexcept;
  [[nodiscard]] int take_ours(RxFrame* frames, int count) noexcept;
  [[nodiscard]] bool untag(RxFrame& frame) noexcept;

  Wire& carrier_;
  const uint16_t vlan_;
  uint8_t* allocated_ = nullptr;  // where the carrier's frame begins that is being filled
  uint64_t foreign_ = 0;
  WireFacts facts_;
};

}  // namespace netstack
