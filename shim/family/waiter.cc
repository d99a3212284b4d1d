// Making, notifying and cleaning up sleepers.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/waiter.h"

#include "shim/family/family.h"

namespace shim {
namespace {

constexpr uint32_t kMostReplaced = 4;

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
  if (waiter->wake_slot < 0) return;
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
  if (waiter->on_wire) {
    waiter->on_wire = false;
    family->wire_watchers--;
    if (family->wire_watchers == 0) {
      if (netstack::Stack* stack = the_stack()) stack->wire().disarm();
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
  if (waiter->wake_slot >= 0) family->wake_taken[waiter->wake_slot / 64] &= ~(uint64_t{1} << (waiter->wake_slot % 64));
  family->waiters.release(waiter);
}

void release_this_waiter() noexcept {
  if (current_waiter() == nullptr) return;
  free_waiter(current_waiter());
  current_waiter() = nullptr;
}

void forget_this_waiter() noexcept { current_waiter() = nullptr; }

int wake_fd_of(Waiter* waiter) noexcept {
  if (waiter->wake_slot < 0) waiter->wake_slot = take_wake_slot();
  return waiter->wake_slot < 0 ? -1 : family->wake_fd[waiter->wake_slot];
}

}  // namespace shim
