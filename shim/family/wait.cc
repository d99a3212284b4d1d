// The wait loop.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/wait.h"

#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/clock.h"
#include "base/permitted.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/processors.h"
#include "shim/family/service.h"
#include "shim/family/test_hook.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::WakeBells;

constexpr uint64_t kLookAroundNs = 2'000'000;      // a sleeper that nobody can wake looks this often
constexpr uint64_t kKernelProbeNs = 10'000;        // a spinning wait looks at the kernel's side this often

uint64_t longest_spin_ns = 0;
ZPS_THREAD_VARIABLE(SpinJudge, spinning)
ZPS_THREAD_VARIABLE(GivingWay, giving_way)
ZPS_THREAD_VARIABLE(void*, scratch)
ZPS_THREAD_VARIABLE(uint32_t, scratch_uses)

// What a poll brought: the condition's result, and whether others were woken for what came.
struct Look {
  long result;
  bool woke_others;
};

// What was found by a look in vain. As long as it is so the next one need not take the lock: others work behind it, and who is killed there
// leaves them a broken stack.
class Found {
 public:
  [[nodiscard]] bool is_so(uint64_t now) const noexcept {
    return stack_ != nullptr && now < timer_ns_ && stack_->wire().rests() && stack_->lock.changes() == changes_;
  }
  // With the lock held.
  void note(const Guard& guard) noexcept {
    stack_ = guard.stack();
    changes_ = guard.changes();
    timer_ns_ = stack_ != nullptr ? stack_->next_timer_ns() : 0;
  }
  [[nodiscard]] bool was_due(uint64_t now) const noexcept { return now >= timer_ns_; }

 private:
  const netstack::Stack* stack_ = nullptr;
  uint64_t changes_ = 0, timer_ns_ = 0;
};

Look poll_and_check(Condition& condition, uint64_t now, Found* found = nullptr) noexcept {
  Guard guard;
  int taken = 0;
  if (guard.stack() != nullptr) {
    if (this_bell() != 0) guard.stack()->wire().bells().note_look(this_bell(), now);
    taken = guard.stack()->poll(now);
  }
  die_if_told();
  const long result = condition.check();
  if (found != nullptr && result == -EAGAIN) {
    if (taken == 0 && !found->was_due(now) && !condition.has_moved()) guard.changed_nothing();
    found->note(guard);
  }
  return {result, family->wakes_due.load(std::memory_order_relaxed)};
}

Look look_again(Condition& condition, uint64_t now, Found* found) noexcept {
  if (!found->is_so(now)) return poll_and_check(condition, now, found);
  if (this_bell() != 0) the_stack()->wire().bells().note_look(this_bell(), now);
  return {-EAGAIN, false};
}

// The kernel's side of a condition, looked at first and then every so often. A sleep sees it by itself.
class KernelSide {
 public:
  KernelSide(Condition& condition, bool asked_just_now, uint64_t now) noexcept
      : condition_(condition), due_ns_(asked_just_now ? now + kKernelProbeNs : now), looked_(asked_just_now) {}
  [[nodiscard]] long look(uint64_t now) noexcept {
    if (!condition_.has_kernel_side() || now < due_ns_) return -EAGAIN;
    due_ns_ = now + kKernelProbeNs;
    looked_ = true;
    return condition_.check_kernel();
  }
  [[nodiscard]] long look_if_never() noexcept { return looked_ || !condition_.has_kernel_side() ? -EAGAIN : condition_.check_kernel(); }

 private:
  Condition& condition_;
  uint64_t due_ns_;
  bool looked_;
};

// The kernel keeps the number of the processor (and above it the node) where rdtscp finds it, as for the vDSO's getcpu().
uint32_t this_processor() noexcept {
  uint32_t number;
  (void)__rdtscp(&number);
  return number & 0xfff;
}

// After a first look that found nothing, until `end`. -EAGAIN if nothing came in time.
long spin(Condition& condition, KernelSide& kernel, const WaitOptions& options, uint64_t now, uint64_t end) noexcept {
  Found found;
  const zps_thread* thread = engine->thread();
  while (now < end && thread->signals_pending == 0 && !options.interruption.came()) {
    if (const long result = kernel.look(now); result != -EAGAIN) return result;
    __builtin_ia32_pause();
    const Look look = look_again(condition, now, &found);
    const uint64_t before = now;
    now = base::monotonic_ns();
    if (now - before >= CrowdedProcessors::kLeastMissingNs && spinning().spins_as_a_rule()) [[unlikely]] {
      family->crowded.note(this_processor(), base::thread_id(), now, now - before);
    }
    if (look.result != -EAGAIN) {
      spinning().answered();
      count_answered_spin();
      return look.result;
    }
    if (look.woke_others) break;
  }
  spinning().in_vain();
  return -EAGAIN;
}

// Lets others run, and looks each time. -EAGAIN: it sleeps now.
long give_way(Condition& condition, KernelSide& kernel, const WaitOptions& options) noexcept {
  Found found;
  const zps_thread* thread = engine->thread();
  uint64_t now = base::monotonic_ns();
  for (int turn = 0; turn < GivingWay::kMostTurns && now < options.deadline_ns; turn++) {
    if (thread->signals_pending != 0 || options.interruption.came()) break;
    if (const long result = kernel.look(now); result != -EAGAIN) return result;
    const uint64_t before = now;
    (void)kernel_call(SYS_sched_yield);
    now = base::monotonic_ns();
    const Look look = look_again(condition, now, &found);
    if (look.result != -EAGAIN) return look.result;
    if (giving_way().was_too_long(now, now - before) || look.woke_others) break;
  }
  return -EAGAIN;
}

// Step 1. -EAGAIN if nothing came in time.
long look_and_spin(Condition& condition, const WaitOptions& options, bool kernel_asked) noexcept {
  const uint64_t begin = base::monotonic_ns();
  giving_way().note(family->waits);
  const Look look = poll_and_check(condition, begin);
  if (look.result != -EAGAIN) return look.result;
  KernelSide kernel(condition, kernel_asked, begin);
  long result = -EAGAIN;
  if (options.spin && longest_spin_ns != 0 && !look.woke_others && options.deadline_ns > begin) {
    const uint64_t end = begin + longest_spin_ns;
    if (giving_way().is_alone() && !family->crowded.enter(this_processor(), base::thread_id(), begin) && spinning().should_spin()) {
      result = spin(condition, kernel, options, begin, end < options.deadline_ns ? end : options.deadline_ns);
    }
    if (result == -EAGAIN && giving_way().should(begin) && base::may_call(SYS_sched_yield)) result = give_way(condition, kernel, options);
  }
  return result == -EAGAIN ? kernel.look_if_never() : result;
}

struct Sleep {
  pollfd* fds;
  int count;
  int wake_index = -1;
  uint64_t until_ns;
};

// Step 2, with the lock held. The condition's result, or -EAGAIN with everything set for the sleep.
long prepare_sleep(Condition& condition, const WaitOptions& options, Waiter* waiter, netstack::Stack* stack, Sleep* sleep) noexcept {
  const WakeBells* const bells = bells_in_use();
  const int wire_fd = family->wire_watchers < kWireWatchers ? fd_for_all(bells) : -1;
  const int bell = bells == nullptr ? WakeBells::kCommon : bell_of(waiter);
  if (wire_fd >= 0) arm_for_all(bells);
  if (bell != WakeBells::kCommon) bells->arm(bell, bell_page());
  stack->hold_nothing_back();
  (void)stack->poll(base::monotonic_ns());
  const long result = condition.check();
  if (result != -EAGAIN) {
    if (bell != WakeBells::kCommon) bells->disarm(bell);
    if (wire_fd >= 0 && family->wire_watchers == 0) disarm_for_all(bells);
    return result;
  }
  if (bell != WakeBells::kCommon) {
    waiter->on_bell = true;
    sleep->fds[sleep->count++] = {bells->fd(bell), POLLIN, 0};
  }
  const bool watched = condition.watch_all(waiter);
  const int wake_fd = wake_fd_of(waiter);
  sleep->until_ns = options.deadline_ns;
  if (!watched || wake_fd < 0) {
    const uint64_t soon = base::monotonic_ns() + kLookAroundNs;
    if (soon < sleep->until_ns) sleep->until_ns = soon;
  }
  if (wire_fd >= 0) {
    waiter->on_wire = true;
    family->wire_watchers++;
    sleep->fds[sleep->count++] = {wire_fd, POLLIN, 0};
  }
  if (wire_fd >= 0 || family->wire_watchers == 0) {
    // Nobody else sleeps until the next timer: this wait does. A wire that wakes nobody is looked at every so often.
    uint64_t timer = stack->next_timer_ns();
    if (wire_fd < 0 && family->wire_watchers == 0) timer = base::monotonic_ns() + kLookAroundNs;
    if (timer < sleep->until_ns) sleep->until_ns = timer;
  }
  if (wake_fd >= 0) {
    sleep->wake_index = sleep->count;
    sleep->fds[sleep->count++] = {wake_fd, POLLIN, 0};
  }
  if (const uint64_t due = service_due_ns(); due < sleep->until_ns) sleep->until_ns = due;
  waiter->sleeping = true;
  return -EAGAIN;
}

// Step 3. The kernel's result.
long sleep_in_kernel(const WaitOptions& options, Sleep* sleep) noexcept {
  timespec timeout{};
  timespec* limit = nullptr;
  if (sleep->until_ns != kForever) {
    const uint64_t now = base::monotonic_ns();
    const uint64_t left = sleep->until_ns > now ? sleep->until_ns - now : 0;
    timeout.tv_sec = static_cast<time_t>(left / 1'000'000'000u);
    timeout.tv_nsec = static_cast<long>(left % 1'000'000'000u);
    limit = &timeout;
  }
  const long result = engine->sleep(SYS_ppoll, as_arg(sleep->fds), sleep->count, as_arg(limit), as_arg(options.signal_mask),
                                    options.signal_mask_bytes, 0);
  if (options.interruption.came()) return result;  // a wake-up that is not taken ends the next sleep; the array may be overwritten
  if (result > 0 && sleep->wake_index >= 0 && sleep->fds[sleep->wake_index].revents != 0) {
    uint64_t count;
    (void)kernel_call(SYS_read, sleep->fds[sleep->wake_index].fd, as_arg(&count), sizeof count);
  }
  return result;
}

// Steps 2 to 4. -EAGAIN: awake, look again. -EINTR: nothing but a signal came.
long sleep_once(Condition& condition, const WaitOptions& options) noexcept {
  pollfd own_fds[kOwnFds];
  Sleep sleep{own_fds, 0, -1, 0};
  if (options.kernel_fds != nullptr) {
    sleep.fds = options.kernel_fds;
    sleep.count = options.kernel_fd_count;
  }
  Waiter* waiter;
  {
    Guard guard;
    if (guard.stack() == nullptr) return -EINVAL;
    waiter = this_waiter();
    if (waiter == nullptr) return -ENOMEM;
    const long result = prepare_sleep(condition, options, waiter, guard.stack(), &sleep);
    if (result != -EAGAIN) return result;
  }
  const long slept = sleep_in_kernel(options, &sleep);
  {
    Guard guard;
    if (!is_this_waiter(waiter)) return -EINTR;  // it is the parent's: this is a child that a handler has forked
    settle_waiter(waiter);
  }
  return slept < 0 ? slept : -EAGAIN;
}

long interrupted(const Condition& condition, const WaitOptions& options) noexcept {
  return options.restartable && options.interruption.restarts() && !condition.has_moved() ? kRestart : -EINTR;
}

}  // namespace

Interruption::Interruption() noexcept : first_(engine->thread()->handlers_run) {}

bool Interruption::came() const noexcept { return engine->thread()->handlers_run != first_; }

bool Interruption::restarts() const noexcept { return (engine->thread()->restarts >> (first_ % 64) & 1) != 0; }

uint64_t deadline_after(uint64_t relative_ns) noexcept {
  if (relative_ns == 0 || relative_ns == kForever) return relative_ns;
  const uint64_t now = base::monotonic_ns();
  return relative_ns > kForever - 1 - now ? kForever : now + relative_ns;
}

long wait_and_keep(Condition& condition, const WaitOptions& options) noexcept {
  const Counted* const pinned = pinned_object();
  const uint32_t uses = scratch_uses();
  for (bool kernel_asked = options.kernel_asked;; kernel_asked = false) {
    long result = look_and_spin(condition, options, kernel_asked);
    if (result != -EAGAIN) return result;
    if (options.interruption.came()) return interrupted(condition, options);
    if (options.deadline_ns == 0) return -EAGAIN;
    if (base::monotonic_ns() >= options.deadline_ns) return condition.has_kernel_side() ? condition.check_kernel() : -EAGAIN;
    service_ensure();
    result = sleep_once(condition, options);
    if (options.interruption.came()) {
      // Else the handler has waited itself: what this wait stands on may be gone.
      const bool intact = pinned_object() == pinned && scratch_uses() == uses;
      if (result == -EINTR || !intact) return interrupted(condition, options);
    } else if (result == -EINTR) {
      continue;  // a signal of the engine's own
    }
    if (result != -EAGAIN) return result;
  }
}

long wait_for(Condition& condition, const WaitOptions& options) noexcept {
  const long result = wait_and_keep(condition, options);
  Guard guard;
  end_wait();
  return result;
}

// The machine's CPUs count, not this process's share of them: a server pinned to one core has its peer on another.
// Where they do share one, spinning does not pay, and the budget shrinks by itself.
void measure_spinning() noexcept { longest_spin_ns = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? uint64_t{config.spin_us} * 1000 : 0; }

void* thread_scratch() noexcept {
  scratch_uses()++;
  if (scratch() == nullptr) {
    const long address = kernel_call(SYS_mmap, 0, kScratchBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address < 0 && address > -4096) return nullptr;
    scratch() = reinterpret_cast<void*>(address);
  }
  return scratch();
}

void release_thread_scratch() noexcept {
  if (scratch() == nullptr) return;
  (void)kernel_call(SYS_munmap, as_arg(scratch()), kScratchBytes);
  scratch() = nullptr;
}

}  // namespace shim
