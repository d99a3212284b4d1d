// Maps an ELF object from its file without ld.so: its segments, and what stays writable of them.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <elf.h>

namespace base {

inline constexpr int kMostSegments = 16;

struct Span {
  uintptr_t from, to;
};

// An object as it lies in memory.
struct ElfObject {
  Elf64_Ehdr header;
  Elf64_Phdr segments[kMostSegments];
  uintptr_t base = 0;

  [[nodiscard]] const Elf64_Phdr* find(uint32_t type) const noexcept;
  [[nodiscard]] uintptr_t bytes() const noexcept;  // from the base on, whole pages
};

// Its headers. False if it is no shared object of this machine.
[[nodiscard]] bool read_elf(int fd, ElfObject& object) noexcept;
// Maps it at `wanted`, or, if that is 0, at a place where it can be again in another program. 0 or a negative errno.
[[nodiscard]] long map_elf(int fd, ElfObject& object, uintptr_t wanted) noexcept;
// When it is relocated: the page-aligned part of its writable segment that stays writable; empty if there is none.
Span protect_relocated(const ElfObject& object) noexcept;

}  // namespace base
