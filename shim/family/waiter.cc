// Making, notifying and cleaning up sleepers.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/waiter.h"

#include <sys/mman.h>

#include "base/permitted.h"
#include "base/syscall.h"
#include "shim/family/family.h"

namespace shim {
namespace {

using netstack::WakeBells;

constexpr uint32_t kMostReplaced = 4;
constexpr long kPage = 4096;

ZPS_THREAD_VARIABLE(Waiter*, current_waiter)

int take_wake_slot() noexcept {
  for (int word = 0; word < kWakeSlots / 64; word++) {
    uint64_t& taken = family->wake_taken[word];
    if (taken == ~uint64_t{0}) continue;
    const int bit = __builtin_ctzll(~taken);
    if (word * 64 + bit >= family->wake_fds) return -1;
    taken |= uint64_t{1} << bit;
    return word * 64 + bit;
  }
  return -1;
}

// When the last sleeper on the wire leaves, another sleeper takes its place, or frames would wait for the service.
void promote_a_sleeper() noexcept {
  bool found = false;
  family->waiters.for_each([&](Waiter* waiter) {
    if (found || !waiter->sleeping || waiter->notified) return;
    notify(waiter);
    found = true;
  });
}

void leave_bell_page() noexcept {
  if (bell_page() != nullptr && base::may_call(SYS_munmap)) (void)base::kernel_call(SYS_munmap, base::as_arg(bell_page()), kPage);
  bell_page() = nullptr;
  this_bell() = 0;
}

bool enter_bell_page(int fd) noexcept {
  leave_bell_page();
  if (!base::may_call(SYS_mmap)) return false;
  const long page = base::kernel_call(SYS_mmap, 0, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page < 0 && page > -4096) return false;
  bell_page() = reinterpret_cast<WakeBells::Page*>(page);
  return true;
}

void vacate_bell(Waiter* waiter) noexcept {
  if (waiter->bell == WakeBells::kCommon) return;
  the_stack()->wire().bells().vacate(waiter->bell);
  family->bells_taken &= ~(uint64_t{1} << waiter->bell);
  waiter->bell = WakeBells::kCommon;
}

void unpin(Waiter* waiter) noexcept {
  if (waiter->pinned == nullptr) return;
  Counted* object = waiter->pinned;
  waiter->pinned = nullptr;
  drop_reference(object);
}

}  // namespace

void WaitNode::on_ready(netstack::Pollable&, uint32_t) noexcept { notify(waiter); }

Waiter* this_waiter() noexcept {
  if (current_waiter() == nullptr) current_waiter() = family->waiters.allocate(my_slot);
  return current_waiter();
}

bool is_this_waiter(const Waiter* waiter) noexcept { return waiter == current_waiter(); }

const WakeBells* bells_in_use() noexcept {
  netstack::Stack* const stack = the_stack();
  if (stack == nullptr) return nullptr;
  const WakeBells& bells = stack->wire().bells();
  if (!bells.exist()) return nullptr;
  if (family->bells == Bells::unneeded && family->waiters.in_use() > 1) {
    family->bells = stack->wire().hang_bells() ? Bells::hang : Bells::refused;
  }
  return family->bells == Bells::hang ? &bells : nullptr;
}

int bell_of(Waiter* waiter) noexcept {
  const uint64_t taken = family->bells_taken | uint64_t{1} << WakeBells::kCommon;
  if (waiter->bell != WakeBells::kCommon) return waiter->bell;
  const int bell = ~taken == 0 ? WakeBells::kBells : __builtin_ctzll(~taken);
  if (bell >= WakeBells::kBells) return WakeBells::kCommon;
  if (!enter_bell_page(the_stack()->wire().bells().fd(bell))) return WakeBells::kCommon;
  family->bells_taken |= uint64_t{1} << bell;
  waiter->bell = this_bell() = static_cast<uint8_t>(bell);
  return bell;
}

int fd_for_all(const WakeBells* bells) noexcept {
  return bells == nullptr ? the_stack()->wire().sleep_fd() : bells->fd(WakeBells::kCommon);
}

void arm_for_all(const WakeBells* bells) noexcept {
  if (bells == nullptr) {
    the_stack()->wire().arm();
  } else {
    bells->arm(WakeBells::kCommon, bells->common_page());
  }
}

void disarm_for_all(const WakeBells* bells) noexcept {
  if (bells == nullptr) {
    the_stack()->wire().disarm();
  } else {
    bells->disarm(WakeBells::kCommon);
  }
}

bool watch(Waiter* waiter, netstack::Pollable* source) noexcept {
  WaitNode* node = family->nodes.allocate(waiter);
  if (node == nullptr) return false;
  node->next_of_waiter = waiter->nodes;
  waiter->nodes = node;
  source->observers.push_back(node);
  return true;
}

void notify(Waiter* waiter) noexcept {
  if (!waiter->sleeping || waiter->notified) return;
  waiter->notified = true;
  if (waiter->wake_slot < 0 || (waiter->on_bell && the_stack()->wire().bells().has_rung(waiter->bell))) return;
  family->wake_bits[waiter->wake_slot / 64].fetch_or(uint64_t{1} << (waiter->wake_slot % 64), std::memory_order_relaxed);
  family->wakes_due.store(true, std::memory_order_relaxed);
}

void repeat_wakes() noexcept {
  family->waiters.for_each([](Waiter* waiter) {
    if (!waiter->sleeping || !waiter->notified) return;
    waiter->notified = false;
    notify(waiter);
  });
}

void replace_wire_watchers() noexcept {
  uint32_t others = 0;
  family->waiters.for_each([&](Waiter* waiter) { others += waiter->sleeping && !waiter->on_wire ? 1 : 0; });
  if (others == 0) return;
  family->wire_watchers = 0;
  uint32_t woken = 0;
  family->waiters.for_each([&](Waiter* waiter) {
    if (!waiter->sleeping) return;
    if (waiter->on_wire) {
      waiter->on_wire = false;
    } else if (woken++ < kMostReplaced) {
      notify(waiter);
    }
  });
}

void settle_waiter(Waiter* waiter) noexcept {
  while (WaitNode* node = waiter->nodes) {
    waiter->nodes = node->next_of_waiter;
    node->unlink();
    family->nodes.release(node);
  }
  if (waiter->on_bell) {
    waiter->on_bell = false;
    the_stack()->wire().bells().disarm(waiter->bell);
  }
  if (waiter->on_wire) {
    waiter->on_wire = false;
    family->wire_watchers--;
    if (family->wire_watchers > 0) {
      if (const WakeBells* bells = bells_in_use()) arm_for_all(bells);
    } else {
      if (the_stack() != nullptr) disarm_for_all(bells_in_use());
      waiter->sleeping = false;
      promote_a_sleeper();
    }
  }
  waiter->sleeping = false;
  if (waiter->notified && waiter->wake_slot >= 0) {
    // Awake already: nobody needs to write. A write that is under way makes the next sleep a short one.
    family->wake_bits[waiter->wake_slot / 64].fetch_and(~(uint64_t{1} << (waiter->wake_slot % 64)), std::memory_order_relaxed);
  }
  waiter->notified = false;
}

bool begin_wait(Counted* pin) noexcept {
  Waiter* waiter = this_waiter();
  if (waiter == nullptr) return false;
  settle_waiter(waiter);
  unpin(waiter);
  if (pin != nullptr) add_reference(pin);
  waiter->pinned = pin;
  return true;
}

const Counted* pinned_object() noexcept { return current_waiter() != nullptr ? current_waiter()->pinned : nullptr; }

void end_wait() noexcept {
  if (current_waiter() == nullptr) return;
  settle_waiter(current_waiter());
  unpin(current_waiter());
}

void free_waiter(Waiter* waiter) noexcept {
  settle_waiter(waiter);
  unpin(waiter);
  vacate_bell(waiter);
  if (waiter->wake_slot >= 0) family->wake_taken[waiter->wake_slot / 64] &= ~(uint64_t{1} << (waiter->wake_slot % 64));
  family->waiters.release(waiter);
}

void release_this_waiter() noexcept {
  if (current_waiter() == nullptr) return;
  free_waiter(current_waiter());
  current_waiter() = nullptr;
  leave_bell_page();
}

void forget_this_waiter() noexcept {
  current_waiter() = nullptr;
  leave_bell_page();
}

int wake_fd_of(Waiter* waiter) noexcept {
  if (waiter->wake_slot < 0) waiter->wake_slot = take_wake_slot();
  return waiter->wake_slot < 0 ? -1 : family->wake_fd[waiter->wake_slot];
}

}  // namespace shim
