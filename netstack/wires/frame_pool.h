// The frames of one wire: a DPDK mempool whose objects are made when they are first needed.
// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's own pools initialise every mbuf at the start: 16 ms and 10 MB of RSS for 4096 frames without hugepages. Here the
// memory is reserved, an mbuf is laid into it the first time the pool runs dry, and free mbufs form a stack: what was used last is used
// next and is still in the cache. There is no lock and no cache per core, because the stack's lock is around every use.
//
// Invariants: 1 free_[0 .. top_) are free, everything else below carved_ is held by somebody, nothing at or above carved_ was ever
// touched; 2 all of it lies in shared memory; 3 only the holder of the stack's lock calls anything here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"

struct rte_mbuf;
struct rte_mempool;

namespace netstack {

class FramePool {
 public:
  // A pool of `frames` frames with `room` bytes for data (headroom included); lazily backed, in hugepages if wanted and there.
  // With `chunk` each takes exactly so many bytes of aligned memory, what room_in_chunk() says of them for data.
  static base::Result<FramePool*> create(const char* name, uint32_t frames, uint32_t room, bool hugepages, uint32_t chunk = 0) noexcept;
  [[nodiscard]] static uint32_t room_in_chunk(uint32_t chunk) noexcept;

  // Tells DPDK how mbufs come and go; create() does it as well. In each program anew, under the same number.
  [[nodiscard]] static bool register_operations() noexcept;

  // Takes `count` frames or none.
  [[nodiscard]] bool take(void** out, unsigned count) noexcept {
    if (top_ < count && !carve(count)) [[unlikely]] return false;
    top_ -= count;
    for (unsigned i = 0; i < count; i++) out[i] = free_[top_ + i];
    return true;
  }
  void give(void* const* frames, unsigned count) noexcept {
    for (unsigned i = 0; i < count; i++) free_[top_ + i] = frames[i];
    top_ += count;
  }

  [[nodiscard]] uint32_t free_count() const noexcept { return top_ + (limit_ - carved_); }
  [[nodiscard]] uint32_t total() const noexcept { return limit_; }
  [[nodiscard]] rte_mempool* mempool() const noexcept { return mempool_; }

  // Takes every frame back, whoever held it, but those for which `kept` returns true.
  template <class Kept>
  void reset(Kept kept) noexcept {
    top_ = 0;
    for (uint32_t i = 0; i < carved_; i++) {
      if (!kept(frame_at(i))) free_[top_++] = lay(i);
    }
  }

  // All frames that there can be, one behind the other.
  [[nodiscard]] char* memory() const noexcept { return memory_; }
  [[nodiscard]] uint64_t memory_bytes() const noexcept { return uint64_t{limit_} * stride_; }
  // Where a device sees them, before the first is taken; else where they are.
  void set_iova(uint64_t iova) noexcept { iova_distance_ = iova - reinterpret_cast<uintptr_t>(memory_); }
  // The frame of a chunk with this number, laid as others are.
  [[nodiscard]] void* frame_of_chunk(uint64_t number) const noexcept { return frame_at(static_cast<uint32_t>(number)); }

  // While it is deaf it forgets what drivers give back: reset() is going to take everything.
  void set_deaf(bool deaf) noexcept { deaf_ = deaf; }
  [[nodiscard]] bool is_deaf() const noexcept { return deaf_; }

  // What a driver (not the wire) took last.
  [[nodiscard]] void* last_for_driver() const noexcept { return last_for_driver_; }
  void note_for_driver(void* frame) noexcept { last_for_driver_ = frame; }

 private:
  // Makes new frames until `wanted` are free; false if the pool is at its end.
  [[nodiscard]] bool carve(unsigned wanted) noexcept;
  [[nodiscard]] void* frame_at(uint32_t index) const noexcept;
  void* lay(uint32_t index) noexcept;

  rte_mempool* mempool_;
  char* memory_;
  uint64_t iova_distance_;
  void* last_for_driver_;
  uint32_t stride_;
  uint32_t limit_;
  uint32_t carved_;
  uint32_t top_;
  bool deaf_;
  void* free_[];
};

}  // namespace netstack
