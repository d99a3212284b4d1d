// Calls that a filter of the program's would answer with death, and that are therefore left undone.
// SPDX-License-Identifier: BSD-3-Clause
//
// A program that shuts itself in (seccomp) names the calls that it makes itself. Those that ours adds for convenience, such as a look at
// who holds a lock for long, may be a kill: better they are not made. Whoever watches the program install its filters (the engine) says
// which.
#pragma once

#include <cstdint>

namespace base {

// A bit per number, set for a deadly call; it may gain bits at any time. nullptr: there are none.
void set_deadly_calls(const volatile uint64_t* bits) noexcept;
[[nodiscard]] bool may_call(long nr) noexcept;

}  // namespace base
