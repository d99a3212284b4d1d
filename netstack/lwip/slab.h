// A fixed array of objects of one type in shared memory, handed out and taken back in O(1).
// SPDX-License-Identifier: BSD-3-Clause
//
// Slots are type-stable: a slot only ever holds a T, so a stale pointer in another process still points to
// a T of a later generation, never to something else. Slots that were never used are never touched.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "base/check.h"

namespace netstack {

template <class T, int kCapacity>
class Slab {
 public:
  // A new T, or nullptr when all slots are taken.
  template <class... Args>
  T* make(Args&&... args) noexcept {
    int index = free_head_ - 1;
    if (index >= 0) {
      free_head_ = slots_[index].next_free;
    } else {
      if (touched_ == kCapacity) return nullptr;
      index = touched_++;
    }
    Slot& slot = slots_[index];
    slot.generation++;
    T* object = new (slot.storage) T(std::forward<Args>(args)...);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // a slot that is marked holds a whole object, whenever its maker dies
    slot.used = true;
    used_++;
    return object;
  }

  void free(T* object) noexcept {
    Slot* slot = slot_of(object);
    CHECK(slot->used);
    slot->used = false;
    slot->next_free = free_head_;
    free_head_ = static_cast<int>(slot - slots_) + 1;
    used_--;
  }

  [[nodiscard]] int used() const noexcept { return used_; }
  [[nodiscard]] bool full() const noexcept { return used_ == kCapacity; }
  [[nodiscard]] uint32_t generation(const T* object) const noexcept {
    return const_cast<Slab*>(this)->slot_of(const_cast<T*>(object))->generation;
  }

  // Whether `object`, any pointer, is one of the objects in use.
  [[nodiscard]] bool owns(const T* object) const noexcept {
    const auto offset = reinterpret_cast<uintptr_t>(object) - reinterpret_cast<uintptr_t>(&slots_[0]);
    return offset < static_cast<size_t>(touched_) * sizeof(Slot) && offset % sizeof(Slot) == 0 && slots_[offset / sizeof(Slot)].used;
  }

  // Calls visit(T&) for each object in use.
  template <class F>
  void for_each(F visit) noexcept {
    for (int i = 0; i < touched_; i++) {
      if (slots_[i].used) visit(*std::launder(reinterpret_cast<T*>(slots_[i].storage)));
    }
  }

  // After the owner of the lock died anywhere: rebuilds the free list and the count from the slots' own marks.
  void rebuild() noexcept {
    if (touched_ > kCapacity) touched_ = kCapacity;
    free_head_ = 0;
    used_ = 0;
    for (int i = touched_ - 1; i >= 0; i--) {
      if (slots_[i].used) {
        used_++;
      } else {
        slots_[i].next_free = free_head_;
        free_head_ = i + 1;
      }
    }
  }

 private:
  struct Slot {
    alignas(64) unsigned char storage[sizeof(T)];
    uint32_t generation;
    int next_free;  // index + 1; 0 ends the list
    bool used;
  };

  Slot* slot_of(T* object) noexcept {
    Slot* slot = reinterpret_cast<Slot*>(object);
    CHECK(slot >= slots_ && slot < slots_ + touched_);
    return slot;
  }

  // All zero bytes is a valid empty slab: the array is never run over at the start.
  int free_head_;
  int touched_;
  int used_;
  Slot slots_[kCapacity];
};

}  // namespace netstack
