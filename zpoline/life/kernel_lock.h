// A lock whose holder may wait for the kernel.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <linux/futex.h>

#include <atomic>
#include <cstdint>

#include "base/syscall.h"

namespace zpoline {

// Held inside the hook only, where no handler of the program runs. A fork's child sets the word to 0.
class KernelLock {
 public:
  explicit KernelLock(std::atomic<uint32_t>& word) noexcept : word_(word) {
    if (word_.exchange(kHeld) == 0) return;
    while (word_.exchange(kAwaited) != 0) (void)base::kernel_call(SYS_futex, base::as_arg(&word_), FUTEX_WAIT_PRIVATE, kAwaited, 0);
  }
  ~KernelLock() {
    if (word_.exchange(0) == kAwaited) (void)base::kernel_call(SYS_futex, base::as_arg(&word_), FUTEX_WAKE_PRIVATE, 1);
  }
  KernelLock(const KernelLock&) = delete;
  KernelLock& operator=(const KernelLock&) = delete;

 private:
  static constexpr uint32_t kHeld = 1;
  static constexpr uint32_t kAwaited = 2;
  std::atomic<uint32_t>& word_;
};

}  // namespace zpoline
