// A lock in shared memory that survives the death of its owner, at any instruction and by any signal.
//
// The word holds the owner's thread id, as a priority-inheritance futex wants it. Taking and releasing a free
// lock is one compare-and-swap each and no kernel call. A waiter spins a little, then asks the kernel with
// FUTEX_LOCK_PI. The kernel knows who the owner is, so it can tell that the owner is gone (also while it is
// a zombie): it answers ESRCH, or hands the lock over with FUTEX_OWNER_DIED. Either way lock() returns
// `owner_died` and the caller must make the protected state whole again before it goes on.
//
// Rejected: pthread robust mutexes (they depend on each thread's glibc robust list, which threads made by raw
// clone do not have, and on the same libc in both link namespaces); kill(tid, 0) (a zombie still answers).
//
// Invariants: 1 the lock is not recursive; 2 it is never held across a kernel sleep or a return to the program.
// Known limit: members of a family in different pid namespaces do not see each other's ids.
// Sources: futex(2), Documentation/locking/pi-futex.rst.
#pragma once

#include <atomic>
#include <cstdint>

namespace base {

extern constinit thread_local uint32_t cached_thread_id [[gnu::tls_model("initial-exec")]];
[[nodiscard]] uint32_t ask_thread_id() noexcept;

// This thread's kernel id, cached. forget_thread_id() must be called in the child of a fork.
[[nodiscard]] inline uint32_t thread_id() noexcept {
  const uint32_t id = cached_thread_id;
  return id != 0 ? id : ask_thread_id();
}
inline void forget_thread_id() noexcept { cached_thread_id = 0; }

class RobustLock {
 public:
  enum class Taken { clean, owner_died };

  // Waits for the lock. With `owner_died` the lock is held and the state behind it is suspect.
  [[nodiscard]] Taken lock() noexcept {
    uint32_t expected = 0;
    if (word_.compare_exchange_strong(expected, thread_id(), std::memory_order_acquire)) [[likely]] return Taken::clean;
    return lock_slowly();
  }
  // Takes the lock if it is free right now.
  [[nodiscard]] bool try_lock() noexcept {
    uint32_t expected = 0;
    return word_.compare_exchange_strong(expected, thread_id(), std::memory_order_acquire);
  }
  void unlock() noexcept {
    uint32_t expected = thread_id();
    if (!word_.compare_exchange_strong(expected, 0, std::memory_order_release)) [[unlikely]] unlock_slowly();
  }
  // True if the calling thread holds it.
  [[nodiscard]] bool held() const noexcept { return (word_.load(std::memory_order_relaxed) & kTidMask) == thread_id(); }

 private:
  static constexpr uint32_t kTidMask = 0x3fffffff;

  [[nodiscard]] Taken lock_slowly() noexcept;
  void unlock_slowly() noexcept;

  std::atomic<uint32_t> word_{0};
};

}  // namespace base
