// The stacks on which hooks run for calls from small stacks (own_stack.S).
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ucontext.h>

#include <cstdint>

#include "zpoline/engine.h"

namespace zpoline {

// Sends a system call that trapped, and would return to `return_address`, to the entry on this thread's own stack.
void enter_own_stack(ucontext_t* context, uint64_t return_address) noexcept;
// The fault of a thread that came to the entry without such a stack: it has one now and tries again. False: another fault.
[[nodiscard]] bool answer_missing_stack(ucontext_t* context) noexcept;

// A thread ends: gives its stack back, unless it runs on it still (a hook that claims exit).
void free_own_stack(ThreadState& thread) noexcept;

// While one of the program's handlers runs: the context shows the program behind its system call if it interrupts a hook on the thread's
// own stack, and what the handler calls begins below.
class ProgramContext {
 public:
  // A fault of the hook itself is shown as it is.
  ProgramContext(ThreadState& thread, ucontext_t* context, bool own_fault) noexcept;
  // The hook goes on where it was, unless the handler sent the program somewhere else.
  ~ProgramContext();
  ProgramContext(const ProgramContext&) = delete;
  ProgramContext& operator=(const ProgramContext&) = delete;

 private:
  struct Place {
    greg_t rip, rsp, rbp;
    bool operator==(const Place&) const = default;
  };
  [[nodiscard]] Place place() const noexcept;
  void set(const Place& place) noexcept;

  ThreadState& thread_;
  greg_t* registers_;
  uint64_t begin_ = 0;  // of the interrupted call; 0: there is none
  Place hook_{};
  Place program_{};
};

[[nodiscard]] bool is_in_own_entry(const ucontext_t* context) noexcept;
// A signal on the first steps of the entry, before the exchange: the context is at the begin of the stub again.
void leave_own_entry(ucontext_t* context) noexcept;

}  // namespace zpoline
