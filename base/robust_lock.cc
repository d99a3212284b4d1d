// The contended paths of RobustLock.
#include "base/robust_lock.h"

#include <cerrno>
#include <linux/futex.h>

#include "base/check.h"
#include "base/syscall.h"

namespace base {
namespace {

constexpr int kSpins = 200;

}  // namespace

constinit thread_local uint32_t cached_thread_id = 0;

uint32_t ask_thread_id() noexcept { return cached_thread_id = static_cast<uint32_t>(kernel_call(SYS_gettid)); }

RobustLock::Taken RobustLock::lock_slowly() noexcept {
  for (int i = 0; i < kSpins; i++) {
    if (word_.load(std::memory_order_relaxed) == 0 && try_lock()) return Taken::clean;
    __builtin_ia32_pause();
  }
  while (true) {
    uint32_t seen = word_.load(std::memory_order_relaxed);
    const long result = kernel_call(SYS_futex, as_arg(&word_), FUTEX_LOCK_PI, 0, 0);
    if (result == 0) {
      if ((word_.load(std::memory_order_relaxed) & FUTEX_OWNER_DIED) == 0) return Taken::clean;
      word_.fetch_and(~static_cast<uint32_t>(FUTEX_OWNER_DIED), std::memory_order_relaxed);
      return Taken::owner_died;
    }
    if (result == -ESRCH) {
      // Nobody can be queued in the kernel behind a dead owner that the kernel does not know: take the word as it was before the
      // question. A word read after it could already name another waiter, alive, who took the lock from the same dead owner.
      if ((seen & kTidMask) == 0) continue;
      if (word_.compare_exchange_strong(seen, thread_id(), std::memory_order_acquire)) return Taken::owner_died;
      continue;
    }
    // EINVAL: the owner died with waiters and the kernel has given the lock to one of them, who has not yet woken up to put its id
    // into the word. For that moment the word names the dead owner, which the kernel finds inconsistent.
    CHECK(result == -EAGAIN || result == -EINTR || result == -EINVAL);
  }
}

void RobustLock::unlock_slowly() noexcept {
  CHECK(held());
  CHECK(kernel_call(SYS_futex, as_arg(&word_), FUTEX_UNLOCK_PI) == 0);
}

}  // namespace base
