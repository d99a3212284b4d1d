// The program's signal masks: SIGSEGV and SIGSYS stay unblocked in the kernel, while the program sees what it set.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Trapped calls arrive as SIGSYS or SIGSEGV. The kernel kills a thread that raises a signal it has blocked, and programs
// block all signals without a thought: pthread_create, sigsuspend, ppoll, handlers with a full sa_mask.
//
// How. Every mask on its way to the kernel loses these two bits; ThreadState::hidden_mask remembers them and adds them to each mask that
// the program reads, in handlers too (signals.cc). A signal of these that someone sends meanwhile is held and sent again when the
// program unblocks it; a fault of the thread itself that the program believes blocked ends it, as the kernel would have.
//
// Known limits: sigwait() and signalfd() do not see the two.
#include "zpoline/life/masks.h"

#include <sys/syscall.h>

#include <cerrno>
#include <iterator>

#include "base/syscall.h"
#include "zpoline/life/copy.h"

namespace zpoline {
namespace {

// Where a call keeps its mask: an argument that points to it, or (indirect) to a pair of pointer and size.
struct MaskArgument {
  int16_t nr;
  int8_t argument;
  bool indirect;
};
constexpr MaskArgument kMasked[] = {
    {SYS_rt_sigsuspend, 0, false}, {SYS_ppoll, 3, false},       {SYS_epoll_pwait, 4, false},
    {SYS_epoll_pwait2, 4, false},  {SYS_pselect6, 5, true},     {SYS_io_pgetevents, 5, true},
    // These take signals out of the queue; ours would be lost there.
    {SYS_rt_sigtimedwait, 0, false}, {SYS_signalfd4, 1, false}, {SYS_signalfd, 1, false},
};

struct Pair {
  uint64_t mask;
  uint64_t bytes;
};

const MaskArgument* find(int64_t nr) noexcept {
  for (const MaskArgument& candidate : kMasked) {
    if (candidate.nr == nr) return &candidate;
  }
  return nullptr;
}

// True if `arg` names a mask with one of ours in it: it is in `mask` then, without them, and `arg` points there.
bool replace_mask(const MaskArgument& where, int64_t* arg, Pair& pair, uint64_t& mask) noexcept {
  uint64_t at = static_cast<uint64_t>(arg[where.argument]);
  if (at == 0) return false;
  if (where.indirect) {
    if (!copy_in(&pair, at, sizeof pair) || pair.mask == 0) return false;
    at = pair.mask;
  }
  if (!copy_in(&mask, at, sizeof mask) || !(mask & kNeverBlocked)) return false;
  mask &= ~kNeverBlocked;
  pair.mask = reinterpret_cast<uint64_t>(&mask);
  arg[where.argument] = where.indirect ? base::as_arg(&pair) : base::as_arg(&mask);
  return true;
}

uint64_t hidden_after(uint64_t hidden, int how, uint64_t set) noexcept {
  switch (how) {
    case SIG_BLOCK: return hidden | (set & kNeverBlocked);
    case SIG_UNBLOCK: return hidden & ~set;
    default: return set & kNeverBlocked;
  }
}

void send_held(ThreadState& thread, uint64_t due) noexcept {
  if (due == 0) return;
  for (size_t i = 0; i < std::size(kHeldSignals); i++) {
    const uint64_t bit = signal_bit(kHeldSignals[i]);
    if (!(due & bit)) continue;
    thread.held &= ~bit;
    siginfo_t info{};
    __builtin_memcpy(&info, &thread.held_info[i], sizeof thread.held_info[i]);
    send_again(kHeldSignals[i], &info);
  }
}

}  // namespace

void change_kernel_mask(int how, uint64_t set) noexcept {
  (void)base::kernel_call(SYS_rt_sigprocmask, how, base::as_arg(&set), 0, sizeof set);
}

void take_over_mask() noexcept {
  uint64_t mask = 0;
  (void)base::kernel_call(SYS_rt_sigprocmask, SIG_BLOCK, 0, base::as_arg(&mask), sizeof mask);
  this_thread().hidden_mask = mask & kNeverBlocked;
  if (mask & kNeverBlocked) change_kernel_mask(SIG_UNBLOCK, kNeverBlocked);
}

void give_mask_back() noexcept {
  ThreadState& thread = this_thread();
  if (thread.hidden_mask == 0) return;
  change_kernel_mask(SIG_BLOCK, thread.hidden_mask);
  send_held(thread, thread.held);  // an exec keeps them
}

void send_again(int number, const siginfo_t* info) noexcept {
  const long process = base::kernel_call(SYS_getpid);
  const long thread = base::kernel_call(SYS_gettid);
  if (base::kernel_call(SYS_rt_tgsigqueueinfo, process, thread, number, base::as_arg(info)) < 0) {
    (void)base::kernel_call(SYS_tgkill, process, thread, number);  // the queue is full: the signal without its story
  }
}

void hold(ThreadState& thread, int number, const siginfo_t* info) noexcept {
  if (thread.held & signal_bit(number)) return;  // as the kernel: the first story counts
  for (size_t i = 0; i < std::size(kHeldSignals); i++) {
    if (kHeldSignals[i] == number) __builtin_memcpy(&thread.held_info[i], info, sizeof thread.held_info[i]);
  }
  thread.held |= signal_bit(number);
}

void believe(ThreadState& thread, uint64_t hidden_mask) noexcept {
  thread.hidden_mask = hidden_mask;
  send_held(thread, thread.held & ~hidden_mask);
}

int64_t program_sigprocmask(zps_call* call) noexcept {
  // Handlers that were put off run first, and the kernel's mask is the program's again.
  zps_leave();
  uint64_t set = 0;
  const uint64_t wanted = static_cast<uint64_t>(call->arg[1]);
  if (wanted != 0 && call->arg[3] == sizeof set && !copy_in(&set, wanted, sizeof set)) return -EFAULT;
  const uint64_t kernel_set = set & ~kNeverBlocked;
  ThreadState& thread = this_thread();
  const uint64_t hidden = thread.hidden_mask;
  const int64_t result =
      base::kernel_call(call->nr, call->arg[0], wanted != 0 ? base::as_arg(&kernel_set) : 0, call->arg[2], call->arg[3]);
  if (result < 0) return result;
  const uint64_t old = static_cast<uint64_t>(call->arg[2]);
  if (old != 0 && hidden != 0) {
    uint64_t seen = 0;
    if (copy_in(&seen, old, sizeof seen)) seen |= hidden;
    if (!copy_out(old, &seen, sizeof seen)) return -EFAULT;
  }
  if (wanted != 0) believe(thread, hidden_after(hidden, static_cast<int>(call->arg[0]), set));
  return 0;
}

int64_t sleep_unmasked(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) noexcept {
  int64_t arg[6] = {a, b, c, d, e, f};
  Pair pair{};
  uint64_t mask = 0;
  const MaskArgument* where = find(nr);
  if (where != nullptr) (void)replace_mask(*where, arg, pair, mask);
  return zps_sleep(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

int64_t program_masked_wait(zps_call* call) noexcept {
  Pair pair{};
  uint64_t mask = 0;
  const MaskArgument* where = find(call->nr);
  int64_t arg[6] = {call->arg[0], call->arg[1], call->arg[2], call->arg[3], call->arg[4], call->arg[5]};
  if (!replace_mask(*where, arg, pair, mask)) return ZPS_PASS;
  const bool waits = call->nr != SYS_signalfd && call->nr != SYS_signalfd4;  // those two know no EINTR
  if (!waits) return base::kernel_call(call->nr, arg[0], arg[1], arg[2], arg[3]);
  return zps_sleep(call->nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

}  // namespace zpoline
