// A frame that is copied out of a peer's memory, into as many frames of the pool as it takes.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "netstack/wire.h"
#include "netstack/wires/frame_pool.h"

namespace netstack {

// A value of memory that a peer may change at any time, read once.
template <class T>
T once(const T& value) noexcept {
  return *const_cast<const volatile T*>(&value);
}

struct FramePieces {
  RxFrame* out;
  int capacity;
  bool first;  // nothing was received before it: it gets no more room by waiting
  int count = 0;

  enum class Added : uint8_t { all, no_room, no_frames };
  // Appends `bytes` to what is there, in pieces of `frame_bytes`.
  [[nodiscard]] Added add(const uint8_t* data, uint32_t bytes, uint32_t frame_bytes, FramePool& pool) noexcept;
  // Whether it has to wait, for frames of the pool or for more room, instead of being dropped.
  [[nodiscard]] bool waits_after(Added added) const noexcept { return added == Added::no_frames || (added == Added::no_room && !first); }
  void give_back(FramePool& pool) noexcept {
    while (count > 0) pool.give(&out[--count].handle, 1);
  }
};

}  // namespace netstack
