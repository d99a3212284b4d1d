// Calls that reach the hook by a signal: Syscall User Dispatch, and instructions that fault where a system call was.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <csignal>
#include <cstdint>

#include <ucontext.h>

#include "base/result.h"

namespace zpoline {

// At start, before the rest.
void prepare_dispatch() noexcept;
// From here on every system call outside the engine's own text traps (this thread, and each that arm_thread() is called in).
// The error says that the kernel cannot do it.
base::Result<bool> dispatch_everything() noexcept;
// From here on system calls of code in [begin, end) trap as well, in every thread of the program, whatever lies there later. Other threads
// are armed by a signal; when this returns none of them executes another instruction without it. False if it cannot be, or may not any
// more.
bool dispatch_also(uint64_t begin, uint64_t end) noexcept;
// True if calls from all of [begin, end) trap, in every thread.
[[nodiscard]] bool is_dispatched(uint64_t begin, uint64_t end) noexcept;
// True if libc's calls do not trap, and would if those of [begin, end) did.
[[nodiscard]] bool cuts_off_libc(uint64_t begin, uint64_t end) noexcept;
// True once the kernel was asked to dispatch anything in this process.
[[nodiscard]] bool is_dispatching() noexcept;
// No thread is armed any more that is not, except in mode sud: the program may forbid prctl() from here on.
void stop_dispatching_others() noexcept;
// In a new thread or process, before it runs code of the program: the kernel clears dispatch there.
void arm_thread() noexcept;
// In the child of a fork: the lock's holder may be a thread that this process does not have.
void reset_arming_lock() noexcept;

// True if a signal is the kernel's dispatch: the context then goes on in the engine's entry.
[[nodiscard]] bool answer_dispatch(int number, const siginfo_t* info, ucontext_t* context) noexcept;
// True if a signal is the engine's word to this thread to arm itself, which it has done then.
[[nodiscard]] bool answer_word(int number, const siginfo_t* info) noexcept;
// Sends the context, whose registers are those of a system call that would return to `return_address`, to the engine's entry.
void enter_trapped(ucontext_t* context, uint64_t return_address) noexcept;

}  // namespace zpoline
