// Code that no proof covers: memory that the program makes executable itself.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "zpoline/hook.h"

namespace zpoline {

// ZPS_JIT=kernel: system calls of such code go to the kernel, and nothing is armed for it. Before the program runs.
void leave_made_code_to_kernel() noexcept;

// The program has mapped memory of its own at `result`, where it did not say. Where the memory is afterwards: if it lay so that libc's
// calls would trap with its own, somewhere else.
[[nodiscard]] int64_t beside_libraries(const zps_call& call, int64_t result) noexcept;

// After the kernel has done the program's mmap, mprotect or pkey_mprotect, mremap: `result` is its answer, no error.
void after_mmap(const zps_call& call, int64_t result) noexcept;
void after_mprotect(const zps_call& call) noexcept;
void after_mremap(const zps_call& call, int64_t result) noexcept;
// An object of the program whose text may not be written. True if its system calls trap from now on, false if they go to the kernel.
bool after_failed_rewrite(uint64_t begin, uint64_t end) noexcept;
// The program is about to shut itself in with seccomp, or to use Syscall User Dispatch itself: nothing is armed from here on.
void stop_arming() noexcept;

}  // namespace zpoline
