// What a family of forked processes shares: the stack, the lock, the pools, a slot per process, wake-up descriptors.
// SPDX-License-Identifier: BSD-3-Clause
//
// Before a stack exists a family is one process, and its memory private: a child forked then gets a family of its own. From the moment a
// stack exists its processes are one family for as long as any of them lives.
//
// There is one lock: the stack's, or, before there is a stack, the family's own. Guard takes the right one, and makes the
// state whole again when the last owner died with it.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "base/config.h"
#include "base/lock_written.h"
#include "netstack/make_stack.h"
#include "netstack/stack.h"
#include "shim/family/async_signals.h"
#include "shim/family/in_flight.h"
#include "shim/family/pool.h"
#include "shim/family/processors.h"
#include "shim/family/slots.h"
#include "shim/family/spin_judge.h"
#include "shim/family/waiter.h"
#include "zpoline/hook.h"

namespace shim {

inline constexpr int kWakeSlots = 512;
inline constexpr uint32_t kSlots = 1024;

// The settings of a stack that another program of its network may contradict.
inline constexpr int kStackSettings = 8;

// What is at its start level when no program of the family does anything.
struct FamilyLevels {
  uint32_t processes, chunks, waiters, nodes;
  uint32_t sockets, epolls, items, datagrams;
  bool operator==(const FamilyLevels&) const = default;
};

// Whether sleepers sleep on the wire's bells: not before several have waited.
enum class Bells : uint8_t { unneeded, hang, refused };

struct alignas(64) Family {
  base::BiasedLock lock;
  std::atomic<netstack::Stack*> stack;
  netstack::StackPlace place;
  std::atomic<uint32_t> processes;

  // Wake-up eventfds, the same hidden numbers in each member. A bit in wake_bits: write to it once the lock is free.
  int wake_fd[kWakeSlots];
  int wake_fds;  // so many were to be had
  int kick_fd;  // an eventfd that is always readable (epoll_file.h)
  uint64_t wake_taken[kWakeSlots / 64];
  std::atomic<uint64_t> wake_bits[kWakeSlots / 64];
  std::atomic<bool> wakes_due;
  AsyncSignals signals;

  base::LockWritten<uint32_t> wire_watchers;  // sleepers on the wire's own descriptor
  uint64_t bells_taken;  // a bit for each that is somebody's
  Bells bells;
  std::atomic<uint64_t> service_ns;   // when the service last looked
  std::atomic<uint32_t> on_duty;      // which process's: the tag of its slot
  uint64_t told_ns;                   // when the service last looked at the pools' levels, and what it said of them
  netstack::PoolLevels told;
  FamilyLevels told_family;
  Processors processors;
  CrowdedProcessors crowded;
  std::atomic<uint32_t> waits;  // counted by GivingWay
  uint32_t option_stamps;             // given to sockets (Socket::options_stamp)
  uint32_t eighths;                   // so much of its memory is there; 0: as much as at the start (family_memory.h)
  std::atomic<uint32_t> keeper_apart;  // 1: the keeper has closed what is not its own; a futex
  int flight_fd;                      // memfd whose bytes are locked by what is in flight (in_flight.h); negative: there is none
  uint32_t owner;                     // the user whose family it is
  uint64_t rights;                    // the capabilities of who made the stack
  int network_fd;                     // the name of the network (network.h): a listening socket; negative: there is none
  uint32_t settings[kStackSettings];  // a hash of each setting that the stack was made with (network.cc)
  int door_fd, door_step_fd;          // the two ends of the door (join.h): who is on duty has the first, each envelope the other
  int proc_fd;                        // of /proc, for whoever cannot name it any more
  base::LockWritten<uint32_t> flights;  // records of in_flight that have a file
  uint32_t next_flight;
  int life_fd;                        // memfd whose bytes are locked: byte 0 by who took up the duty, byte 1 + i by the process of slot i

  InFlight in_flight[kInFlight];  // the last before the pools: nothing is in flight before there is a stack (family_memory.cc)

  Pool<Waiter, 8192, 128> waiters;
  Pool<WaitNode, 65536, 1024> nodes;
  Pool<FdChunk, 4096, 32> chunks;
  ProcessSlot slots[kSlots];  // the first is there from the start
};

extern Family* family;
// With the lock held.
[[nodiscard]] FamilyLevels family_levels() noexcept;
extern base::Config config;
extern base::Origin config_origins[base::kConfigKeys];
extern const zps_engine* engine;

// Those slots that there are.
[[nodiscard]] std::span<ProcessSlot> all_slots() noexcept;
// After a member died with the lock, which is held: makes the stack (null before there is one), lists, counts and pools whole.
void recover_family(netstack::Stack* stack) noexcept;
// Writes the eventfds of `wake_bits`, sends the signals that wait. Without the lock.
void deliver_wakes() noexcept;

[[nodiscard]] inline netstack::Stack* the_stack() noexcept { return family->stack.load(std::memory_order_acquire); }

// True once this process has begun to exit or to become another program: other threads then stay out of the lock so as not to die with it.
extern std::atomic<bool> exiting;
// Since when it has been becoming another program; 0: it is not.
extern std::atomic<uint64_t> exec_began_ns;
// Stays here while it is so: for ever, unless the exec fails.
void park_while_exiting() noexcept;
// The exec has failed. Without the lock.
void call_exec_off() noexcept;

// Holds the family's lock for a scope, and delivers the wake-ups that came up in it.
class Guard {
 public:
  Guard() noexcept { take(); }
  ~Guard() { drop(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // For a scope that has to leave the lock for a moment.
  void take() noexcept {
    stack_ = the_stack();
    if (stack_ != nullptr && !exiting.load(std::memory_order_relaxed)) [[likely]] {
      lock_ = &stack_->lock;
      favoured_ = lock_->enter_as_favourite();
      if (favoured_) [[likely]] return;
    }
    take_slowly();
  }
  // What was flushed meanwhile leaves when the lock is free.
  void drop() noexcept {
    if (stack_ != nullptr && stack_->wire().departs()) {
      drop_and_depart();
    } else {
      leave();
    }
    if (family->wakes_due.load(std::memory_order_relaxed)) [[unlikely]] deliver_wakes();
  }
  [[nodiscard]] netstack::Stack* stack() const noexcept { return stack_; }
  // It was but looked at what is there.
  void changed_nothing() noexcept { turn_ = base::BiasedLock::Turn::unchanged; }
  [[nodiscard]] uint64_t changes() const noexcept { return lock_->changes(); }

  // Set by the thread that exits, which alone may still take the lock.
  static constinit thread_local bool may_exit;
  // The id of the thread that forks, or 0; set with the lock held. No other thread of this process stays in the lock then: what it changes
  // of the process's private memory, the fork would copy as it is at that moment. Other processes have no part in that.
  static std::atomic<uint32_t> forking;

 private:
  void take_slowly() noexcept;
  void recover() noexcept;
  void leave() noexcept {
    if (favoured_) [[likely]] {
      lock_->leave_as_favourite(turn_);
    } else {
      lock_->unlock(turn_);
    }
  }
  void drop_and_depart() noexcept;

  netstack::Stack* stack_;
  base::BiasedLock* lock_;
  base::BiasedLock::Turn turn_ = base::BiasedLock::Turn::changed;
  bool favoured_ = false;  // entered as the lock's favourite
};

}  // namespace shim
