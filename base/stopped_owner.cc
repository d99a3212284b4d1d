// The tracer that lets a stopped thread out of a lock.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/stopped_owner.h"

#include <csignal>
#include <initializer_list>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "base/permitted.h"
#include "base/syscall.h"

namespace base {
namespace {

constexpr uint64_t kTidMask = 0x3fff'ffff;
constexpr int kMostLooks = 500;
constexpr int kLooksForAStop = 50;  // a thread that is stopped says so to a new tracer at once
constexpr long kLookNs = 20'000;
constexpr size_t kStackBytes = 4096;

std::atomic<uint32_t> patience{1000};

struct Errand {
  long tid;
  std::atomic<uint64_t>* word;
  uint64_t mark;
  bool resumed, done;

  [[nodiscard]] bool inside() const noexcept { return (word->load(std::memory_order_acquire) & kTidMask) == static_cast<uint64_t>(tid); }
};

// What to do at a stop of the tracee, whose word does not change in that time but by others' marks.
void at_stop(Errand& errand, int status) noexcept {
  const bool by_signal = status >> 16 == 0;
  if (!errand.inside() && (!by_signal || WSTOPSIG(status) == SIGSTOP)) {
    errand.done = kernel_call(SYS_ptrace, PTRACE_DETACH, errand.tid, 0, 0) == 0;
    return;
  }
  if (errand.inside()) errand.word->fetch_or(errand.mark, std::memory_order_relaxed);
  errand.resumed = kernel_call(SYS_ptrace, PTRACE_CONT, errand.tid, 0, by_signal ? WSTOPSIG(status) : 0) == 0;
}

// In a process of its own on the memory of the one that waits; its end detaches.
int trace(void* argument) noexcept {
  Errand& errand = *static_cast<Errand*>(argument);
  if (kernel_call(SYS_ptrace, PTRACE_SEIZE, errand.tid, 0, 0) == 0) {
    for (int i = 0; i < (errand.resumed ? kMostLooks : kLooksForAStop) && !errand.done; i++) {
      int status = 0;
      if (kernel_call(SYS_wait4, errand.tid, as_arg(&status), WNOHANG | __WALL, 0) == errand.tid && WIFSTOPPED(status)) {
        at_stop(errand, status);
        continue;
      }
      timespec time{0, kLookNs};
      (void)kernel_call(SYS_nanosleep, as_arg(&time));
    }
  }
  (void)kernel_call(SYS_exit, 0);
  __builtin_unreachable();
}

}  // namespace

bool run_until_it_leaves(uint32_t tid, std::atomic<uint64_t>* word, uint64_t mark) noexcept {
  for (const long call : {SYS_clone, SYS_ptrace, SYS_wait4, SYS_rt_sigprocmask, SYS_nanosleep}) {
    if (!may_call(call)) return false;
  }
  alignas(16) char stack[kStackBytes];
  Errand errand{static_cast<long>(tid), word, mark, false, false};
  // A handler of the program's must not run in the tracer.
  const uint64_t all = ~uint64_t{0};
  uint64_t before = 0;
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&all), as_arg(&before), sizeof all);
  const int tracer = clone(trace, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS | CLONE_UNTRACED, &errand);
  if (tracer > 0) (void)kernel_call(SYS_wait4, tracer, 0, __WALL, 0);
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&before), 0, sizeof before);
  return errand.done;
}

void set_patience_ms(uint32_t ms) noexcept { patience.store(ms, std::memory_order_relaxed); }

uint32_t patience_ms() noexcept { return patience.load(std::memory_order_relaxed); }

}  // namespace base
