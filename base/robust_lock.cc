// The contended paths of RobustLock.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/robust_lock.h"

#include <csignal>
#include <linux/futex.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/lock_owner.h"
#include "base/log.h"
#include "base/permitted.h"
#include "base/stopped_owner.h"
#include "base/syscall.h"

namespace base {
namespace {

constexpr int kSpins = 200;
constexpr int kYields = 200;
constexpr uint64_t kShortestSleepNs = 1'000'000;
constexpr uint64_t kLongestSleepNs = 8'000'000;
constexpr uint64_t kHelpAfterNs = 3'000'000;   // a turn takes microseconds: who has it so long is asked about
constexpr uint64_t kTellAfterNs = 100'000'000;
constexpr uint64_t kTracedNs = 3'000'000'000;  // longer than a tracer takes

std::atomic<uint32_t> own_tag{0};

uint32_t thread_of(uint64_t owner) noexcept { return static_cast<uint32_t>(owner); }
uint32_t tag_of(uint64_t owner) noexcept { return static_cast<uint32_t>(owner >> 32); }

}  // namespace

constinit ptrdiff_t variables_from_fs = 0;

uint64_t make_owner() noexcept {
  return cached_owner() = uint64_t{process_tag()} << 32 | static_cast<uint32_t>(kernel_call(SYS_gettid));
}

void know_thread_id(uint32_t id) noexcept { cached_owner() = id != 0 ? uint64_t{process_tag()} << 32 | id : 0; }

uint32_t process_tag() noexcept { return own_tag.load(std::memory_order_relaxed); }

void set_process_tag(uint32_t tag) noexcept {
  own_tag.store(tag, std::memory_order_relaxed);
  cached_owner() = 0;
}

bool RobustLock::compete(uint64_t word) noexcept {
  for (int i = 0; i < kSpins + kYields; i++) {
    if (word_.load(std::memory_order_relaxed) == 0 && try_lock_as(word)) return true;
    if (i < kSpins || !may_call(SYS_sched_yield)) {
      __builtin_ia32_pause();
    } else {
      (void)kernel_call(SYS_sched_yield);
    }
  }
  return false;
}

RobustLock::Taken RobustLock::lock_slowly() noexcept {
  CHECK(!held());
  const uint64_t me = this_owner();
  if (compete(me)) return Taken::clean;
  Watch watch;
  for (uint64_t nap_ns = kShortestSleepNs;; nap_ns = nap_ns * 2 < kLongestSleepNs ? nap_ns * 2 : kLongestSleepNs) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    if (word != 0) {
      if (owner_is_gone(owner_of(word))) {
        if (word_.compare_exchange_strong(word, me | kSleepers, std::memory_order_acquire)) return Taken::owner_died;
        continue;
      }
      look(owner_of(word), may_call(SYS_futex) ? nap_ns : 0, &watch);
      if ((word & kSleepers) == 0 && !word_.compare_exchange_strong(word, word | kSleepers, std::memory_order_relaxed)) continue;
      sleep(word | kSleepers, nap_ns);
    }
    if (compete(me | kSleepers)) return Taken::clean;
  }
}

// The low half of the word is what the kernel compares.
void RobustLock::sleep(uint64_t word, uint64_t ns) noexcept {
  if (!may_call(SYS_futex)) return;  // who may not sleep competes all the time
  const timespec time{0, static_cast<long>(ns)};
  (void)kernel_call(SYS_futex, as_arg(&word_), FUTEX_WAIT, static_cast<long>(static_cast<uint32_t>(word)), as_arg(&time));
}

void RobustLock::after_unlock(uint64_t old) noexcept {
  if ((old & kSleepers) != 0 && may_call(SYS_futex)) (void)kernel_call(SYS_futex, as_arg(&word_), FUTEX_WAKE, 1);
  if ((old & kHoldBack) != 0) wait_for_tracer();
  if ((old & kStopAgain) != 0 && may_call(SYS_tgkill)) (void)kernel_call(SYS_tgkill, kernel_call(SYS_getpid), thread_id(), SIGSTOP);
}

// A tracer that is gone has let it go.
void RobustLock::wait_for_tracer() const noexcept {
  const uint64_t end_ns = monotonic_ns() + kTracedNs;
  while (held_back_.load(std::memory_order_acquire) == this_owner() && monotonic_ns() < end_ns) __builtin_ia32_pause();
}

// ---------------------------------------------------------------- an owner that does not come out

// Time counts in looks of one's own: who was stopped himself, with the owner, has not waited.
void RobustLock::look(uint64_t owner, uint64_t since_last_ns, Watch* watch) noexcept {
  if (owner != watch->owner) *watch = {owner};
  const uint64_t before_ns = watch->waited_ns;
  watch->waited_ns += since_last_ns;
  if (watch->waited_ns < kHelpAfterNs || tag_of(owner) == process_tag()) return;  // its process runs, for this one is its own
  const OwnerState state = state_of_owner(owner);
  if (state == OwnerState::runs) {
    *watch = {owner};
    return;
  }
  if ((state == OwnerState::stopped || state == OwnerState::unknown) && help(owner, state)) return;
  if (state == OwnerState::unknown) return;
  if (before_ns < kTellAfterNs && watch->waited_ns >= kTellAfterNs) {
    log(LogLevel::warn, "thread %u is stopped or frozen inside the stack: the other processes wait", thread_of(owner));
  }
  const uint64_t patience_ns = uint64_t{patience_ms()} * 1'000'000;
  if (patience_ns == 0 || !may_call(SYS_kill) || before_ns >= patience_ns || watch->waited_ns < patience_ns) return;
  log(LogLevel::warn, "thread %u has been stopped or frozen inside the stack for %u ms: its process is killed", thread_of(owner),
      patience_ms());
  (void)kernel_call(SYS_kill, thread_of(owner), SIGKILL);
}

// One at a time: two tracers are one too many. Who helps may be killed or stopped as well.
bool RobustLock::help(uint64_t owner, OwnerState state) noexcept {
  uint64_t other = helper_.load(std::memory_order_relaxed);
  if (other != 0 && !owner_is_gone(other) && state_of_owner(other) != OwnerState::stopped) return true;
  if (!helper_.compare_exchange_strong(other, this_owner())) return true;
  const bool ran = run_until_it_leaves({owner, &word_, kHoldBack, &held_back_});
  const bool helped = ran || (state == OwnerState::stopped && continue_it(owner));
  if (helped) log(LogLevel::debug, "thread %u was stopped inside the stack: let out by %s", thread_of(owner), ran ? "tracing" : "a signal");
  other = this_owner();
  (void)helper_.compare_exchange_strong(other, 0);
  return helped;
}

bool RobustLock::continue_it(uint64_t owner) noexcept {
  if (!may_call(SYS_kill)) return false;
  uint64_t word = word_.load(std::memory_order_relaxed);
  while (owner_of(word) == owner && !word_.compare_exchange_weak(word, word | kStopAgain, std::memory_order_relaxed)) {
  }
  if (owner_of(word) != owner) return true;
  // Whoever goes on by now was continued by somebody else, for good.
  const bool stopped = state_of_owner(owner) == OwnerState::stopped;
  if (stopped && kernel_call(SYS_kill, thread_of(owner), SIGCONT) == 0) return true;
  word |= kStopAgain;
  while (owner_of(word) == owner && !word_.compare_exchange_weak(word, word & ~kStopAgain, std::memory_order_relaxed)) {
  }
  return false;
}

uint64_t RobustLock::look_after_owner(uint64_t last) noexcept {
  const uint64_t owner = owner_of(word_.load(std::memory_order_relaxed));
  if (owner != 0 && owner == last) {
    Watch watch{owner, kHelpAfterNs};
    look(owner, 0, &watch);
  }
  return owner;
}

}  // namespace base
