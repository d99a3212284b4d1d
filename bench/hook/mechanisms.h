// The ways Linux itself offers to see a program's system calls, set up in this process for measuring.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace bench {

// Each sets its mechanism up in the calling process; false if the machine refuses. They cannot be undone: call in a forked child.
bool arm_user_dispatch();    // Syscall User Dispatch, selector "allow": what merely being armed costs
bool trap_user_dispatch();   // Syscall User Dispatch, every call a SIGSYS that its handler answers
bool trap_breakpoint();      // int3 with a SIGTRAP handler
bool trace_by_parent();      // ptrace: the parent lets each call go on
void breakpoint_call();      // one int3

}  // namespace bench
