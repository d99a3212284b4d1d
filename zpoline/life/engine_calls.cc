// System calls in which the engine has a part of its own: signal dispositions, masks and stacks, memory that holds sites or page 0, exec,
// exit.
// SPDX-License-Identifier: BSD-3-Clause
//
// They reach zps_on_engine_call() through the same frames as hooked calls. If the hook claimed the number it is asked first; what it
// passes on comes to the table below. Page 0 is not the program's to see: calls that name it get what Linux gives where
// nothing is mapped and mmap_min_addr forbids mapping (munmap: 0, mprotect: -ENOMEM, mmap: -EPERM).
#include <sched.h>
#include <sys/mman.h>

#include <cerrno>

#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/exec.h"
#include "zpoline/life/made_code.h"
#include "zpoline/life/masks.h"
#include "zpoline/life/own_stack.h"
#include "zpoline/life/seccomp_filter.h"
#include "zpoline/life/signal_stacks.h"
#include "zpoline/sites/maps.h"
#include "zpoline/sites/rewriter.h"
#include "zpoline/life/signals.h"
#include "zpoline/life/static_calls.h"
#include "zpoline/life/thread_blocks.h"
#include "zpoline/life/trap.h"

namespace zpoline {

bool page_zero_is_ours = false;
bool static_program = false;
bool loaded_static_program = false;

namespace {

constexpr uint64_t kPageBytes = 4096;

// True if a call that names this address names page 0 while it is not the program's.
bool in_page_zero(int64_t address) noexcept { return page_zero_is_ours && static_cast<uint64_t>(address) < kPageBytes; }

int64_t to_kernel(const zps_call* call) noexcept {
  return base::kernel_call(call->nr, call->arg[0], call->arg[1], call->arg[2], call->arg[3], call->arg[4], call->arg[5]);
}

uint64_t begin_of(const zps_call* call) noexcept { return static_cast<uint64_t>(call->arg[0]); }
uint64_t end_of(const zps_call* call) noexcept { return begin_of(call) + static_cast<uint64_t>(call->arg[1]); }

// Memory that is mapped over rewritten text keeps its sites: programs put copies of their own text there, on huge pages.
int64_t on_mmap(zps_call* call) noexcept {
  const bool fixed = call->arg[3] & (MAP_FIXED | MAP_FIXED_NOREPLACE);
  if (fixed && in_page_zero(call->arg[0])) return -EPERM;
  int64_t result = to_kernel(call);
  if (result < 0 && result > -4096) return result;
  const bool text = (call->arg[2] & PROT_EXEC) && (call->arg[3] & MAP_PRIVATE) && !(call->arg[3] & MAP_ANONYMOUS);
  // A library that ld.so is loading: its other segments and relocations come later, and end with an mprotect by this thread.
  if (text && is_in_loader(call->return_address)) this_thread().late_text = static_cast<uint64_t>(result);
  result = beside_libraries(*call, result);
  after_mmap(*call, result);
  return result;
}

int64_t on_munmap(zps_call* call) noexcept {
  zps_call rest = *call;
  if (in_page_zero(call->arg[0]) && begin_of(call) % kPageBytes == 0 && call->arg[1] > 0) {
    if (end_of(call) <= kPageBytes) return 0;
    rest.arg[0] = static_cast<int64_t>(kPageBytes);
    rest.arg[1] -= static_cast<int64_t>(kPageBytes);
  }
  if (unmap_at_the_end(begin_of(&rest), end_of(&rest))) return 0;
  const int64_t result = to_kernel(&rest);
  if (result == 0) forget_sites(begin_of(&rest), end_of(&rest));
  return result;
}

int64_t on_mremap(zps_call* call) noexcept {
  constexpr int64_t kFixed = 2;
  if (in_page_zero(call->arg[0])) return -EFAULT;
  if ((call->arg[3] & kFixed) && in_page_zero(call->arg[4])) return -EPERM;
  const int64_t result = to_kernel(call);
  if (result < 0 && result > -4096) return result;
  if (result != call->arg[0]) forget_sites(begin_of(call), end_of(call));
  after_mremap(*call, result);
  return result;
}

int64_t on_mprotect(zps_call* call) noexcept {
  if (in_page_zero(call->arg[0]) && call->arg[1] > 0) return -ENOMEM;
  const int64_t result = to_kernel(call);
  ThreadState& thread = this_thread();
  const bool loaded = thread.late_text != 0 && call->arg[2] == PROT_READ && is_in_loader(call->return_address);
  if (result == 0 && loaded && rewrite_new_objects(after_failed_rewrite)) thread.late_text = 0;
  if (result == 0) after_mprotect(*call);
  return result;
}

// What a seccomp filter forbids may be a kill.
void before_seccomp() noexcept {
  stop_arming();
  if (!this_thread().words.vfork_child) expect_seccomp();
}

// One thread has one dispatch; if it is in use, Linux' answer where it has none.
int64_t on_prctl(zps_call* call) noexcept {
  constexpr int64_t kSetSeccomp = 22;
  constexpr int64_t kStrict = 1;
  constexpr int64_t kSetDispatch = 59;
  if (call->arg[0] == kSetDispatch && is_dispatching()) return -EINVAL;
  const bool seccomp = call->arg[0] == kSetSeccomp && (call->arg[1] == kStrict || call->arg[2] != 0);  // not a mere question
  if (call->arg[0] == kSetDispatch && call->arg[1] != 0) stop_arming();
  if (seccomp && call->arg[1] == kStrict) judge_strict_mode();
  if (seccomp && call->arg[1] != kStrict) judge_filter(static_cast<uint64_t>(call->arg[2]));
  if (seccomp) before_seccomp();
  return ZPS_PASS;
}

int64_t on_seccomp(zps_call* call) noexcept {
  constexpr int64_t kSetStrict = 0;
  constexpr int64_t kSetFilter = 1;
  const bool filter = call->arg[0] == kSetFilter && call->arg[2] != 0;
  if (call->arg[0] == kSetStrict) judge_strict_mode();
  if (filter) judge_filter(static_cast<uint64_t>(call->arg[2]));
  if (filter || call->arg[0] == kSetStrict) before_seccomp();
  return ZPS_PASS;
}

int64_t on_exit_group(zps_call* call) noexcept {
  if (hook.before_exit != nullptr && !this_thread().words.vfork_child) hook.before_exit(call->arg[0]);
  return to_kernel(call);
}

int64_t on_exit(zps_call* call) noexcept {
  zps_before_exit(call->arg[0]);
  if (static_program) end_static_thread(call->arg[0]);
  return to_kernel(call);
}

// `saves`: what entry.S has to keep for it even if the hook claims less; the hook's callbacks are any code.
struct EngineCall {
  int16_t nr;
  zps_claim saves;
  int64_t (*serve)(zps_call* call) noexcept;
};

constexpr EngineCall kEngineCalls[] = {
    {SYS_mmap, ZPS_CLAIM_GENERAL, on_mmap},
    {SYS_munmap, ZPS_CLAIM_GENERAL, on_munmap},
    {SYS_mremap, ZPS_CLAIM_GENERAL, on_mremap},
    {SYS_mprotect, ZPS_CLAIM_GENERAL, on_mprotect},
    {SYS_pkey_mprotect, ZPS_CLAIM_GENERAL, on_mprotect},
    {SYS_rt_sigaction, ZPS_CLAIM_GENERAL, program_sigaction},
    {SYS_rt_sigprocmask, ZPS_CLAIM_GENERAL, program_sigprocmask},
    {SYS_rt_sigsuspend, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_sigaltstack, ZPS_CLAIM_GENERAL, program_sigaltstack},
    {SYS_ppoll, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_pselect6, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_epoll_pwait, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_epoll_pwait2, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_io_pgetevents, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_rt_sigtimedwait, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_signalfd4, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_signalfd, ZPS_CLAIM_GENERAL, program_masked_wait},
    {SYS_prctl, ZPS_CLAIM_GENERAL, on_prctl},
    {SYS_seccomp, ZPS_CLAIM_GENERAL, on_seccomp},
    {SYS_execve, ZPS_CLAIM_FULL, program_exec},
    {SYS_execveat, ZPS_CLAIM_FULL, program_exec},
    {SYS_exit, ZPS_CLAIM_FULL, on_exit},
    {SYS_exit_group, ZPS_CLAIM_FULL, on_exit_group},
};
constexpr EngineCall kOfStatic[] = {
    {SYS_arch_prctl, ZPS_CLAIM_GENERAL, program_arch_prctl},
    {SYS_readlink, ZPS_CLAIM_GENERAL, program_readlink},
    {SYS_readlinkat, ZPS_CLAIM_GENERAL, program_readlink},
};

constexpr int16_t kClones[] = {SYS_fork, SYS_vfork, SYS_clone, SYS_clone3};

const EngineCall* find(int64_t nr) noexcept {
  for (const EngineCall& candidate : kEngineCalls) {
    if (candidate.nr == nr) return &candidate;
  }
  for (const EngineCall& candidate : kOfStatic) {
    if (static_program && candidate.nr == nr) return &candidate;
  }
  return nullptr;
}

struct Cpuid {
  uint32_t eax, ebx, ecx, edx;
};
// Of leaf 13, the components of the vector state.
Cpuid state_leaf(uint32_t part) noexcept {
  Cpuid leaf{0xd, 0, part, 0};
  asm("cpuid" : "+a"(leaf.eax), "=b"(leaf.ebx), "+c"(leaf.ecx), "=d"(leaf.edx));
  return leaf;
}

// The bytes that xsavec, or xsave, writes for `mask`, header and legacy part included.
uint64_t state_bytes(uint64_t mask, bool compacted) noexcept {
  uint64_t bytes = 512 + 64;
  for (uint32_t component = 2; component < 63; component++) {
    if (!(mask >> component & 1)) continue;
    const Cpuid part = state_leaf(component);
    if (compacted && (part.ecx & 2)) bytes = (bytes + 63) & ~uint64_t{63};
    if (!compacted && part.ebx > bytes) bytes = part.ebx;
    bytes += part.eax;
  }
  return bytes;
}

void measure_vector_state() noexcept {
  // x87, SSE, AVX, AVX-512 (three parts), PKRU. Tiles (AMX) are left alone: no hook touches them, and they are 8 KB.
  constexpr uint64_t kKept = 0x2e7;
  uint32_t low = 0;
  uint32_t high = 0;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  zps_xsave_mask = (low | static_cast<uint64_t>(high) << 32) & kKept;
  zps_has_xsavec = (state_leaf(1).eax & 2) != 0;
  zps_xsave_bytes = (state_bytes(zps_xsave_mask, zps_has_xsavec) + 63) & ~uint64_t{63};
}

bool is_clone(int64_t nr) noexcept {
  for (int16_t clone : kClones) {
    if (clone == nr) return true;
  }
  return false;
}

// The ways through entry.S, each for a rewritten call, for a near jump, and for what comes from a small stack. What the engine and the hook
// need kept decides.
struct Way {
  const void* by_call;
  const void* by_jump;
  const void* on_own_stack;
};

Way way_of(int64_t nr) noexcept {
  static const Way kHooked[] = {{zps_pass, nullptr, zps_pass_own_stack},
                                {zps_hooked_general, zps_hooked_general_near, zps_hooked_general_own_stack},
                                {zps_hooked_sse, zps_hooked_sse_near, zps_hooked_sse_own_stack},
                                {zps_hooked_full, zps_hooked_full_near, zps_hooked_full_own_stack}};
  static const Way kEngine[] = {{zps_engine_general, zps_engine_general_near, zps_engine_general_own_stack},
                                {zps_engine_general, zps_engine_general_near, zps_engine_general_own_stack},
                                {zps_engine_sse, zps_engine_sse_near, zps_engine_sse_own_stack},
                                {zps_engine_full, zps_engine_full_near, zps_engine_full_own_stack}};
  if (is_clone(nr)) return {zps_clone, zps_clone_near, zps_clone_own_stack};
  if (nr == SYS_rt_sigreturn) return {zps_sigreturn, nullptr, zps_sigreturn_own_stack};
  const int claim = hook.claim[nr];
  if (nr == SYS_exit && claim == ZPS_CLAIM_NONE) return {zps_engine_full, zps_exit_near, zps_exit_near};
  const EngineCall* own = find(nr);
  if (own == nullptr) return kHooked[claim];
  const int saves = own->saves;
  Way way = kEngine[claim > saves ? claim : saves];
  if (nr == SYS_sigaltstack && claim == ZPS_CLAIM_NONE) way.on_own_stack = zps_pass_small_stack;
  return way;
}

}  // namespace

bool is_engine_call(int64_t nr) noexcept { return is_clone(nr) || find(nr) != nullptr; }

bool is_wanted(int64_t nr) noexcept { return nr >= 0 && nr < ZPS_NR_COUNT && (hook.claim[nr] != ZPS_CLAIM_NONE || is_engine_call(nr)); }

void prepare_dispatch(const void** dispatch) noexcept {
  measure_vector_state();
  for (int64_t nr = 0; nr < ZPS_DISPATCH_SLOTS; nr++) dispatch[nr] = nr < ZPS_NR_COUNT ? way_of(nr).by_call : zps_pass;
  for (int64_t nr = 0; nr < ZPS_NR_COUNT; nr++) {
    const Way way = way_of(nr);
    zps_own_stack_ways[nr] = way.on_own_stack;
    zps_static_ways[nr] = way.by_jump;
    if (static_program && way.by_jump != nullptr) dispatch[nr] = way.by_jump == zps_exit_near ? zps_exit_static_call : zps_static_call;
  }
  zps_on_syscall = hook.on_syscall;
}

const void* near_entry(int64_t nr) noexcept { return way_of(nr).by_jump; }

// Only what is set is written to: each page written in the child of a fork is copied for that first.
void reset_locks_after_fork() noexcept {
  if (zps_exit_lock != 0) zps_exit_lock = 0;
  reset_signal_lock();
  reset_rewriter_lock();
  reset_arming_lock();
  reset_thread_blocks_lock();
}

}  // namespace zpoline

extern "C" void zps_before_exit(int64_t status) noexcept {
  using zpoline::hook;
  if (zpoline::this_thread().words.vfork_child || zpoline::is_guest(zpoline::this_thread())) return;
  zpoline::free_own_stack(zpoline::this_thread());
  zpoline::give_back_signal_stack(zpoline::this_thread());
  zpoline::this_thread().words.selector = 0;  // nothing of the program runs in this thread any more
  const bool last = __atomic_sub_fetch(&zpoline::thread_count, 1, __ATOMIC_RELAXED) == 0;
  if (last && hook.before_exit != nullptr) hook.before_exit(status);
  if (zpoline::static_program && !last) zpoline::leave_thread_block();
}

extern "C" int64_t zps_on_engine_call(zps_call* call) noexcept {
  if (zpoline::hook.claim[call->nr] != ZPS_CLAIM_NONE) {
    const int64_t result = zpoline::hook.on_syscall(call);
    if (result != ZPS_PASS) return result;
  }
  const zpoline::EngineCall* own = zpoline::find(call->nr);
  return own != nullptr ? own->serve(call) : ZPS_PASS;
}
