// How a favourite comes and goes.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/biased_lock.h"

#include <ctime>
#include <linux/membarrier.h>

#include "base/syscall.h"

namespace base {
namespace {

constexpr int kSpins = 1000;
constexpr long kNapNs = 20'000;

// The favourite is inside, for microseconds if it runs. Where it does not run, a waiter of a higher real-time priority must not spin:
// it sleeps.
void wait_until_even(const std::atomic<uint32_t>& turn) noexcept {
  for (int i = 0; (turn.load(std::memory_order_acquire) & 1) != 0; i++) {
    if (i < kSpins) {
      __builtin_ia32_pause();
      continue;
    }
    timespec nap{0, kNapNs};
    (void)kernel_call(SYS_nanosleep, as_arg(&nap));
  }
}

}  // namespace

BiasedLock::Taken BiasedLock::lock_fairly(uint32_t me) noexcept {
  const Taken taken = fair_.lock();
  if (favourite_.load(std::memory_order_relaxed) != 0) depose();
  if (!favour_allowed()) return taken;
  if (last_ != me) {
    last_ = me;
    streak_ = 0;
  } else if (++streak_ >= kStreak) {
    streak_ = 0;
    favourite_.store(me, std::memory_order_relaxed);
  }
  return taken;
}

// With fair_ held.
void BiasedLock::depose() noexcept {
  favourite_.store(0, std::memory_order_seq_cst);
  (void)kernel_call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0);
  wait_until_even(turn_);
}

void BiasedLock::forbid_favour() noexcept {
  (void)lock_fairly(thread_id());
  if (favourite_.load(std::memory_order_relaxed) != 0) depose();
  allowed_.store(false, std::memory_order_relaxed);
  fair_.unlock();
}

bool BiasedLock::bury_favourite() noexcept {
  allowed_.store(false, std::memory_order_relaxed);
  favourite_.store(0, std::memory_order_relaxed);
  const uint32_t turn = turn_.load(std::memory_order_relaxed);
  turn_.store(turn + (turn & 1), std::memory_order_relaxed);
  return (turn & 1) != 0;
}

bool BiasedLock::prepare_favour() noexcept { return kernel_call(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) == 0; }

}  // namespace base
