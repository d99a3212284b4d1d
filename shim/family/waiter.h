// One thread's place to be found while it sleeps: what it waits for and how to wake it.
// SPDX-License-Identifier: BSD-3-Clause
//
// It lies in shared memory, so that whoever drives the wire can wake a sleeper of another process, and is found again through a
// thread-local pointer, so that a sleep abandoned by siglongjmp is cleaned up by the thread's next wait (reset_waiter).
#pragma once

#include <cstdint>

#include "base/thread_variables.h"
#include "netstack/stack.h"

namespace shim {

class Counted;
struct ProcessSlot;
struct Waiter;

// An observer that wakes its waiter.
class WaitNode final : public netstack::Observer {
 public:
  explicit WaitNode(Waiter* node_waiter) noexcept : waiter(node_waiter) {}
  void on_ready(netstack::Pollable& source, uint32_t events) noexcept override;

  Waiter* waiter;
  WaitNode* next_of_waiter = nullptr;
};

struct Waiter {
  explicit Waiter(ProcessSlot* waiter_process) noexcept : process(waiter_process) {}

  ProcessSlot* process;
  int wake_slot = -1;        // index of its eventfd; -1: none left, it looks around by itself now and then
  bool sleeping = false;
  bool notified = false;
  uint8_t bell = 0;          // its own of the wire's bells; 0: none
  bool on_bell = false;      // which is armed
  bool on_wire = false;      // counted in wire_watchers
  Counted* pinned = nullptr;    // kept alive while the thread sleeps on it
  WaitNode* nodes = nullptr;
};

// This thread's waiter, made at first use; nullptr when the pool is empty. With the lock held, like all of these.
[[nodiscard]] Waiter* this_waiter() noexcept;
[[nodiscard]] bool is_this_waiter(const Waiter* waiter) noexcept;
// The eventfd that wakes it, or -1 when none is left: it then has to look around by itself now and then.
[[nodiscard]] int wake_fd_of(Waiter* waiter) noexcept;
// The bells of the wire, if there are any and more than one thread waits or has waited: one that is alone sleeps on the wire itself.
[[nodiscard]] const netstack::WakeBells* bells_in_use() noexcept;
// Its own bell, taken at its first sleep, or WakeBells::kCommon when none is left.
[[nodiscard]] int bell_of(Waiter* waiter) noexcept;
// What those sleep on who watch the wire: the wire itself, or the common bell of `bells` (may be null). fd_for_all() is -1 if nothing wakes
// them.
[[nodiscard]] int fd_for_all(const netstack::WakeBells* bells) noexcept;
void arm_for_all(const netstack::WakeBells* bells) noexcept;
void disarm_for_all(const netstack::WakeBells* bells) noexcept;
// The page of its own bell in this process, and its number; null and 0 if it has none.
ZPS_THREAD_VARIABLE(netstack::WakeBells::Page*, bell_page)
ZPS_THREAD_VARIABLE(uint8_t, this_bell)
// Watches `source`. False when no node is left: the sleeper then has to look around by itself.
bool watch(Waiter* waiter, netstack::Pollable* source) noexcept;
// Marks a waiter's wake-up due, if it sleeps.
void notify(Waiter* waiter) noexcept;
// Begins a wait of this thread: undoes what an abandoned one left behind and keeps `pin` (may be null) alive until end_wait().
// False when the pool is empty.
[[nodiscard]] bool begin_wait(Counted* pin) noexcept;
void end_wait() noexcept;
// What the wait of this thread keeps alive; null if it needs nothing or there is none.
[[nodiscard]] const Counted* pinned_object() noexcept;
// Marks all wake-ups due again that sleepers have not followed: whoever was about to deliver them may have died or be stopped.
void repeat_wakes() noexcept;
// Those who watch the wire let frames lie: other sleepers, if there are any, are woken to take their places.
void replace_wire_watchers() noexcept;
// Undoes what one sleep set up.
void settle_waiter(Waiter* waiter) noexcept;
// Frees a waiter for good: its thread ends, or its process died.
void free_waiter(Waiter* waiter) noexcept;
// The thread ends (SYS_exit), or a child forgets the waiter of the thread that forked it.
void release_this_waiter() noexcept;
void forget_this_waiter() noexcept;

}  // namespace shim
