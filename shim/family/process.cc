// fork and exit: who holds what, at every moment. docs/fork.md tells the whole story.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/process.h"

#include <poll.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <new>

#include "base/clock.h"
#include "base/log.h"
#include "base/syscall.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/family_memory.h"
#include "shim/family/keeper.h"
#include "shim/family/locked_memory.h"
#include "shim/family/network.h"
#include "shim/family/service.h"
#include "shim/family/test_hook.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim/files/placeholders.h"
#include "shim/files/routing.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kLingerNs = 2'000'000'000;  // how long the last member stays for what is still to be sent

// Of the thread that forks: from before_fork to after_fork_parent Guard::forking keeps all others of this process out of the lock, or, if
// the child is to be no member, the lock is held.
alignas(Guard) char fork_guard[sizeof(Guard)];
ProcessSlot* child_slot = nullptr;
uint64_t child_since_ns = 0;

// What a process without a place in the family has as its table: always empty.
ProcessSlot no_slot;

bool shares_memory(uint64_t flags) noexcept { return (flags & CLONE_VM) != 0; }
void become_kernel_only() noexcept {
  my_slot = &no_slot;
  base::set_process_tag(0);
  base::log(base::LogLevel::warn, "no place for process %ld in the family: its sockets are the kernel's", kernel_call(SYS_getpid));
}

}  // namespace

bool in_vfork_child() noexcept { return engine->thread()->vfork_child != 0; }

// Sends what closed connections still have to send, as long as somebody is there to take it, and acknowledges how the peers close. What
// is in a ring of memory must have been taken: nothing tells when, so it is looked at again and again.
void linger(netstack::Stack* stack, uint64_t farewell_ns) noexcept {
  const uint64_t end = base::monotonic_ns() + kLingerNs;
  const uint64_t farewell_end = base::monotonic_ns() + farewell_ns;
  while (true) {
    uint64_t now = base::monotonic_ns();
    uint64_t until = end;
    int wire_fd;
    {
      Guard guard;
      (void)stack->poll(now);
      const netstack::PoolLevels levels = stack->levels();
      const bool sent = stack->all_sent();
      if (levels.streams == 0 && sent && (levels.pcbs == levels.time_wait || now >= farewell_end)) return;
      if (now >= end) return;
      wire_fd = sent ? stack->wire().sleep_fd() : -1;
      stack->wire().arm();
      (void)stack->poll(now);
      if (stack->next_timer_ns() < until) until = stack->next_timer_ns();
    }
    now = base::monotonic_ns();
    if (wire_fd < 0 && until > now + 1'000'000) until = now + 1'000'000;
    if (until > farewell_end && now < farewell_end) until = farewell_end;
    const uint64_t left = until > now ? until - now : 0;
    timespec timeout{static_cast<time_t>(left / 1'000'000'000u), static_cast<long>(left % 1'000'000'000u)};
    pollfd wire{wire_fd, POLLIN, 0};
    (void)kernel_call(SYS_ppoll, as_arg(&wire), 1, as_arg(&timeout), 0, 8);
  }
}

// Each thread is a folder there.
bool is_only_thread() noexcept {
  struct stat status{};
  return kernel_call(SYS_newfstatat, AT_FDCWD, as_arg("/proc/self/task"), as_arg(&status), 0) == 0 && status.st_nlink == 3;
}

bool kernel_only() noexcept { return my_slot == &no_slot; }

void before_fork(uint64_t flags) noexcept {
  age_placeholders();
  if (!kernel_only()) make_stack_for_bound_sockets();
  if (shares_memory(flags) || kernel_only()) return;
  if (base::cached_thread_id() == 0) base::know_thread_id(engine->thread()->thread_id);
  Guard* guard = new (fork_guard) Guard();
  // The child is another process: nobody may be the lock's favourite any more. The lock is left for that, so it may be allowed anew.
  while (guard->stack() != nullptr && guard->stack()->lock.favour_allowed()) {
    guard->drop();
    the_stack()->lock.forbid_favour();
    guard->take();
  }
  child_slot = nullptr;
  if (guard->stack() == nullptr) return;
  child_slot = slot_acquire();
  if (child_slot == nullptr) return;
  child_since_ns = child_slot->since_ns;
  if (!slot_copy(my_slot, child_slot)) {
    slot_release(child_slot);
    child_slot = nullptr;
    return;
  }
  // The kernel takes its time, with a large process some hundred milliseconds: the others of the family need not wait for it.
  Guard::forking.store(base::thread_id(), std::memory_order_relaxed);
  guard->~Guard();
}

void after_fork_parent(uint64_t flags, int64_t pid) noexcept {
  age_placeholders();
  if (shares_memory(flags)) forget_vfork_child();
  if (shares_memory(flags) || kernel_only()) return;
  if (child_slot == nullptr) {
    reinterpret_cast<Guard*>(fork_guard)->~Guard();
    return;
  }
  ProcessSlot* const slot = child_slot;
  const uint64_t since_ns = child_since_ns;
  Guard::forking.store(0, std::memory_order_release);
  const Guard guard;
  if (slot->since_ns != since_ns || is_free(*slot)) return;  // the child has come and gone
  if (pid < 0) {
    slot_release(slot);
  } else if (slot->pid < 0) {
    slot->pid = static_cast<int32_t>(pid);
  }
}

void after_fork_child(uint64_t flags) noexcept {
  if (shares_memory(flags)) return;
  Guard::forking.store(0, std::memory_order_relaxed);
  forget_envelopes();
  base::know_thread_id(engine->thread()->thread_id);
  forget_this_waiter();
  forget_locked_memory();
  test_hook_forked();
  if (kernel_only()) return;
  if (the_stack() == nullptr) {
    become_first_member();
    forget_sleepers();
    return;
  }
  if (child_slot == nullptr) {
    become_kernel_only();
    return;
  }
  my_slot = child_slot;
  service_hold_slot(my_slot);
  // Stopped before it got here, with a parent that has died since, it may have been given up.
  SlotState state = SlotState::forking;
  if (child_slot->since_ns != child_since_ns || !child_slot->state.compare_exchange_strong(state, SlotState::live)) {
    service_leave_slot(child_slot);
    become_kernel_only();
    return;
  }
  my_slot->pid = static_cast<int32_t>(kernel_call(SYS_getpid));
  base::set_process_tag(tag_of(my_slot));
  service_forget();
}

void before_exit(int64_t) noexcept {
  if (in_vfork_child() || kernel_only()) return;
  if (the_stack() == nullptr) return;
  Guard::may_exit = true;
  if (exiting.exchange(true)) return;
  service_stop();
  base::set_process_tag(0);  // what is left is done without a sign of life
  bool last;
  netstack::Stack* stack;
  {
    Guard guard;
    stack = guard.stack();
    family->waiters.for_each([](Waiter* waiter) {
      if (waiter->process == my_slot) free_waiter(waiter);
    });
    forget_this_waiter();
    if (family->processes.load(std::memory_order_relaxed) == 1) stack->refuse_half_open();
    ProcessSlot* mine = my_slot;
    my_slot = &no_slot;
    service_leave_slot(mine);
    slot_release(mine);
    last = family->processes.load(std::memory_order_relaxed) == 0;
    if (last) end_flights();
    stack->flush();
  }
  if (!last && !service_none_but_this()) return;
  leave_network_name();
  linger(stack, kFarewellNs);
  end_keeper();
}

// The wire is to be free again at once for whoever is started in the program's place: no farewell.
void settle_for_the_dead() noexcept {
  constexpr int kMostLooks = 2000;
  constexpr timespec kBetween{0, 1'000'000};
  base::know_thread_id(static_cast<uint32_t>(kernel_call(SYS_gettid)));
  base::set_process_tag(0);
  my_slot = &no_slot;
  Guard::may_exit = true;
  exiting.store(true);
  netstack::Stack* const stack = the_stack();
  if (stack == nullptr || family->processes.load(std::memory_order_relaxed) == 0) return;
  if (stack->lock.bury_favourite()) {
    const Guard guard;
    recover_family(stack);
  }
  {
    const Guard guard;
    stack->wire().leave_name();
  }
  for (int look = 0; !service_none_but_this() && look < kMostLooks; look++) (void)kernel_call(SYS_nanosleep, as_arg(&kBetween), 0);
  linger(stack, 0);
}

}  // namespace shim
