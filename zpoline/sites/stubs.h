// The per-site stubs of near jumps: where they lie, what they hold, and how a signal that meets one is told of the site instead.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "zpoline/sites/scanner.h"

namespace zpoline {

struct StubArea;

// Memory for `count` stubs from which every address in [low, high) is within reach of a near jump: writable, not yet executable.
// Null if there is no room.
StubArea* reserve_stubs(uint64_t low, uint64_t high, size_t count) noexcept;

// The next stub of `area`, for a site that may have a jump; it goes to `entry` (one of the _near entries of entry.S), if it is the site
// of a static program by the way that those take. Its address, or 0 if it does not fit.
uint64_t add_stub(StubArea* area, const Site& site, const void* entry, bool of_static) noexcept;

// Makes the area executable and read-only; 0 or what mprotect said (the area is gone then).
long seal_stubs(StubArea* area) noexcept;

// The site of `stub` is gone (or never came to be): its area goes with its last stub.
void drop_stub(uint64_t stub) noexcept;

// What a stub may meet: the registers of an interrupted thread.
struct StubRegisters {
  uint64_t rip;
  uint64_t rsp;
  uint64_t rax;
  uint64_t flags;
};
// If rip is in a stub, puts the registers as they would be at the site: before the mov, or behind the system call (and the compare, if that
// has moved into the stub). All that a stub changes before its call are rax, rcx and r11, which do not live across the site.
bool step_out_of_stub(StubRegisters& registers) noexcept;

}  // namespace zpoline
