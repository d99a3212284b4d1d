// A fixed pool of equal objects in shared memory: type-stable, bounded, and able to find its own state again.
// SPDX-License-Identifier: BSD-3-Clause
//
// Cells are never given back to the system and never change their type, so a stale pointer into a pool always points at
// an object of that type (invariant 1). Cells that were never used are never touched and cost no RSS (2). An empty
// pool is a nullptr, never an abort (3). If a process dies in the middle of a list operation, rebuild() makes a whole
// free list from the `used` words alone (4). The family's lock is held around every call.
//
// Its first kEarly cells are there from the start, the others when more of the family's memory is (family_memory.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "base/check.h"

namespace shim {

// Maps the rest of every pool's cells, and of the slots, or an eighth of all where the address space is limited. How many eighths there
// are: 8, 1, or 0 if there is no more than from the start.
[[nodiscard]] uint32_t map_more_of_family() noexcept;

template <class T, uint32_t kCapacity, uint32_t kEarly>
class Pool {
 public:
  // A new, default-constructed object, or nullptr when all cells are in use.
  template <class... Arguments>
  [[nodiscard]] T* allocate(Arguments... arguments) noexcept {
    uint32_t index;
    if (free_ != 0) {
      index = free_ - 1;
      free_ = cells_[index].next_free;
    } else {
      if (top_ >= kEarly && top_ >= kCapacity / 8 * map_more_of_family()) return nullptr;
      index = top_++;
    }
    Cell& cell = cells_[index];
    T* object = new (cell.bytes) T(arguments...);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // a cell that is marked holds a whole object, whenever its maker dies
    cell.used = 1;
    in_use_++;
    return object;
  }

  void release(T* object) noexcept {
    Cell* cell = cell_of(object);
    CHECK(cell->used == 1);
    cell->used = 0;
    cell->next_free = free_;
    free_ = static_cast<uint32_t>(cell - cells_) + 1;
    in_use_--;
  }

  // True if `object` is one of this pool's cells in use: the question recovery asks of a pointer it does not trust.
  [[nodiscard]] bool owns(const T* object) noexcept {
    const char* address = reinterpret_cast<const char*>(object);
    const char* first = reinterpret_cast<const char*>(&cells_[0]);
    if (address < first || address >= reinterpret_cast<const char*>(&cells_[0] + top_)) return false;
    const size_t offset = static_cast<size_t>(address - first);
    return offset % sizeof(Cell) == offsetof(Cell, bytes) && cells_[offset / sizeof(Cell)].used == 1;
  }

  template <class F>
  void for_each(F visit) noexcept {
    for (uint32_t i = 0; i < top_; i++) {
      if (cells_[i].used == 1) visit(reinterpret_cast<T*>(cells_[i].bytes));
    }
  }

  [[nodiscard]] uint32_t index_of(const T* object) noexcept { return static_cast<uint32_t>(cell_of(object) - cells_); }
  [[nodiscard]] uint32_t in_use() const noexcept { return in_use_; }

  // Makes free list and count anew from the cells' own marks.
  void rebuild() noexcept {
    free_ = 0;
    in_use_ = 0;
    for (uint32_t i = top_; i-- > 0;) {
      if (cells_[i].used == 1) {
        in_use_++;
      } else {
        cells_[i].next_free = free_;
        free_ = i + 1;
      }
    }
  }

  // How far from its beginning it is used, and how far it is there from the start, and when there is an eighth of all.
  [[nodiscard]] size_t used_bytes() const noexcept { return offsetof(Pool, cells_) + size_t{top_} * sizeof(Cell); }
  [[nodiscard]] static constexpr size_t early_bytes() noexcept { return offsetof(Pool, cells_) + size_t{kEarly} * sizeof(Cell); }

  [[nodiscard]] static constexpr size_t eighth_bytes() noexcept { return offsetof(Pool, cells_) + size_t{kCapacity / 8} * sizeof(Cell); }

 private:
  static_assert(kCapacity % 8 == 0 && kEarly <= kCapacity / 8);
  struct Cell {
    uint32_t used;
    uint32_t next_free;
    alignas(16) char bytes[sizeof(T)];
  };

  [[nodiscard]] Cell* cell_of(const T* object) noexcept {
    return reinterpret_cast<Cell*>(const_cast<char*>(reinterpret_cast<const char*>(object)) - offsetof(Cell, bytes));
  }

  uint32_t top_;
  uint32_t free_;  // index + 1; 0: none
  uint32_t in_use_;
  Cell cells_[kCapacity];
};

}  // namespace shim
