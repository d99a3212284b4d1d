// A bounded allocator inside one block of memory that a fork family shares.
// SPDX-License-Identifier: BSD-3-Clause
//
// Everything that members of a family both use lies in a mapping made before the first fork, so an allocator
// that maps more memory later is of no use. This one hands out pieces of one fixed block: size classes (four
// per power of two), a free list per class, and a high-water mark for what was never used, so memory that
// nobody asked for is never touched and costs no RSS. Its whole state lies at the start of the block; the
// block's owner holds a lock around every call.
//
// It is for what must outlive the death of a member at any instruction of a call (a wire's objects): then at most the piece that was
// being handed out or given back is lost. The price is that a freed piece serves its own class only; what takes turns in the same memory,
// and may be forgotten as a whole, lies in a Heap.
//
// Invariants: 1 results are 16-byte aligned; 2 an exhausted arena returns nullptr, never aborts;
// 3 a freed piece goes back to its class only, so a class never shrinks (bounded by the peak per class).
#pragma once

#include <cstddef>
#include <cstdint>

namespace base {

class Arena {
 public:
  // Lays an arena into [memory, memory + bytes); `memory` is 64-byte aligned, zero-filled and outlives it.
  static Arena* create(void* memory, size_t bytes) noexcept;
  // Maps `bytes` of shared, lazily backed memory (shared_memory.h) and lays an arena into it;
  // nullptr if the kernel refuses.
  static Arena* map_shared(size_t bytes) noexcept;
  // Unmaps what map_shared() returned.
  static void unmap_shared(Arena* arena) noexcept;

  // `bytes` bytes, not cleared; nullptr if the arena is full or bytes is over 2^31.
  [[nodiscard]] void* allocate(size_t bytes) noexcept;
  // Gives back what allocate() returned; nullptr is allowed.
  void release(void* piece) noexcept;
  // The usable size of a piece: at least what was asked for.
  [[nodiscard]] static size_t size_of(const void* piece) noexcept;

  // Whether these `bytes` lie in the block, handed out or not.
  [[nodiscard]] bool contains(const void* piece, size_t bytes) const noexcept {
    const size_t at = reinterpret_cast<uintptr_t>(piece) - reinterpret_cast<uintptr_t>(this);
    return at < capacity_ && bytes <= capacity_ - at;
  }

  // Bytes handed out and not given back, rounded up to classes, headers included.
  [[nodiscard]] size_t used() const noexcept { return used_; }
  [[nodiscard]] size_t capacity() const noexcept { return capacity_; }
  // Bytes that were ever handed out: the most the arena can have added to the RSS.
  [[nodiscard]] size_t touched() const noexcept { return top_; }

  // Forgets every piece at once.
  void reset() noexcept;

  static constexpr int kClasses = 128;

 private:
  struct Header {
    uint32_t size_class;
    uint32_t magic;
    Header* next_free;
  };
  static_assert(sizeof(Header) == 16);

  Arena(size_t capacity) noexcept : capacity_(capacity) { reset(); }

  [[nodiscard]] static int class_of(size_t bytes) noexcept;
  [[nodiscard]] static size_t class_bytes(int size_class) noexcept;
  [[nodiscard]] char* base() noexcept { return reinterpret_cast<char*>(this); }

  size_t capacity_;
  size_t top_ = 0;
  size_t used_ = 0;
  Header* free_[kClasses];
};

}  // namespace base
