// Frames from the wire to lwIP, without a copy.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lwip/netif.h"
#include "netstack/lwip/protocol.h"
#include "netstack/wire.h"

namespace netstack {

class LwipCore;

class FrameInput {
 public:
  explicit FrameInput(LwipCore& core) noexcept;

  // A protocol that is told of each burst. At most kMostProtocols.
  void add(Protocol& protocol) noexcept;
  // Hands lwIP what the wire has, and what the stack sent to itself. Returns the number of frames taken off the wire.
  int receive() noexcept;
  // The latter alone.
  void receive_own() noexcept;
  // Has the protocol called when lwIP is through with the present segment.
  void finish_for(Protocol& protocol) noexcept { unfinished_ = &protocol; }
  // Whom the frame under input came from, behind whom it was for; nullptr if it is from the stack itself, or none is.
  [[nodiscard]] const uint8_t* source_mac() const noexcept { return source_mac_; }
  void reset() noexcept { unfinished_ = nullptr, source_mac_ = nullptr; }

 private:
  static constexpr int kMostProtocols = 2;

  void look_at(const RxFrame& frame, FrameView& view) const noexcept;
  void look_at_v6(const RxFrame& frame, FrameView& view) const noexcept;
  [[nodiscard]] pbuf* copy_pieces(const RxFrame* pieces, int count) noexcept;
  void release_pieces(const RxFrame* pieces, int count) noexcept;
  void take_burst(RxFrame* frames, int count, bool crowded) noexcept;
  void take_copy(const RxFrame* pieces, int count, const FrameView& view) noexcept;
  void take_one(const RxFrame& frame, const FrameView& view, pbuf* p) noexcept;
  void finish() noexcept {
    if (unfinished_ == nullptr) [[likely]] return;
    Protocol* const protocol = unfinished_;
    unfinished_ = nullptr;
    protocol->finish_input();
  }

  LwipCore& core_;
  Wire& wire_;
  Protocol* unfinished_ = nullptr;
  const uint8_t* source_mac_ = nullptr;
  uint8_t header_[16];  // the frame's first bytes, which may be answered when it is released already
  Protocol* protocols_[kMostProtocols] = {};
};

}  // namespace netstack
