// The program's signal handlers behind a wrapper of the engine's.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "zpoline/hook.h"

namespace zpoline {

// Learns the dispositions that exist and takes SIGSEGV, without which odd call numbers cannot be answered.
void take_over_signals() noexcept;

// Around an exec: what the next program inherits (ignored and blocked signals) is as this one believes it to be; after an exec
// that failed it is ours again.
void give_signals_back() noexcept;
void take_signals_again() noexcept;

// The program is about to install a seccomp filter.
void expect_seccomp() noexcept;

// rt_sigaction as the program sees it: its own handlers, flags and masks. 0 or a negative errno.
[[nodiscard]] int64_t program_sigaction(zps_call* call) noexcept;

// In a child that begins with the kernel's dispositions (CLONE_CLEAR_SIGHAND), all signals blocked: the engine's own are put back, and
// if the memory is the child's alone the program's handlers are forgotten.
void forget_handlers(bool own_memory) noexcept;

// In the child of a fork: the lock's holder may be a thread that this process does not have.
void reset_signal_lock() noexcept;

}  // namespace zpoline
