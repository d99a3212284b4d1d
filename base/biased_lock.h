// A robust lock that costs the thread which uses it all the time two plain stores instead of two locked instructions.
// SPDX-License-Identifier: BSD-3-Clause
//
// A locked instruction takes 5-10 ns and drains the store buffer, several times per request. So while a family is one process, the
// thread that took the lock kStreak times in a row becomes its favourite: it then enters by writing to its seat and looking whether it
// still is the favourite. Anybody else takes the fair lock, ends the favour, and lets membarrier() put a full barrier into every
// running thread of the process: after that either the favourite sees that it is none any more, or its taken seat is seen, and is waited
// for.
//
// A favourite may lose the processor between its first look and what it writes, for so long that another has become the favourite. So that
// it then does not write to the other's seat, threads have seats of their own, by the last digits of their ids; and whoever was a favourite
// keeps its seat until it has come by again, or has ended: until then none of those who would share the seat becomes one.
//
// Who has looked at what the lock protects, and would only look again, need not take it as long as nobody has had a turn since: changes().
//
// Only one process: membarrier reaches the threads of one address space, and a favourite that dies inside would not be noticed.
// With it dies the only process that could care. Before a fork the favour is forbidden, once alone again it is allowed.
//
// Known limit: a process made by clone(CLONE_VM) with a TLS of its own shares lock and memory without being counted. Killed inside as the
// favourite it would leave the lock taken; the fair lock would notice.
//
// Invariants: 1 whoever changes favourite_, last_, streak_, allowed_, seat_ or sitters_ holds fair_; 2 only its sitter writes a seat, if it
// is the favourite or has been; 3 a holder of fair_ goes on only when favourite_ is 0 or itself and the seat of the one before has been
// empty since; 4 only who holds the lock writes changes_.
// Sources: membarrier(2); the idea is that of biased locking in Java virtual machines (Kawachiya et al., OOPSLA 2002).
#pragma once

#include "base/robust_lock.h"

namespace base {

class BiasedLock {
 public:
  using Taken = RobustLock::Taken;
  // Whether its holder has changed anything behind the lock.
  enum class Turn : uint8_t { unchanged, changed };

  // As RobustLock::lock().
  [[nodiscard]] Taken lock() noexcept { return enter_as_favourite() ? Taken::clean : lock_fairly(thread_id()); }
  // Takes the lock if this thread is its favourite. False: nothing was done, and lock() will take it.
  [[nodiscard]] bool enter_as_favourite() noexcept {
    const uint32_t me = cached_thread_id();
    if (favourite_.load(std::memory_order_relaxed) != me || me == 0) [[unlikely]] return false;
    std::atomic<bool>& seat = seats_[me % kSeats];
    seat.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (favourite_.load(std::memory_order_relaxed) == me) [[likely]] return true;
    seat.store(false, std::memory_order_release);
    return false;
  }
  void leave_as_favourite(Turn turn = Turn::changed) noexcept {
    count(turn);
    seats_[cached_thread_id() % kSeats].store(false, std::memory_order_release);
  }
  void unlock(Turn turn = Turn::changed) noexcept {
    if (!fair_.held()) return leave_as_favourite(turn);
    count(turn);
    fair_.unlock();
  }
  // With or without the lock: the same as before as long as nobody has changed anything, but for who holds it now.
  [[nodiscard]] uint64_t changes() const noexcept { return changes_.load(std::memory_order_acquire); }

  // As RobustLock::look_after_owner(); a favourite has nobody to be helped by.
  [[nodiscard]] uint64_t look_after_owner(uint64_t last) noexcept { return fair_.look_after_owner(last); }

  // Nobody is or becomes the favourite from now on. Not with the lock held.
  void forbid_favour() noexcept;
  // Makes the process ready for favourites; may take milliseconds. False where the kernel has no membarrier.
  [[nodiscard]] static bool prepare_favour() noexcept;
  // With the lock held, by the only process that knows it and has prepared itself.
  void allow_favour() noexcept { allowed_.store(true, std::memory_order_relaxed); }
  // When every process that knew the lock is dead but the caller: true if the favourite died inside.
  [[nodiscard]] bool bury_favourite() noexcept;
  // The thread that holds it, with the lock held: where nobody can ask who is asking.
  [[nodiscard]] uint32_t holder() const noexcept {
    return seats_[seat_].load(std::memory_order_relaxed) ? favourite_.load(std::memory_order_relaxed) : fair_.holder();
  }
  // Whether there may be a favourite.
  [[nodiscard]] bool favour_allowed() const noexcept { return allowed_.load(std::memory_order_relaxed); }
  // For tests: whether this thread is the favourite.
  [[nodiscard]] bool favours_me() const noexcept { return favourite_.load(std::memory_order_relaxed) == thread_id(); }

 private:
  // So often in a row makes a favourite: deposing one costs as much as some hundred locked instructions.
  static constexpr uint32_t kStreak = 1000;
  static constexpr uint32_t kSeats = 16;

  [[nodiscard]] Taken lock_fairly(uint32_t me) noexcept;
  void depose() noexcept;
  void make_favourite(uint32_t me) noexcept;
  void count(Turn turn) noexcept {
    if (turn == Turn::changed) changes_.store(changes_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }

  std::atomic<uint32_t> favourite_{0};
  std::atomic<bool> allowed_{false};
  uint8_t seat_ = 0;  // of the last favourite
  uint32_t last_ = 0;
  uint32_t streak_ = 0;
  std::atomic<uint64_t> changes_{0};
  std::atomic<bool> seats_[kSeats]{};  // whether the favourite is inside
  RobustLock fair_;
  uint32_t sitters_[kSeats]{};  // whose seats they are; 0: nobody's
};

}  // namespace base
