// Getting a stopped process out of a lock that others wait for.
// SPDX-License-Identifier: BSD-3-Clause
//
// SIGSTOP, a terminal's stop, a debugger and a frozen control group halt a thread at any instruction, and none can be held off. A lock is
// left within microseconds, so the stop is put off for so long:
//
//   1 A tracer lets the owner run while its process stays stopped for everybody else (PTRACE_SEIZE, PTRACE_CONT). A mark in the lock has
//     the owner wait as it leaves, for the tracer to stop it there and go (PTRACE_INTERRUPT, PTRACE_DETACH); the kernel then keeps it
//     stopped: it has done nothing for the program. A SIGCONT that came meanwhile ends the stop as ever. (It does not send itself SIGSTOP:
//     if that came after such a SIGCONT, it would be for good.) The tracer is a process of its own, made for this: what a tracer is told of
//     its tracees would otherwise turn up in the program's own wait().
//   2 Where that is not permitted (another user's, Yama, no capability), SIGCONT, and at the mark the owner stops itself again. It is
//     seen by the process's parent, and its handler runs; a SIGCONT from elsewhere within that moment has no effect.
//   3 A thread that a debugger holds, or a frozen control group, obeys neither. It is waited for; when the others' patience is at its end
//     it is killed.
//
// Known limits: without /proc nobody is seen to be stopped. Groups of version 1 do not let go of their frozen members even when they are
// killed, and their state is that of a thread at work in the kernel: they are waited for until they are thawed.
//
// Rejected: treating a stopped owner as dead and mending the state (it goes on some day, in the middle of what it did); killing it at once.
// Sources: ptrace(2), "Group-stop" and "PTRACE_SEIZE"; kernel/ptrace.c, __ptrace_unlink().
#pragma once

#include <atomic>
#include <cstdint>

namespace base {

// `owner` is a RobustLock's, inside as long as the low 29 bits of `word` are its thread's. Whoever leaves with `mark` waits until
// `held_back` does not name it.
struct LeavingOwner {
  uint64_t owner;
  std::atomic<uint64_t>* word;
  uint64_t mark;
  std::atomic<uint64_t>* held_back;
};

// Lets the stopped owner run until it has left; at most for some seconds. False: not permitted, not stopped, or it did not come so far.
[[nodiscard]] bool run_until_it_leaves(const LeavingOwner& of) noexcept;

// How long a process that cannot be helped is waited for before it is killed; 0: for ever.
void set_patience_ms(uint32_t ms) noexcept;
[[nodiscard]] uint32_t patience_ms() noexcept;

}  // namespace base
