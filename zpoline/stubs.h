// The per-site stubs of near jumps: where they lie, what they hold, and how a signal that meets one is told of the site instead.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zpoline {

// mov $imm32,%eax and the two bytes of the system call behind it.
inline constexpr size_t kLoadBytes = 5;
inline constexpr size_t kJumpSiteBytes = kLoadBytes + 2;

struct StubArea;

// Memory for `count` stubs from which every address in [low, high) is within reach of a near jump: writable, not yet executable.
// Null if there is no room.
StubArea* reserve_stubs(uint64_t low, uint64_t high, size_t count) noexcept;

// The next stub of `area`: for the site whose mov is at `load`, with call number `number`, going to `entry` (one of
// the _near entries of entry.S). Its address, or 0 if it does not fit.
uint64_t add_stub(StubArea* area, uint64_t load, int32_t number, const void* entry) noexcept;

// Makes the area executable and read-only; 0 or what mprotect said (the area is gone then).
long seal_stubs(StubArea* area) noexcept;

// The site of `stub` is gone (or never came to be): its area goes with its last stub.
void drop_stub(uint64_t stub) noexcept;

// If *rip is in a stub, puts *rip and *rsp where they would be at the site: before the mov, or behind the system call. All that
// a stub changes before its call are rax, rcx and r11, which do not live across the site.
bool step_out_of_stub(uint64_t* rip, uint64_t* rsp) noexcept;

}  // namespace zpoline
