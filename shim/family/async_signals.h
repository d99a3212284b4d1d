// Signals that the stack's events bring about: SIGURG, SIGIO, and what F_SETSIG puts in its place.
// SPDX-License-Identifier: BSD-3-Clause
//
// Whoever drives the wire finds the event, with the family's lock held; he may be any member, the service thread too. A signal is sent when
// the lock is free again, together with the wake-ups, and until then lies in a ring: the lock makes producers one at a time, an index that
// moves by compare-and-swap gives each signal to one sender. One that dies between taking and sending loses what it has taken.
//
// The kernel lets a process send siginfo that says POLL_IN or SI_KERNEL to itself only, and only its first thread. Others say SI_SIGIO
// with the same si_fd and si_band, or what kill() says. A process group gets the plain signal.
//
// Permission is Linux's sigio_perm(): by who has set the owner, not by who sends. But the kernel asks who sends as well.
#pragma once

#include <atomic>
#include <cstdint>

namespace shim {

// Linux: struct fown_struct, as F_GETOWN_EX and F_GETSIG tell it, and who has set it.
struct SignalOwner {
  int32_t type;  // F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP
  int32_t id;    // 0: nobody
  int32_t signum;
  uint32_t uid, euid;
};

struct AsyncSignal {
  static constexpr int32_t kUrgent = 0;

  SignalOwner owner;
  int32_t fd;
  int32_t reason;  // POLL_IN ... POLL_HUP of sigaction(2); kUrgent: SIGURG itself
};

// All zero bytes is an empty ring.
class AsyncSignals {
 public:
  // With the lock held. Its number, by which is_waiting() asks; what finds no room is lost.
  uint64_t push(const AsyncSignal& signal) noexcept;
  [[nodiscard]] bool is_waiting(uint64_t number) const noexcept { return number >= taken_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool empty() const noexcept { return taken_.load(std::memory_order_relaxed) == pushed_.load(std::memory_order_relaxed); }
  // Without the lock. False: there is none.
  [[nodiscard]] bool pop(AsyncSignal* out) noexcept;

 private:
  static constexpr uint64_t kCapacity = 1024;

  std::atomic<uint64_t> pushed_, taken_;
  AsyncSignal ring_[kCapacity];
};

// Sends all that wait. Without the lock.
void send_async_signals() noexcept;

}  // namespace shim
