// mlockall() of a process whose RLIMIT_MEMLOCK (8 MB by default) is too small for all that is mapped: what is ours stays unlocked.
// SPDX-License-Identifier: BSD-3-Clause
//
// Linux compares everything that is mapped with the limit, whether it may be touched or not (mm/mlock.c, mlockall(): total_vm), and
// refuses. A small program has 2 to 3 MB, and 9 more with us, without a stack: the hook and its tables 2.0, the core 3.3, its libc 1.9, the
// heap of that 1.0, the family's memory 0.9. None of it can be left unmapped, since what is mapped later must find its place free. So the
// kernel is asked to lock it all, which a process with CAP_IPC_LOCK may and gets; if that is too much, the same is done for the program's
// part alone: counted, and locked piece by piece.
//
// A stack does not fit into such a limit at all. When one is made, what is locked stays so, and what is mapped from then on is not
// (MCL_FUTURE).
//
// Known limits: after that the stack's memory is counted as the program's, as the heap of our libc always is; memory that another thread
// maps in the meantime may be locked or not.
#pragma once

namespace shim {

// As the system calls: 0 or a negative errno. Without the lock.
[[nodiscard]] long lock_all_memory(long flags) noexcept;
[[nodiscard]] long unlock_all_memory() noexcept;
// Whether it is, as far as lock_all_memory() goes.
[[nodiscard]] bool memory_is_locked() noexcept;
// In the child of a fork.
void forget_locked_memory() noexcept;
// Before much is mapped that is not the program's.
void leave_future_unlocked() noexcept;

}  // namespace shim
