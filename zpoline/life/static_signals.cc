// Exchanges thread pointers around the handlers of a static program; static_entry.S has the essay.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/static_signals.h"

#include "zpoline/life/own_stack.h"
#include "zpoline/life/thread_pointer.h"

namespace zpoline {
namespace {

// A static program's handler interrupts code with this thread pointer, which sigreturn knows nothing of. One for each on_signal_static().
class Interrupted {
 public:
  explicit Interrupted(uint64_t pointer) noexcept : pointer_(pointer), before_(interrupted_word()) {
    set_interrupted_word(reinterpret_cast<uint64_t>(this));
  }
  ~Interrupted() {
    set_interrupted_word(before_);
    set_thread_pointer(pointer_);
  }
  Interrupted(const Interrupted&) = delete;
  Interrupted& operator=(const Interrupted&) = delete;

 private:
  uint64_t pointer_, before_;
};

}  // namespace

// sigreturn does not know of fs. Who is sent back to the begin of its way here (own_stack.h) begins with the program's.
void on_signal_static(int number, siginfo_t* info, void* context) noexcept {
  uint64_t interrupted = thread_pointer();
  const uint64_t own = engine_pointer();
  if (interrupted != own) {
    set_program_pointer(interrupted);
    set_thread_pointer(own);
  } else if (number != SIGTRAP && is_in_own_entry(static_cast<ucontext_t*>(context))) {
    interrupted = program_pointer();
  }
  const Interrupted code(interrupted);
  on_signal(number, info, context);
}

void leave_interrupted() noexcept { reinterpret_cast<Interrupted*>(interrupted_word())->~Interrupted(); }

// With the thread pointer of the program that it is of.
void call_handler(Handler handler, int number, siginfo_t* info, void* context) noexcept {
  if (static_program) set_thread_pointer(program_pointer());
  handler(number, info, context);
  if (static_program) set_thread_pointer(engine_pointer());
}

}  // namespace zpoline
