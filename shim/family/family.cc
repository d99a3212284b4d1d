// The family's lock, its wake-ups, and mending it.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/family.h"

#include <ctime>

#include "base/clock.h"
#include "base/syscall.h"

namespace shim {

Family* family = nullptr;
base::Config config;
const zps_engine* engine = nullptr;
std::atomic<bool> exiting{false};
std::atomic<uint64_t> exec_began_ns{0};
constinit thread_local bool Guard::may_exit = false;
std::atomic<uint32_t> Guard::forking{0};

namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kLongestExecNs = 1'000'000'000;

// A handler of the program's may run until the kernel takes over, and leave by siglongjmp(): nobody is told then that there is no exec.
bool exec_is_overdue() noexcept {
  const uint64_t began = exec_began_ns.load();
  return began != 0 && base::monotonic_ns() > began + kLongestExecNs;
}

constexpr long kForkNapNs = 50'000;

void wait_for_fork() noexcept {
  constexpr timespec kNap{0, kForkNapNs};
  while (Guard::forking.load(std::memory_order_acquire) != 0) (void)kernel_call(SYS_nanosleep, as_arg(&kNap), 0);
}

}  // namespace

std::span<ProcessSlot> all_slots() noexcept { return {family->slots, family->eighths > 0 ? kSlots / 8 * family->eighths : 1}; }

void deliver_wakes() noexcept {
  family->wakes_due.store(false, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (int word = 0; word < kWakeSlots / 64; word++) {
    if (family->wake_bits[word].load(std::memory_order_relaxed) == 0) continue;
    uint64_t bits = family->wake_bits[word].exchange(0, std::memory_order_acq_rel);
    for (; bits != 0; bits &= bits - 1) {
      const uint64_t one = 1;
      (void)kernel_call(SYS_write, family->wake_fd[word * 64 + __builtin_ctzll(bits)], as_arg(&one), sizeof one);
    }
  }
  if (!family->signals.empty()) [[unlikely]] send_async_signals();
}

void park_while_exiting() noexcept {
  constexpr long kLongestNapNs = 50'000'000;
  // Whether it is an exec that may fail is not told in one word with that it has begun: nobody sleeps for ever here.
  timespec nap{0, 1'000'000};
  while (exiting.load()) {
    if (exec_is_overdue()) call_exec_off();
    (void)kernel_call(SYS_nanosleep, as_arg(&nap), 0);
    if (nap.tv_nsec < kLongestNapNs) nap.tv_nsec *= 2;
  }
}

void Guard::take_slowly() noexcept {
  favoured_ = false;
  while (true) {
    if (exiting.load(std::memory_order_relaxed)) {
      if (!may_exit) park_while_exiting();
      if (exec_is_overdue()) call_exec_off();
    }
    stack_ = the_stack();
    lock_ = stack_ != nullptr ? &stack_->lock : &family->lock;
    const bool owner_died = lock_->lock() == base::BiasedLock::Taken::owner_died;
    const uint32_t forks = forking.load(std::memory_order_relaxed);
    const bool waits = forks != 0 && forks != base::thread_id();
    if (owner_died) {
      if (waits) wait_for_fork();  // nobody can go on before it is mended
      recover();
    }
    if (the_stack() == stack_ && !waits && (may_exit || !exiting.load(std::memory_order_relaxed))) [[likely]] return;
    lock_->unlock();
    if (waits) wait_for_fork();
  }
}

void Guard::drop_and_depart() noexcept {
  netstack::Wire& wire = stack_->wire();
  while (true) {
    const int departure = wire.take_departure();
    leave();
    if (departure < 0 || wire.depart(departure)) return;
    take();
    stack_->flush();
  }
}

void Guard::recover() noexcept {
  recover_family(stack_);
  base::log(base::LogLevel::warn, "a process died inside the stack: its connections were reset, serving goes on");
}

}  // namespace shim
