// The family's lock, its wake-ups, and mending it.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/family.h"

#include "base/syscall.h"

namespace shim {

Family* family = nullptr;
base::Config config;
const zps_engine* engine = nullptr;
std::atomic<bool> exiting{false};
constinit thread_local bool Guard::may_exit = false;

namespace {

using base::as_arg;
using base::kernel_call;

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

void park_forever() noexcept {
  while (true) (void)kernel_call(SYS_pause);
}

void Guard::take_slowly() noexcept {
  favoured_ = false;
  while (true) {
    if (exiting.load(std::memory_order_relaxed) && !may_exit) park_forever();
    stack_ = the_stack();
    lock_ = stack_ != nullptr ? &stack_->lock : &family->lock;
    if (lock_->lock() == base::BiasedLock::Taken::owner_died) recover();
    if (the_stack() == stack_) return;
    lock_->unlock();
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
