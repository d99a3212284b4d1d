// sigaltstack(2): no two threads have the same memory for their signals, whatever the program says.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. A program may give the kernel any memory as alternate stack, and the same for all of its threads. That is no fault of it
// as long as no two have a handler there at once: the handlers of a crash are the last to run. But the engine has signals of its own
// (traps, dispatch, the word to arm: trap.cc), they come to all threads at any time, and the kernel puts each frame where the thread's
// alternate stack is. Two frames in one place end both threads.
//
// How. Each thread's stack is noted in a slot. Who names memory that another thread has already gets memory of the engine's lent
// instead, as large at least; the first keeps the program's own. Handlers with SA_ONSTACK run on what is lent, so there is always one
// stack for one thread. The program is shown what it asked for; only a handler's context (uc_stack), which sigreturn reads, and the
// address of a handler's variables tell. A thread that ends gives back both. Slots keep their memory for the next who takes them;
// nothing is unmapped, for a handler's return puts back the stack that was there when it began.
//
// Rejected: signals off the alternate stack (whether a signal goes there is said for all threads, and goroutines have no other room);
// words to one thread after the other (traps come when they come); memory of the engine's for every thread (coroutines are made by a
// handler that leaves its frame on the stack that was named for it).
//
// Calls of Go code, which are asked on the program's stack (own_stack.S), go to the kernel: its threads have stacks of their own.
//
// Known limits: an alternate stack that the program uses for something else meanwhile, or has unmapped, without telling the kernel.
// Threads beyond kSlots have what they name. Sources: sigaltstack(2); Linux kernel/signal.c, do_sigaltstack().
#include "zpoline/life/signal_stacks.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "base/syscall.h"
#include "zpoline/life/copy.h"
#include "zpoline/life/kernel_lock.h"
#include "zpoline/life/seccomp_filter.h"

namespace zpoline {
namespace {

constexpr uint64_t kSlots = 8192;
constexpr uint64_t kGuardBytes = 4096;
constexpr uint64_t kLeastBytes = 2048;  // the kernel takes no smaller one
constexpr int kDisarms = 1 << 31;       // SS_AUTODISARM

struct Slot {
  uint32_t thread;              // its id; 0: free
  uint64_t begin, end;          // the program's memory that the kernel puts this thread's signals into
  uint64_t lent, lent_bytes;    // the engine's, and how much
  uint64_t named, named_bytes; // what of the program's it was last lent for
};

Slot slots[kSlots];
uint64_t slots_used = 0;  // those beyond were never taken
std::atomic<uint32_t> lock{0};

long kernel_sigaltstack(const stack_t* wanted, stack_t* old) noexcept {
  return base::kernel_call(SYS_sigaltstack, base::as_arg(wanted), base::as_arg(old));
}

[[nodiscard]] Slot* slot_of(const ThreadState& thread) noexcept {
  return thread.signal_stack != 0 ? &slots[thread.signal_stack - 1] : nullptr;
}

// Whether the thread of a slot is still there, whose end the engine may not have seen.
[[nodiscard]] bool lives(const Slot& slot) noexcept {
  return is_deadly(SYS_tgkill) || base::kernel_call(SYS_tgkill, base::kernel_call(SYS_getpid), slot.thread, 0) != -ESRCH;
}

[[nodiscard]] Slot* free_slot() noexcept {
  for (uint64_t i = 0; i < slots_used; i++) {
    if (slots[i].thread == 0) return &slots[i];
  }
  if (slots_used < kSlots) return &slots[slots_used++];
  for (Slot& slot : slots) {
    if (!lives(slot)) return &slot;
  }
  return nullptr;
}

[[nodiscard]] bool is_of_another(const Slot& own, uint64_t begin, uint64_t end) noexcept {
  for (uint64_t i = 0; i < slots_used; i++) {
    const Slot& slot = slots[i];
    if (&slot != &own && slot.thread != 0 && slot.begin < end && begin < slot.end && lives(slot)) return true;
  }
  return false;
}

[[nodiscard]] bool lend(Slot& slot, uint64_t bytes) noexcept {
  if (slot.lent_bytes >= bytes) return true;
  const uint64_t pages = (bytes + kGuardBytes - 1) / kGuardBytes * kGuardBytes;
  constexpr long kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
  const long memory = base::kernel_call(SYS_mmap, 0, static_cast<long>(kGuardBytes + pages), PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (memory < 0) return false;
  (void)base::kernel_call(SYS_mprotect, memory, kGuardBytes, PROT_NONE);
  slot.lent = static_cast<uint64_t>(memory) + kGuardBytes;
  slot.lent_bytes = pages;
  return true;
}

// What the program named for the stack that the kernel has.
stack_t as_named(const Slot& slot, stack_t stack) noexcept {
  if (slot.lent_bytes == 0 || reinterpret_cast<uint64_t>(stack.ss_sp) != slot.lent) return stack;
  stack.ss_sp = reinterpret_cast<void*>(slot.named);
  stack.ss_size = slot.named_bytes;
  return stack;
}

// Gives the kernel `wanted`, or what is lent for it; `before` is what it had.
long exchange(ThreadState& thread, const stack_t& wanted, stack_t& before) noexcept {
  const KernelLock locked(lock);
  Slot* slot = slot_of(thread);
  if (slot == nullptr) slot = free_slot();
  if (slot == nullptr) return kernel_sigaltstack(&wanted, &before);
  const Slot former = *slot;
  const uint64_t bytes = wanted.ss_size;
  const auto begin = reinterpret_cast<uint64_t>(wanted.ss_sp);
  const bool is_stack = (wanted.ss_flags & ~kDisarms) != SS_DISABLE && bytes >= kLeastBytes && begin + bytes > begin;
  const bool lends = is_stack && is_of_another(*slot, begin, begin + bytes) && lend(*slot, bytes);
  stack_t seen = wanted;
  if (lends) {
    seen.ss_sp = reinterpret_cast<void*>(slot->lent);
    seen.ss_size = slot->lent_bytes;
  }
  const long result = kernel_sigaltstack(&seen, &before);
  before = as_named(former, before);
  if (result < 0) return result;
  slot->begin = is_stack && !lends ? begin : 0;
  slot->end = is_stack && !lends ? begin + bytes : 0;
  if (lends) {
    slot->named = begin;
    slot->named_bytes = bytes;
  }
  slot->thread = static_cast<uint32_t>(base::kernel_call(SYS_gettid));
  thread.signal_stack = static_cast<uint32_t>(slot - slots) + 1;
  return result;
}

}  // namespace

int64_t program_sigaltstack(zps_call* call) noexcept {
  ThreadState& thread = this_thread();
  const auto wanted_at = static_cast<uint64_t>(call->arg[0]);
  const auto old_at = static_cast<uint64_t>(call->arg[1]);
  stack_t wanted{};
  stack_t old{};
  if (wanted_at != 0 && !copy_in(&wanted, wanted_at, sizeof wanted)) return -EFAULT;
  long result = 0;
  if (wanted_at != 0 && !thread.words.vfork_child) {  // a vfork child may be killed with the lock, and has its parent's slot
    result = exchange(thread, wanted, old);
  } else {
    result = kernel_sigaltstack(wanted_at != 0 ? &wanted : nullptr, &old);
    if (const Slot* slot = slot_of(thread); slot != nullptr) old = as_named(*slot, old);
  }
  if (result < 0) return result;
  return old_at == 0 || copy_out(old_at, &old, sizeof old) ? 0 : -EFAULT;
}

void give_back_signal_stack(ThreadState& thread) noexcept {
  Slot* slot = slot_of(thread);
  if (slot == nullptr || is_deadly(SYS_sigaltstack)) return;
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  if (kernel_sigaltstack(&none, nullptr) < 0) return;  // it is there: free when the thread is gone
  thread.signal_stack = 0;
  const KernelLock locked(lock);
  slot->thread = 0;
}

void forget_other_signal_stacks(ThreadState& thread) noexcept {
  if (lock != 0) lock = 0;
  for (uint64_t i = 0; i < slots_used; i++) {
    if (slots[i].thread != 0 && i + 1 != thread.signal_stack) slots[i] = {};
  }
  if (Slot* own = slot_of(thread); own != nullptr) own->thread = static_cast<uint32_t>(base::kernel_call(SYS_gettid));
}

}  // namespace zpoline
