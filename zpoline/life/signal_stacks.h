// The alternate signal stacks of the program's threads, as the program sees them and as the kernel has them.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "zpoline/engine.h"

namespace zpoline {

// sigaltstack as the program sees it. 0 or a negative errno.
[[nodiscard]] int64_t program_sigaltstack(zps_call* call) noexcept;

// A thread ends: what it had may be another's. No handler of the program runs in it any more.
void give_back_signal_stack(ThreadState& thread) noexcept;

// In the child of a fork, which has the one thread: the others' stacks are nobody's, and the lock's holder may be one of them.
void forget_other_signal_stacks(ThreadState& thread) noexcept;

}  // namespace zpoline
