// Finding, cutting and joining the pieces of a heap.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/heap.h"

#include <cstring>
#include <new>

namespace base {
namespace {

constexpr uint32_t kLinearUnits = 16;  // below this each list has one length

struct List {
  uint32_t level, step;
};

constexpr uint32_t log2_of(uint32_t value) { return 31 - static_cast<uint32_t>(__builtin_clz(value)); }

// Where a free block of this length is filed.
constexpr List list_of(uint32_t units) {
  if (units < kLinearUnits) return {0, units};
  const uint32_t log = log2_of(units);
  return {log - 3, units >> (log - 4) & 15};
}

// The shortest list of which each block is at least so long.
constexpr List list_that_fits(uint32_t units) {
  return list_of(units < kLinearUnits ? units : units + (1U << (log2_of(units) - 4)) - 1);
}

constexpr int kLooks = 8;  // into the list that may have a block long enough, when no other has

}  // namespace

Heap::Heap(size_t capacity) noexcept : capacity_(capacity) { reset(); }

Heap* Heap::create(void* memory, size_t bytes) noexcept {
  CHECK(bytes >= 2 * sizeof(Heap) && bytes < size_t{64} << 30);
  return new (memory) Heap(bytes);
}

// One free block, and behind it the header of one that is never given back.
void Heap::reset() noexcept {
  constexpr size_t kHeadBytes = (sizeof(Heap) + 63) & ~size_t{63};
  used_ = 0;
  aside_count_ = levels_ = 0;
  memset(lists_, 0, sizeof lists_);
  memset(aside_, 0, sizeof aside_);
  memset(free_, 0, sizeof free_);
  auto* const first = reinterpret_cast<Block*>(reinterpret_cast<char*>(this) + kHeadBytes);
  first->units = static_cast<uint32_t>((capacity_ - kHeadBytes - kHeaderBytes) / kUnit);
  first->before = 0;
  Block* const end = after(first);
  end->units = 0;
  end->before = first->units;
  end->state = kLive;
  untouched_ = reinterpret_cast<char*>(first);
  untouched_end_ = reinterpret_cast<char*>(end);
  file(first);
}

void Heap::file(Block* block) noexcept {
  const List list = list_of(block->units);
  Block*& head = free_[list.level][list.step];
  block->state = kFree;
  block->next = head;
  block->previous = nullptr;
  if (head != nullptr) head->previous = block;
  head = block;
  lists_[list.level] = static_cast<uint16_t>(lists_[list.level] | 1U << list.step);
  levels_ |= 1U << list.level;
}

void Heap::unfile(Block* block) noexcept {
  CHECK(block->state == kFree);
  if (block->next != nullptr) block->next->previous = block->previous;
  if (block->previous != nullptr) {
    block->previous->next = block->next;
    return;
  }
  const List list = list_of(block->units);
  free_[list.level][list.step] = block->next;
  if (block->next != nullptr) return;
  lists_[list.level] = static_cast<uint16_t>(lists_[list.level] & ~(1U << list.step));
  if (lists_[list.level] == 0) levels_ &= ~(1U << list.level);
}

// A free block of at least so many units, from the shortest list that surely has one; nullptr if there is none.
Heap::Block* Heap::find(uint32_t units) noexcept {
  const List fits = list_that_fits(units);
  if (const uint32_t steps = lists_[fits.level] & ~0U << fits.step; steps != 0) return free_[fits.level][__builtin_ctz(steps)];
  if (const uint32_t levels = levels_ & ~1U << fits.level; levels != 0) {
    const int level = __builtin_ctz(levels);
    return free_[level][__builtin_ctz(lists_[level])];
  }
  const List own = list_of(units);
  Block* block = free_[own.level][own.step];
  for (int looks = 0; block != nullptr && block->units < units; block = block->next) {
    if (++looks == kLooks) return nullptr;
  }
  return block;
}

// Takes `units` from one end of a free block and files the rest.
Heap::Block* Heap::cut(Block* block, uint32_t units) noexcept {
  unfile(block);
  const uint32_t rest = block->units - units;
  if (rest < kLeastUnits) return block;
  Block* const lower = block;
  lower->units = units >= kLargeUnits ? rest : units;
  Block* const upper = after(lower);
  upper->units = units >= kLargeUnits ? units : rest;
  upper->before = lower->units;
  after(upper)->before = upper->units;
  file(units >= kLargeUnits ? lower : upper);
  return units >= kLargeUnits ? upper : lower;
}

void* Heap::allocate_slow(size_t units) noexcept {
  if (units > kMostUnits) return nullptr;
  Block* block = find(static_cast<uint32_t>(units));
  if (block == nullptr && aside_count_ > 0) {
    join_aside();
    block = find(static_cast<uint32_t>(units));
  }
  if (block == nullptr) return nullptr;
  block = cut(block, static_cast<uint32_t>(units));
  note_touched(block);
  return hand_out(block);
}

// What was never touched lies within one free block: pieces are cut from its ends.
void Heap::note_touched(Block* block) noexcept {
  char* const begin = reinterpret_cast<char*>(block);
  char* const end = reinterpret_cast<char*>(after(block));
  if (begin >= untouched_end_ || end <= untouched_) return;
  if (begin <= untouched_) {
    untouched_ = end < untouched_end_ ? end : untouched_end_;
  } else {
    untouched_end_ = begin;
  }
}

// Joins a block that is in no list with its free neighbours.
void Heap::give_back(Block* block) noexcept {
  Block* const above = after(block);
  if (above->state == kFree) {
    unfile(above);
    block->units += above->units;
  }
  if (block->before != 0 && below(block)->state == kFree) {
    Block* const lower = below(block);
    unfile(lower);
    lower->units += block->units;
    block->state = kAside;  // a second release() is noticed still
    block = lower;
  }
  after(block)->before = block->units;
  file(block);
}

void Heap::join_aside() noexcept {
  for (Block*& list : aside_) {
    while (list != nullptr) {
      Block* const block = list;
      list = block->next;
      give_back(block);
    }
  }
  aside_count_ = 0;
}

}  // namespace base
