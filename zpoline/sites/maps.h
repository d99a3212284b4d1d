// Where loaded objects lie, as their program headers say it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <link.h>

#include <cstdint>

namespace zpoline {

// Addresses [begin, end); empty: begin == end.
struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
  [[nodiscard]] bool holds(uint64_t address) const noexcept { return address >= begin && address < end; }
};

// True if `address` lies in a loaded segment of the object.
[[nodiscard]] bool holds(const dl_phdr_info& object, uint64_t address) noexcept;
// As mmap() and mprotect() take it.
[[nodiscard]] int protection_of(const ElfW(Phdr) & segment) noexcept;
// The object's first executable segment, as far as it comes from its file.
[[nodiscard]] Range text_of(const dl_phdr_info& object) noexcept;

// ld.so calls the kernel for what it loads itself; what it maps is known, what others map is not. The object is noted while all are
// visited.
[[nodiscard]] bool is_loader(const dl_phdr_info& object) noexcept;
void note_loader(const dl_phdr_info& object) noexcept;
[[nodiscard]] bool is_in_loader(uint64_t address) noexcept;

// Code that runs on small stacks: hooks for its calls need another one. For good.
void note_small_stacks(Range text) noexcept;
[[nodiscard]] bool has_small_stack(uint64_t address) noexcept;

}  // namespace zpoline
