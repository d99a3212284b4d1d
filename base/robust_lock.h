// A lock in shared memory without hand-over, that outlives its owner's death at any instruction and goes on when its owner is stopped.
// SPDX-License-Identifier: BSD-3-Clause
//
// The word holds who owns it: the thread's kernel id, and the tag of its process. Taking and releasing a free lock is one locked
// instruction each. A release makes the lock free, whoever waits: there is no next owner who might be asleep, stopped or dead, and no
// switch per turn (a lock that is handed on is held all the time by somebody who does not run yet; with four busy threads that left a fifth
// of the throughput). If somebody sleeps, the release wakes one, who competes again like everybody else.
//
// Who finds it taken
//   1 spins for the time that most turns take;
//   2 gives the processor away, again and again: the owner may be waiting for this very one;
//   3 sleeps on the word, for a bounded time, and looks at the owner before each such sleep (lock_owner.h):
//     gone (also a zombie)   the lock is taken over, and lock() returns `owner_died`: the caller must make the protected state whole;
//     stopped inside         it is let go on until it has left the lock, or told to stop again behind it (stopped_owner.h);
//     anything else          waited for.
// The bound on each sleep covers what nobody tells: death, a stop, and a sleeper who was woken by a release and was stopped or killed
// before it came to compete.
//
// Rejected: FUTEX_LOCK_PI (it knows of deaths and of nothing else: it hands on); robust lists (one per thread, and the program's own libc
// has it; threads made by raw clone have none).
//
// Invariants: 1 the lock is not recursive; 2 it is never held across a sleep or a return to the program; 3 who has slept takes the lock
// with the mark of sleepers set, as there may be others.
// Known limits: members of a family in different pid namespaces do not see each other's ids. There is no priority inheritance: a waiter of
// a real-time priority sleeps until the owner has had its turn.
// Sources: futex(2); U. Drepper, Futexes Are Tricky (the mark of sleepers).
#pragma once

#include <atomic>
#include <cstdint>

#include "base/lock_owner.h"
#include "base/thread_variables.h"

namespace base {

// Who owns a lock: the kernel's id of the thread below, the tag of its process above.
ZPS_THREAD_VARIABLE(uint64_t, cached_owner)
[[nodiscard]] uint64_t make_owner() noexcept;
[[nodiscard]] inline uint64_t this_owner() noexcept {
  const uint64_t owner = cached_owner();
  return owner != 0 ? owner : make_owner();
}

// This thread's kernel id, cached. forget_thread_id() must be called in the child of a fork.
[[nodiscard]] inline uint32_t cached_thread_id() noexcept { return static_cast<uint32_t>(cached_owner()); }
[[nodiscard]] inline uint32_t thread_id() noexcept { return static_cast<uint32_t>(this_owner()); }
inline void forget_thread_id() noexcept { cached_owner() = 0; }
// From who knows it already; 0: nobody does, and the kernel is asked when it is needed.
void know_thread_id(uint32_t id) noexcept;
// From now on threads of this process own locks under this tag; those that have owned one already keep theirs, but for the calling one. 0:
// none.
void set_process_tag(uint32_t tag) noexcept;
[[nodiscard]] uint32_t process_tag() noexcept;

class RobustLock {
 public:
  enum class Taken { clean, owner_died };

  // Waits for the lock. With `owner_died` the lock is held and the state behind it is suspect.
  [[nodiscard]] Taken lock() noexcept {
    if (try_lock()) [[likely]] return Taken::clean;
    return lock_slowly();
  }
  // Takes the lock if it is free right now.
  [[nodiscard]] bool try_lock() noexcept { return try_lock_as(this_owner()); }
  void unlock() noexcept {
    const uint64_t old = word_.exchange(0, std::memory_order_release);
    if ((old & kFlags) != 0) [[unlikely]] after_unlock(old);
  }
  // True if the calling thread holds it.
  [[nodiscard]] bool held() const noexcept { return owner_of(word_.load(std::memory_order_relaxed)) == this_owner(); }
  // The thread that holds it, 0 if none does.
  [[nodiscard]] uint32_t holder() const noexcept { return static_cast<uint32_t>(owner_of(word_.load(std::memory_order_relaxed))); }
  // For who waits for nothing himself and looks now and then: helps an owner who is stopped, `last` being what this said the last time.
  [[nodiscard]] uint64_t look_after_owner(uint64_t last) noexcept;

 private:
  static constexpr uint64_t kSleepers = uint64_t{1} << 31;   // somebody sleeps on the word
  static constexpr uint64_t kStopAgain = uint64_t{1} << 30;  // the owner was stopped, and goes on to leave the lock: there it stops again
  static constexpr uint64_t kHoldBack = uint64_t{1} << 29;   // the same, let on by a tracer: there it waits to be stopped
  static constexpr uint64_t kFlags = kSleepers | kStopAgain | kHoldBack;

  [[nodiscard]] static constexpr uint64_t owner_of(uint64_t word) noexcept { return word & ~kFlags; }
  [[nodiscard]] bool try_lock_as(uint64_t word) noexcept {
    uint64_t expected = 0;
    return word_.compare_exchange_strong(expected, word, std::memory_order_acquire);
  }
  [[nodiscard]] Taken lock_slowly() noexcept;
  [[nodiscard]] bool compete(uint64_t word) noexcept;
  void sleep(uint64_t word, uint64_t ns) noexcept;
  void after_unlock(uint64_t old) noexcept;
  void wait_for_tracer() const noexcept;

  // What a waiter knows of the owner it waits for.
  struct Watch {
    uint64_t owner = 0;
    uint64_t waited_ns = 0;  // since it was last seen to run
  };
  void look(uint64_t owner, uint64_t since_last_ns, Watch* watch) noexcept;
  [[nodiscard]] bool help(uint64_t owner, OwnerState state) noexcept;
  [[nodiscard]] bool continue_it(uint64_t owner) noexcept;

  std::atomic<uint64_t> word_{0};
  std::atomic<uint64_t> helper_{0};     // who lets a stopped owner go on
  std::atomic<uint64_t> held_back_{0};  // an owner that waits behind the lock for its tracer
};

}  // namespace base
