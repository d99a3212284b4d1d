// Before and after fork, vfork, clone and clone3: callbacks of the hook, signal masks, and whose words are whose.
// SPDX-License-Identifier: BSD-3-Clause
//
// All signals are blocked from before the kernel call until both sides have finished their part, so no handler runs while the hook
// holds its locks for a fork, nor in a child whose words are not in order yet. The mask that comes back on each side
// is in the CloneFrame.
//
// Frames come from a pool in private memory and count their readers: a thread and its creator both read one frame, in any
// order; a vfork's frame is the parent's, who runs last; a fork has two copies, one per process.
//
// Guests. A child that shares its parent's memory but neither has a TLS of its own nor stops its parent (clone(CLONE_VM) with a stack
// and nothing else) runs with its parent's per-thread words. It may be killed at any time, inside a hooked call too, and
// what it had written there would stay. So the words remain the parent's: `shared` tells the entry to ask who is there (a gettid,
// from then on, for each hooked call of that thread), and a guest's calls, handlers and forks take no notice of the hook.
//
// Known limits: a guest cannot have handlers for SIGSEGV, SIGBUS and SIGSYS (its rt_sigaction has no effect, entry.S); what a guest
// executes is hooked only if its environment says so, and processes that a guest forks are guests in their own.
#include <linux/sched.h>
#include <sched.h>

#include <cerrno>
#include <csignal>

#include "base/check.h"
#include "base/syscall.h"
#include "zpoline/life/copy.h"
#include "zpoline/engine.h"
#include "zpoline/life/signal_stacks.h"
#include "zpoline/life/signals.h"
#include "zpoline/life/thread_blocks.h"
#include "zpoline/life/thread_pointer.h"
#include "zpoline/life/trap.h"

namespace zpoline {

int thread_count = 1;

bool is_guest(const ThreadState& thread) noexcept {
  return thread.shared != 0 && thread.owner != static_cast<uint32_t>(base::kernel_call(SYS_gettid));
}

namespace {

CloneFrame pool[64];
uint32_t frames_tried = 0;  // so many from the first on have ever been used: a child looks at no others, each page would cost it a fault

void note_tried(uint32_t count) noexcept {
  uint32_t before = __atomic_load_n(&frames_tried, __ATOMIC_RELAXED);
  while (before < count && !__atomic_compare_exchange_n(&frames_tried, &before, count, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

CloneFrame* take_frame() noexcept {
  for (;;) {
    for (CloneFrame& frame : pool) {
      uint32_t expected = 0;
      if (!__atomic_compare_exchange_n(&frame.used, &expected, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) continue;
      note_tried(static_cast<uint32_t>(&frame - pool) + 1);
      return &frame;
    }
    (void)base::kernel_call(SYS_sched_yield);  // 64 clones at once: one of them is about to finish
  }
}

void give_back(CloneFrame* frame, uint32_t readers = 1) noexcept { __atomic_sub_fetch(&frame->used, readers, __ATOMIC_RELEASE); }

struct Request {
  uint64_t flags;
  uint64_t parent_id_at, child_id_at;

  // The kernel writes the child's id there before the child runs: for all who share the parent's memory, or in the child.
  [[nodiscard]] uint64_t id_at() const noexcept {
    if (flags & CLONE_CHILD_SETTID) return child_id_at;
    return (flags & CLONE_PARENT_SETTID) && (flags & CLONE_VM) ? parent_id_at : 0;
  }
};

Request request_of(const zps_call* call) noexcept {
  switch (call->nr) {
    case SYS_fork: return {SIGCHLD, 0, 0};
    case SYS_vfork: return {CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0};
    case SYS_clone: return {static_cast<uint64_t>(call->arg[0]), static_cast<uint64_t>(call->arg[2]), static_cast<uint64_t>(call->arg[3])};
    default: break;
  }
  // clone3, struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal.
  uint64_t words[5] = {};
  (void)copy_in(words, static_cast<uint64_t>(call->arg[0]), sizeof words);
  return {words[0] | words[4], words[3], words[2]};
}

// Libcs have the id written where they keep it. A place that cannot be read is none, and is found out while signals are not blocked.
uint64_t readable(uint64_t id_at) noexcept {
  uint32_t id = 0;
  return id_at != 0 && copy_in(&id, id_at, sizeof id) ? id_at : 0;
}
uint32_t id_of_child(const CloneFrame& frame) noexcept {
  uint32_t id = 0;
  return frame.id_at != 0 && copy_in(&id, frame.id_at, sizeof id) ? id : 0;
}

[[nodiscard]] bool has_two_readers(uint64_t flags) noexcept { return (flags & CLONE_VM) && !(flags & CLONE_VFORK); }
[[nodiscard]] bool shares_words(uint64_t flags) noexcept { return (flags & CLONE_VM) && (flags & CLONE_VFORK); }

[[nodiscard]] bool copies_blocks(const CloneFrame& frame) noexcept {
  return static_program && !(frame.flags & CLONE_VM) && !frame.by_guest;
}
[[nodiscard]] bool makes_guest(uint64_t flags) noexcept { return has_two_readers(flags) && !(flags & CLONE_SETTLS); }
[[nodiscard]] uint32_t own_id() noexcept { return static_cast<uint32_t>(base::kernel_call(SYS_gettid)); }

// Callbacks of the hook belong to forks of threads that have words of their own.
[[nodiscard]] bool tells_hook(const CloneFrame& frame) noexcept { return !(frame.flags & CLONE_THREAD) && !frame.by_guest; }

[[nodiscard]] bool makes_thread_pointer(uint64_t flags) noexcept {
  return static_program && (flags & CLONE_SETTLS) != 0 && has_two_readers(flags);
}

// What a static program gives to clone3; false if it is not to be read, or more than is known.
bool read_arguments(const zps_call& call, uint64_t (&arguments)[16]) noexcept {
  const auto bytes = static_cast<uint64_t>(call.arg[1]);
  return bytes <= sizeof arguments && copy_in(arguments, static_cast<uint64_t>(call.arg[0]), bytes);
}

// A thread of a static program begins with a block of the engine's at fs, and finds its own in there. `arguments`: of a clone3, or null.
// False: no memory.
bool give_thread_block(CloneFrame& frame, zps_call* call, const uint64_t* arguments) noexcept {
  constexpr size_t kTlsOfClone3 = 7;  // struct clone_args
  frame.program_rdi = static_cast<uint64_t>(call->arg[0]);
  frame.program_r8 = static_cast<uint64_t>(call->arg[4]);
  frame.thread_block = 0;
  const bool third = call->nr == SYS_clone3;
  if (!makes_thread_pointer(frame.flags) || (third && arguments == nullptr)) return true;
  for (size_t i = 0; third && i < sizeof frame.arguments / sizeof *arguments; i++) frame.arguments[i] = arguments[i];
  uint64_t& pointer = third ? frame.arguments[kTlsOfClone3] : reinterpret_cast<uint64_t&>(call->arg[4]);
  frame.thread_block = make_thread_block(pointer);
  pointer = frame.thread_block;
  if (third) call->arg[0] = base::as_arg(frame.arguments);
  return frame.thread_block != 0;
}

void put_mask_back(uint64_t mask) noexcept {
  (void)base::kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, base::as_arg(&mask), 0, sizeof mask);
}

}  // namespace
}  // namespace zpoline

extern "C" {

using zpoline::CloneFrame;

CloneFrame* zps_before_clone(zps_call* call) noexcept {
  const zpoline::Request request = zpoline::request_of(call);  // may fault, as the next: before all signals are blocked
  const uint64_t id_at = zpoline::readable(request.id_at());
  uint64_t arguments[16] = {};
  const bool third = call->nr == SYS_clone3 && zpoline::makes_thread_pointer(request.flags) && zpoline::read_arguments(*call, arguments);
  const uint64_t all = ~uint64_t{0};
  uint64_t mask = 0;
  (void)base::kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, base::as_arg(&all), base::as_arg(&mask), sizeof all);
  CloneFrame* frame = zpoline::take_frame();  // signals are blocked: no handler leaves with a frame taken
  frame->mask = mask;
  frame->return_address = call->return_address;
  frame->nr = call->nr;
  frame->stack = frame->child_stack = 0;
  frame->same_stack = zpoline::has_two_readers(request.flags) ? 0 : ~uint64_t{0};
  frame->flags = request.flags;
  frame->id_at = id_at;
  zpoline::ThreadState& thread = zpoline::this_thread();
  frame->vfork_child = thread.words.vfork_child;
  frame->hidden_mask = thread.hidden_mask;
  frame->held = thread.held;
  frame->armed = thread.armed;
  if (!zpoline::give_thread_block(*frame, call, third ? arguments : nullptr)) frame->nr = -1;  // no such call, and so no thread
  if (zpoline::has_two_readers(frame->flags)) frame->used = 2;
  // Counted before it is there: a thread may be gone again before its maker returns, and is not the last one then.
  if (frame->flags & CLONE_THREAD) __atomic_add_fetch(&zpoline::thread_count, 1, __ATOMIC_RELAXED);
  frame->by_guest = zpoline::is_guest(thread);
  if (zpoline::makes_guest(frame->flags) && !thread.shared) {
    thread.owner = zpoline::own_id();
    thread.shared = 1;
  }
  if (zpoline::tells_hook(*frame) && zpoline::hook.before_fork != nullptr) {
    zpoline::enter_hook(thread);
    zpoline::hook.before_fork(frame->flags);
    zpoline::leave_hook(thread);
  }
  if (zpoline::copies_blocks(*frame)) zpoline::hold_thread_blocks();
  return frame;
}

int64_t zps_after_clone_parent(CloneFrame* frame, int64_t result) noexcept {
  const uint64_t flags = frame->flags;
  const uint64_t mask = frame->mask;
  zpoline::ThreadState& thread = zpoline::this_thread();
  const bool tells_hook = zpoline::tells_hook(*frame);
  if (zpoline::copies_blocks(*frame)) zpoline::let_thread_blocks_go();
  if (zpoline::shares_words(flags) && !frame->by_guest) {
    thread.owner = zpoline::own_id();
    // The child may have ended inside a hooked call (exit_group is one), or with a signal put off; these words are ours again.
    thread.words.vfork_child = frame->vfork_child;
    thread.hidden_mask = frame->hidden_mask;
    thread.held = frame->held;
    thread.armed = frame->armed;  // of the parent's own dispatch, not the child's
    zpoline::leave_hook(thread);
    thread.words.signals_pending = 0;
  }
  const bool no_child = result < 0;
  if (no_child && frame->thread_block != 0) zpoline::free_thread_block(frame->thread_block);
  zpoline::give_back(frame, zpoline::has_two_readers(flags) && no_child ? 2 : 1);
  if ((flags & CLONE_THREAD) && no_child) __atomic_sub_fetch(&zpoline::thread_count, 1, __ATOMIC_RELAXED);
  if (tells_hook && zpoline::hook.after_fork_parent != nullptr) {
    zpoline::enter_hook(thread);
    zpoline::hook.after_fork_parent(flags, result);
    zpoline::leave_hook(thread);
  }
  zpoline::put_mask_back(mask);
  return result;
}

int64_t zps_after_clone_child(CloneFrame* frame, int64_t) noexcept {
  const uint64_t flags = frame->flags;
  const uint64_t mask = frame->mask;
  if (frame->thread_block != 0) zpoline::take_engine_pointer();
  zpoline::ThreadState& thread = zpoline::this_thread();
  const bool by_guest = frame->by_guest;
  if (flags & CLONE_CLEAR_SIGHAND) zpoline::forget_handlers(!(flags & CLONE_VM));
  if (!by_guest && !zpoline::makes_guest(flags)) {
    thread.hidden_mask = frame->hidden_mask;
    thread.held = 0;  // no signal waits for who has just begun
    thread.of_program = 1;
    if (!zpoline::shares_words(flags)) thread.words.thread_id = zpoline::id_of_child(*frame);
    zpoline::arm_thread();  // guests' calls are the kernel's
  }
  if (zpoline::shares_words(flags) && !by_guest) {
    thread.words.vfork_child = 1;
    thread.owner = zpoline::own_id();  // the parent, who waits, takes it back
  } else if (zpoline::has_two_readers(flags)) {
    zpoline::give_back(frame);
  }
  if (!(flags & CLONE_VM)) {
    // The copy is this process's alone; a guest's child stays one, since the hook knows nothing of it.
    thread.shared = by_guest;
    thread.owner = 0;
  }
  if (!(flags & CLONE_VM) && !by_guest) {
    if (zpoline::thread_count != 1) zpoline::thread_count = 1;
    // Of threads that this process does not have.
    for (uint32_t i = 0; i < zpoline::frames_tried; i++) {
      if (zpoline::pool[i].used != 0) zpoline::pool[i].used = 0;
    }
    zpoline::reset_locks_after_fork();
    zpoline::forget_other_signal_stacks(thread);
    if (zpoline::hook.after_fork_child != nullptr) {
      zpoline::enter_hook(thread);
      zpoline::hook.after_fork_child(flags);
      zpoline::leave_hook(thread);
    }
  }
  zpoline::put_mask_back(mask);
  return 0;
}
}
