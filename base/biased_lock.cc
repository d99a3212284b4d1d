// How a favourite comes and goes.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/biased_lock.h"

#include <cerrno>
#include <ctime>
#include <linux/membarrier.h>

#include "base/permitted.h"
#include "base/syscall.h"

namespace base {
namespace {

constexpr int kSpins = 1000;
constexpr long kNapNs = 20'000;

// The favourite is inside, for microseconds if it runs. Where it does not run, a waiter of a higher real-time priority must not spin:
// it sleeps.
void wait_until_false(const std::atomic<bool>& flag) noexcept {
  for (int i = 0; flag.load(std::memory_order_acquire); i++) {
    if (i < kSpins) {
      __builtin_ia32_pause();
      continue;
    }
    timespec nap{0, kNapNs};
    (void)kernel_call(SYS_nanosleep, as_arg(&nap));
  }
}

// A thread of this process.
bool has_ended(uint32_t thread) noexcept {
  return may_call(SYS_tgkill) && kernel_call(SYS_tgkill, kernel_call(SYS_getpid), thread, 0) == -ESRCH;
}

}  // namespace

BiasedLock::Taken BiasedLock::lock_fairly(uint32_t me) noexcept {
  const Taken taken = fair_.lock();
  if (favourite_.load(std::memory_order_relaxed) != 0) depose();
  if (uint32_t& sitter = sitters_[me % kSeats]; sitter == me) sitter = 0;  // it is here
  if (!favour_allowed()) return taken;
  if (last_ != me) {
    last_ = me;
    streak_ = 0;
  } else if (++streak_ >= kStreak) {
    streak_ = 0;
    make_favourite(me);
  }
  return taken;
}

// If its seat is free: whose it was may still be on the way in.
void BiasedLock::make_favourite(uint32_t me) noexcept {
  const uint32_t seat = me % kSeats;
  uint32_t& sitter = sitters_[seat];
  if (sitter != 0 && !has_ended(sitter)) return;
  sitter = me;
  seat_ = static_cast<uint8_t>(seat);
  favourite_.store(me, std::memory_order_relaxed);
}

// With fair_ held.
void BiasedLock::depose() noexcept {
  favourite_.store(0, std::memory_order_seq_cst);
  (void)kernel_call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0);
  wait_until_false(seats_[seat_]);
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
  return seats_[seat_].exchange(false, std::memory_order_relaxed);
}

bool BiasedLock::prepare_favour() noexcept { return kernel_call(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) == 0; }

}  // namespace base
