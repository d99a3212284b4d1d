// A bounded heap inside one block of memory that a fork family shares, whose free memory always flows together again.
// SPDX-License-Identifier: BSD-3-Clause
//
// A stack's connections, segments and buffers take turns in the same bounded memory: what a burst of bulk has left must serve as
// connections, and the other way round. So free neighbours are joined at once (boundary tags: each piece knows its length and
// the length of the one before it), and free pieces are found by two levels of bitmaps over lists of similar lengths (TLSF, Masmano et al.
// 2004: good fit in constant time). Small pieces come and go with each segment; a bounded number of them is set aside by exact length,
// neither joined nor searched for, and is joined when the bound or the memory is reached, so that each pays for it once at most.
//
// Large pieces are cut from the upper end of what is free and small ones from the lower, so that what lives long does not lie
// scattered among bulk, and what neither end has reached is never touched and costs no RSS.
//
// Invariants: 1 results are 16-byte aligned; 2 an exhausted heap returns nullptr, never aborts; 3 no two free neighbours, but for what is
// set aside; 4 the owner holds a lock around every call. One that dies inside a call leaves the heap torn: the next owner calls
// reset(). (What cannot be reset lies in an Arena, which survives that.)
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"

namespace base {

class Heap {
 public:
  // Lays a heap into [memory, memory + bytes); `memory` is 64-byte aligned and outlives it, `bytes` at most 64 GB.
  static Heap* create(void* memory, size_t bytes) noexcept;
  // Maps `bytes` of shared, lazily backed memory (shared_memory.h) and lays a heap into it;
  // nullptr if the kernel refuses.
  static Heap* map_shared(size_t bytes) noexcept;
  // Unmaps what map_shared() returned.
  static void unmap_shared(Heap* heap) noexcept;

  // `bytes` bytes, not cleared; nullptr if there are none in one piece, or if they are more than 2 GB.
  [[nodiscard]] void* allocate(size_t bytes) noexcept {
    const size_t units = units_of(bytes);
    if (units > kSmallUnits || aside_[units] == nullptr) [[unlikely]] return allocate_slow(units);
    Block* const block = aside_[units];
    CHECK(block->state == kAside);
    aside_[units] = block->next;
    aside_count_--;
    return hand_out(block);
  }

  // Gives back what allocate() returned; nullptr is allowed.
  void release(void* piece) noexcept {
    if (piece == nullptr) return;
    Block* const block = block_of(piece);
    CHECK(block->state == kLive);
    used_ -= size_t{block->units} * kUnit;
    if (block->units > kSmallUnits) return give_back(block);
    if (aside_count_ == kMostAside) [[unlikely]] join_aside();
    block->state = kAside;
    block->next = aside_[block->units];
    aside_[block->units] = block;
    aside_count_++;
  }

  // The usable size of a piece: at least what was asked for.
  [[nodiscard]] static size_t size_of(const void* piece) noexcept {
    return size_t{block_of(const_cast<void*>(piece))->units} * kUnit - kHeaderBytes;
  }

  // Whether these `bytes` lie in the block, handed out or not.
  [[nodiscard]] bool contains(const void* piece, size_t bytes) const noexcept {
    const size_t at = reinterpret_cast<uintptr_t>(piece) - reinterpret_cast<uintptr_t>(this);
    return at < capacity_ && bytes <= capacity_ - at;
  }

  // Bytes handed out and not given back, headers included.
  [[nodiscard]] size_t used() const noexcept { return used_; }
  [[nodiscard]] size_t capacity() const noexcept { return capacity_; }
  // Bytes that were ever handed out: the most the heap can have added to the RSS.
  [[nodiscard]] size_t touched() const noexcept { return capacity_ - static_cast<size_t>(untouched_end_ - untouched_); }

  // Forgets every piece at once: for a state that is being rebuilt after its owner died.
  void reset() noexcept;

 private:
  // In front of each piece; the links are the piece's own memory while it is free or set aside.
  struct Block {
    uint32_t units;   // of kUnit bytes, this header included
    uint32_t before;  // units of the neighbour below; 0 for the first
    uint32_t state;
    uint32_t unused;
    Block* next;
    Block* previous;
  };

  static constexpr size_t kUnit = 16;
  static constexpr size_t kHeaderBytes = 16;
  static constexpr uint32_t kLeastUnits = sizeof(Block) / kUnit;
  static constexpr uint32_t kSmallUnits = 129;   // up to 2 KB: set aside
  static constexpr uint32_t kLargeUnits = 256;   // from 4 KB on: from the upper end
  static constexpr size_t kMostUnits = size_t{1} << 27;
  static constexpr uint32_t kMostAside = 512;    // a megabyte, ten microseconds to join
  static constexpr uint32_t kLive = 0x5a50'4c56;
  static constexpr uint32_t kFree = 0x5a50'4652;
  static constexpr uint32_t kAside = 0x5a50'4153;
  static constexpr uint32_t kSteps = 16;  // lists per doubling
  static constexpr uint32_t kLevels = 29;

  explicit Heap(size_t capacity) noexcept;

  [[nodiscard]] static constexpr size_t units_of(size_t bytes) noexcept {
    return bytes <= kLeastUnits * kUnit - kHeaderBytes ? kLeastUnits : (bytes + kHeaderBytes + kUnit - 1) / kUnit;
  }
  [[nodiscard]] static Block* block_of(void* piece) noexcept { return reinterpret_cast<Block*>(static_cast<char*>(piece) - kHeaderBytes); }
  [[nodiscard]] static Block* after(Block* block) noexcept {
    return reinterpret_cast<Block*>(reinterpret_cast<char*>(block) + size_t{block->units} * kUnit);
  }
  [[nodiscard]] static Block* below(Block* block) noexcept {
    return reinterpret_cast<Block*>(reinterpret_cast<char*>(block) - size_t{block->before} * kUnit);
  }

  [[nodiscard]] void* hand_out(Block* block) noexcept {
    block->state = kLive;
    used_ += size_t{block->units} * kUnit;
    return reinterpret_cast<char*>(block) + kHeaderBytes;
  }
  [[nodiscard]] void* allocate_slow(size_t units) noexcept;
  [[nodiscard]] Block* find(uint32_t units) noexcept;
  [[nodiscard]] Block* cut(Block* block, uint32_t units) noexcept;
  void give_back(Block* block) noexcept;
  void join_aside() noexcept;
  void file(Block* block) noexcept;
  void unfile(Block* block) noexcept;
  void note_touched(Block* block) noexcept;

  size_t capacity_;
  size_t used_;
  char* untouched_;  // what lies from here to there was never handed out
  char* untouched_end_;
  uint32_t aside_count_;
  uint32_t levels_;          // bit i: lists_[i] has a bit
  uint16_t lists_[kLevels];  // bit j: free_[i][j] is not empty
  Block* aside_[kSmallUnits + 1];
  Block* free_[kLevels][kSteps];
};

}  // namespace base
