// Which parts of the address space a program has only because it is prefixed.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>

namespace shim {

struct Range {
  uintptr_t begin, end;  // of whole pages
};

// Once, at the start: looks at what ld.so has loaded for us.
void note_own_memory() noexcept;
// In a copy of this library, which ld.so does not know: as the one before it, and the copy itself.
void adopt_own_memory(std::span<const Range> of_other, Range copy) noexcept;
// The libraries (the hook, this one and its libc, with their variables) and the family's memory. What the hook has put between the
// program's libraries is not among it, nor libc's heap, nor what a stack takes.
[[nodiscard]] std::span<const Range> own_memory() noexcept;

}  // namespace shim
