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

constexpr uint64_t kTidMask = 0x1fff'ffff;
constexpr int kMostLooks = 100'000;  // two seconds: whoever is let on may have to wait for a processor
constexpr int kLooksForAStop = 50;  // a thread that is stopped says so to a new tracer at once
constexpr long kLookNs = 20'000;
constexpr size_t kStackBytes = 4096;

std::atomic<uint32_t> patience{1000};

struct Errand {
  long tid;
  LeavingOwner of;
  bool resumed, asked, done;

  [[nodiscard]] bool inside() const noexcept { return (of.word->load(std::memory_order_acquire) & kTidMask) == static_cast<uint64_t>(tid); }
  void unmark() const noexcept {
    uint64_t seen = of.word->load(std::memory_order_relaxed);
    while (inside() && !of.word->compare_exchange_weak(seen, seen & ~of.mark, std::memory_order_relaxed)) {
    }
  }
};

// What to do at a stop of the tracee, whose word does not change in that time but by others' marks.
void at_stop(Errand& errand, int status) noexcept {
  const bool by_signal = status >> 16 == 0;
  if (!by_signal && !errand.inside()) {
    errand.of.held_back->store(0, std::memory_order_release);
    errand.done = kernel_call(SYS_ptrace, PTRACE_DETACH, errand.tid, 0, 0) == 0;
    return;
  }
  if (!by_signal) {
    errand.of.held_back->store(errand.of.owner, std::memory_order_relaxed);
    errand.of.word->fetch_or(errand.of.mark, std::memory_order_release);
  }
  errand.resumed = kernel_call(SYS_ptrace, PTRACE_CONT, errand.tid, 0, by_signal ? WSTOPSIG(status) : 0) == 0;
}

// Once it has left it waits there, and is asked to stop.
void look(Errand& errand) noexcept {
  if (errand.resumed && !errand.asked && !errand.inside()) {
    errand.asked = kernel_call(SYS_ptrace, PTRACE_INTERRUPT, errand.tid, 0, 0) == 0;
  }
  timespec time{0, kLookNs};
  (void)kernel_call(SYS_nanosleep, as_arg(&time));
}

// In a process of its own on the memory of the one that waits; its end detaches.
int trace(void* argument) noexcept {
  Errand& errand = *static_cast<Errand*>(argument);
  if (kernel_call(SYS_ptrace, PTRACE_SEIZE, errand.tid, 0, 0) == 0) {
    for (int i = 0; i < (errand.resumed ? kMostLooks : kLooksForAStop) && !errand.done; i++) {
      int status = 0;
      const long seen = kernel_call(SYS_wait4, errand.tid, as_arg(&status), WNOHANG | __WALL, 0);
      if (seen == 0) {
        look(errand);
      } else if (seen == errand.tid && WIFSTOPPED(status)) {
        at_stop(errand, status);
      } else {
        break;  // it has died
      }
    }
    if (errand.resumed && !errand.done) {
      errand.unmark();
      errand.of.held_back->store(0, std::memory_order_release);
    }
  }
  (void)kernel_call(SYS_exit, 0);
  __builtin_unreachable();
}

}  // namespace

bool run_until_it_leaves(const LeavingOwner& of) noexcept {
  for (const long call : {SYS_clone, SYS_ptrace, SYS_wait4, SYS_rt_sigprocmask, SYS_nanosleep}) {
    if (!may_call(call)) return false;
  }
  alignas(16) char stack[kStackBytes];
  Errand errand{static_cast<long>(static_cast<uint32_t>(of.owner)), of, false, false, false};
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
