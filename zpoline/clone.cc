// Before and after fork, vfork, clone and clone3: callbacks of the hook, signal masks, and whose words are whose.
//
// All signals are blocked from before the kernel call until both sides have finished their part, so no handler runs while the hook
// holds its locks for a fork, nor in a child whose words are not in order yet. The mask that comes back on each side
// is in the CloneFrame.
//
// Frames come from a pool in private memory and count their readers: a thread and its creator both read one frame, in any
// order; a vfork's frame is the parent's, who runs last; a fork has two copies, one per process.
//
// Known limits: a child that shares its parent's memory but neither is a thread with TLS of its own nor stops its parent (clone(CLONE_VM)
// with a stack and nothing else) shares its parent's per-thread words: while the one is in a hooked call, calls of the other go to the
// kernel.
#include <sched.h>
#include <sys/uio.h>

#include <cerrno>
#include <csignal>

#include "base/check.h"
#include "base/syscall.h"
#include "zpoline/engine.h"

namespace zpoline {

int thread_count = 1;

namespace {

CloneFrame pool[64];

CloneFrame* take_frame() noexcept {
  for (;;) {
    for (CloneFrame& frame : pool) {
      uint32_t expected = 0;
      if (__atomic_compare_exchange_n(&frame.used, &expected, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return &frame;
    }
    (void)base::kernel_call(SYS_sched_yield);  // 64 clones at once: one of them is about to finish
  }
}

void give_back(CloneFrame* frame, uint32_t readers = 1) noexcept { __atomic_sub_fetch(&frame->used, readers, __ATOMIC_RELEASE); }

uint64_t flags_of(const zps_call* call) noexcept {
  switch (call->nr) {
    case SYS_fork: return SIGCHLD;
    case SYS_vfork: return CLONE_VM | CLONE_VFORK | SIGCHLD;
    case SYS_clone: return static_cast<uint64_t>(call->arg[0]);
    default: break;
  }
  // clone3: the first two words of its arguments are the flags and a pointer; exit_signal is the fifth.
  uint64_t words[5] = {};
  iovec to{words, sizeof words};
  iovec from{reinterpret_cast<void*>(call->arg[0]), sizeof words};
  (void)base::kernel_call(SYS_process_vm_readv, base::kernel_call(SYS_getpid), base::as_arg(&to), 1, base::as_arg(&from), 1, 0);
  return words[0] | words[4];
}

[[nodiscard]] bool has_two_readers(uint64_t flags) noexcept { return (flags & CLONE_VM) && !(flags & CLONE_VFORK); }
[[nodiscard]] bool shares_words(uint64_t flags) noexcept { return (flags & CLONE_VM) && (flags & CLONE_VFORK); }

void put_mask_back(uint64_t mask) noexcept {
  (void)base::kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, base::as_arg(&mask), 0, sizeof mask);
}

}  // namespace
}  // namespace zpoline

extern "C" {

using zpoline::CloneFrame;

CloneFrame* zps_before_clone(zps_call* call) noexcept {
  const uint64_t all = ~uint64_t{0};
  uint64_t mask = 0;
  (void)base::kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, base::as_arg(&all), base::as_arg(&mask), sizeof all);
  CloneFrame* frame = zpoline::take_frame();  // signals are blocked: no handler leaves with a frame taken
  frame->mask = mask;
  frame->return_address = call->return_address;
  frame->nr = call->nr;
  frame->flags = zpoline::flags_of(call);
  frame->vfork_child = zpoline::this_thread().words.vfork_child;
  if (zpoline::has_two_readers(frame->flags)) frame->used = 2;
  // Counted before it is there: a thread may be gone again before its maker returns, and is not the last one then.
  if (frame->flags & CLONE_THREAD) __atomic_add_fetch(&zpoline::thread_count, 1, __ATOMIC_RELAXED);
  if (!(frame->flags & CLONE_THREAD) && zpoline::hook.before_fork != nullptr) {
    zpoline::this_thread().words.inside = 1;
    zpoline::hook.before_fork(frame->flags);
    zpoline::this_thread().words.inside = 0;
  }
  return frame;
}

int64_t zps_after_clone_parent(CloneFrame* frame, int64_t result) noexcept {
  const uint64_t flags = frame->flags;
  const uint64_t mask = frame->mask;
  zpoline::ThreadState& thread = zpoline::this_thread();
  if (zpoline::shares_words(flags)) {
    // The child may have ended inside a hooked call (exit_group is one), or with a signal put off; these words are ours again.
    thread.words.vfork_child = frame->vfork_child;
    thread.words.inside = 0;
    thread.words.signals_pending = 0;
  }
  const bool no_child = result < 0;
  zpoline::give_back(frame, zpoline::has_two_readers(flags) && no_child ? 2 : 1);
  if ((flags & CLONE_THREAD) && no_child) __atomic_sub_fetch(&zpoline::thread_count, 1, __ATOMIC_RELAXED);
  if (!(flags & CLONE_THREAD) && zpoline::hook.after_fork_parent != nullptr) {
    thread.words.inside = 1;
    zpoline::hook.after_fork_parent(flags, result);
    thread.words.inside = 0;
  }
  zpoline::put_mask_back(mask);
  return result;
}

int64_t zps_after_clone_child(CloneFrame* frame, int64_t) noexcept {
  const uint64_t flags = frame->flags;
  const uint64_t mask = frame->mask;
  zpoline::ThreadState& thread = zpoline::this_thread();
  if (zpoline::shares_words(flags)) thread.words.vfork_child = 1;
  else if (flags & CLONE_VM) zpoline::give_back(frame);
  if (!(flags & CLONE_VM)) {
    zpoline::thread_count = 1;
    for (CloneFrame& other : zpoline::pool) other.used = 0;  // of threads that this process does not have
    zpoline::reset_locks_after_fork();
    if (zpoline::hook.after_fork_child != nullptr) {
      thread.words.inside = 1;
      zpoline::hook.after_fork_child(flags);
      thread.words.inside = 0;
    }
  }
  zpoline::put_mask_back(mask);
  return 0;
}
}
