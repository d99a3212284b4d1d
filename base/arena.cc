// Size classes and free lists of the shared arena.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/arena.h"

#include <new>

#include "base/check.h"

namespace base {
namespace {

constexpr uint32_t kLive = 0x5a50'4c56;
constexpr uint32_t kFree = 0x5a50'4652;
constexpr size_t kSmallest = 32;
constexpr size_t kUnit = 16;
constexpr size_t kTabled = 4096;  // up to here the class is looked up

// Classes 0..3 are 32, 40, 48, 56; four steps per doubling from there on, each a multiple of 8 rounded up to kUnit.
constexpr size_t bytes_by_rule(int size_class) {
  const size_t octave = kSmallest << (size_class / 4);
  return (octave + octave / 4 * static_cast<size_t>(size_class % 4) + kUnit - 1) & ~(kUnit - 1);
}

// The quarter of its octave that holds the last byte, plus one: no search.
constexpr int class_by_rule(size_t bytes) {
  if (bytes <= kSmallest) return 0;
  const size_t last = bytes - 1;
  const int octave = 63 - __builtin_clzll(last) - 5;
  return octave * 4 + static_cast<int>((last - (kSmallest << octave)) >> (octave + 3)) + 1;
}

template <int kClasses>
struct Tables {
  uint64_t bytes[kClasses] = {};
  uint8_t classes[kTabled / kUnit + 1] = {};  // by units
  constexpr Tables() {
    for (int i = 0; i < kClasses; i++) bytes[i] = bytes_by_rule(i);
    for (size_t units = 0; units <= kTabled / kUnit; units++) classes[units] = static_cast<uint8_t>(class_by_rule(units * kUnit));
  }
};

}  // namespace

constexpr Tables<Arena::kClasses> kTables;

size_t Arena::class_bytes(int size_class) noexcept { return kTables.bytes[size_class]; }

int Arena::class_of(size_t bytes) noexcept {
  return bytes <= kTabled ? kTables.classes[(bytes + kUnit - 1) / kUnit] : class_by_rule(bytes);
}

Arena* Arena::create(void* memory, size_t bytes) noexcept { return new (memory) Arena(bytes); }

void Arena::reset() noexcept {
  top_ = (sizeof(Arena) + 63) & ~size_t{63};
  used_ = 0;
  for (Header*& list : free_) list = nullptr;
}

void* Arena::allocate(size_t bytes) noexcept {
  if (bytes > size_t{1} << 31) return nullptr;
  const int size_class = class_of(bytes + sizeof(Header));
  const size_t size = class_bytes(size_class);
  Header* header = free_[size_class];
  if (header != nullptr) {
    CHECK(header->magic == kFree);
    free_[size_class] = header->next_free;
  } else {
    if (capacity_ - top_ < size) return nullptr;
    header = reinterpret_cast<Header*>(base() + top_);
    header->size_class = static_cast<uint32_t>(size_class);
    top_ += size;
  }
  header->magic = kLive;
  used_ += size;
  return header + 1;
}

void Arena::release(void* piece) noexcept {
  if (piece == nullptr) return;
  Header* header = static_cast<Header*>(piece) - 1;
  CHECK(header->magic == kLive);
  header->magic = kFree;
  header->next_free = free_[header->size_class];
  free_[header->size_class] = header;
  used_ -= class_bytes(static_cast<int>(header->size_class));
}

size_t Arena::size_of(const void* piece) noexcept {
  const Header* header = static_cast<const Header*>(piece) - 1;
  return class_bytes(static_cast<int>(header->size_class)) - sizeof(Header);
}

}  // namespace base
