// What the parts of the engine share: per-thread words, the tables that the entry assembly reads, and its entry points.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>

#include "zpoline/hook.h"
#include "zpoline/layout.h"

namespace zpoline {

inline constexpr size_t kHookStorage = 320;  // zps_engine::thread_storage

// All of a siginfo_t that the kernel keeps (kernel_siginfo_t); the rest is zero. Static TLS is scarce.
struct HeldInfo {
  alignas(8) uint8_t bytes[48];
};

// This thread's words. Static TLS, so that assembly finds them with one load and threads of any libc flavour that came
// through clone(CLONE_SETTLS) of this libc have them zeroed. A child that shares its parent's TLS (vfork) shares them.
// Aligned as a thread's control block is: ld.so rounds what it keeps for late libraries up to that, and what the program has does not count
// then, so that a program with no other variables than libc's 144 bytes gains 48.
struct alignas(64) ThreadState {
  zps_thread words;
  uint64_t mask_to_restore;  // valid while words.signals_pending: the program's signal mask
  uint64_t late_text;        // not 0: this thread has mapped a file's text that was not scanned yet
  uint32_t shared;           // a child was made that has this TLS as well (a guest, see clone.cc)
  uint32_t owner;            // then: whose words these are (a thread id); 0 if nobody's, everybody is a guest
  uint64_t own_stack;        // where the next call from a small stack begins on the thread's own one (own_stack.h); 0: it has none
  uint64_t own_stack_low;    // its mapping
  uint64_t hidden_mask;       // signals that the program believes blocked and that are not (masks.cc)
  uint64_t held;              // of kHeldSignals (masks.h) those that came meanwhile, or inside a hook
  HeldInfo held_info[6];      // theirs
  uint32_t of_program;        // a thread that the program made: not one of the hook's
  uint32_t armed;             // the generation of the free range that this thread is armed with (trap.cc)
  uint32_t signal_stack;      // the number of its slot, from 1 (signal_stacks.cc); 0: none
  alignas(16) uint8_t of_hook[kHookStorage];
};
static_assert(offsetof(ThreadState, words.inside) == ZPS_INSIDE && offsetof(ThreadState, words.selector) == ZPS_INSIDE + 1);
static_assert(offsetof(ThreadState, words.signals_pending) == ZPS_PENDING);
static_assert(offsetof(ThreadState, shared) == ZPS_SHARED && offsetof(ThreadState, owner) == ZPS_OWNER);
static_assert(offsetof(ThreadState, own_stack) == ZPS_OWN_STACK);
static_assert(offsetof(zps_call, arg) == ZPS_CALL_ARGS && offsetof(zps_call, return_address) == ZPS_CALL_RETURN &&
              sizeof(zps_call) == ZPS_CALL_BYTES);

// Carried through a clone in rbx (entry.S).
struct CloneFrame {
  uint64_t program_rbx;
  uint64_t return_address;
  int64_t nr;
  uint64_t stack;        // where parent and child do their part, if not on the program's stack, and how the program goes on (own_stack.S)
  uint64_t child_stack;
  uint64_t on;
  uint64_t same_stack;   // all ones: the child has the parent's, or a copy; 0: one of its own
  uint64_t program_rdi;  // what the program finds in these registers again: the kernel gets others for a static program's thread
  uint64_t program_r8;
  uint64_t program_on;   // where a static program goes on
  uint64_t thread_block;  // of a static program's new thread: the engine's control block for it; else 0
  uint64_t arguments[16];  // and what clone3 gets
  uint64_t flags;
  uint64_t id_at;        // where the child finds its thread id in its memory; 0: nowhere
  uint64_t mask;         // the program's signal mask
  uint64_t hidden_mask;  // the parent's own
  uint64_t held;         // the parent's own
  uint32_t vfork_child;  // the parent's own words.vfork_child
  uint32_t used;         // taken from the pool
  uint32_t by_guest;     // who cloned was a guest
  uint32_t armed;        // the parent's own
};
static_assert(offsetof(CloneFrame, program_rbx) == ZPS_CLONE_RBX && offsetof(CloneFrame, return_address) == ZPS_CLONE_RETURN &&
              offsetof(CloneFrame, nr) == ZPS_CLONE_NR);
static_assert(offsetof(CloneFrame, program_rdi) == ZPS_CLONE_RDI && offsetof(CloneFrame, program_r8) == ZPS_CLONE_R8 &&
              offsetof(CloneFrame, program_on) == ZPS_CLONE_PROGRAM_ON);
static_assert(offsetof(CloneFrame, stack) == ZPS_CLONE_STACK && offsetof(CloneFrame, child_stack) == ZPS_CLONE_CHILD_STACK &&
              offsetof(CloneFrame, on) == ZPS_CLONE_ON && offsetof(CloneFrame, same_stack) == ZPS_CLONE_SAME_STACK);

// The hook library's answers; claim and callbacks do not change after start.
extern zps_hook hook;
extern const char* const* start_environment;

// What the ledger prints.
struct Counts {
  size_t objects;
  size_t pairs;
  size_t sites;
  size_t called;    // rewritten to call *%rax
  size_t jumped;    // rewritten to a near jump
  size_t native;    // left alone: the number is known and nobody claims it
  size_t trapped;   // rewritten to kTrap: neither a jump nor a call may stand there
  size_t other;     // left alone: no room in the tables
  size_t late_objects;
  uint64_t dispatched;  // calls that Syscall User Dispatch caught
  uint64_t startup_ns;
};
extern Counts counts;
// "zpoline", "nopage0", "sud".
[[nodiscard]] const char* mode_name() noexcept;

inline ThreadState& this_thread() noexcept;
// True in a child that runs with the words of another thread: it has no part in hooks, and its calls go to the kernel.
[[nodiscard]] bool is_guest(const ThreadState& thread) noexcept;

// Numbers in which the engine has a part of its own (engine_calls.cc).
[[nodiscard]] bool is_engine_call(int64_t nr) noexcept;
// True if calls with this number have to leave the program's code: claimed by the hook, or the engine's.
[[nodiscard]] bool is_wanted(int64_t nr) noexcept;
// Fills `dispatch` (ZPS_DISPATCH_SLOTS entries, by call number) from the claims, and measures the vector state.
void prepare_dispatch(const void** dispatch) noexcept;
// Where the stub of a near jump with this number goes; null: to the kernel (not wanted, or rt_sigreturn).
[[nodiscard]] const void* near_entry(int64_t nr) noexcept;
// The program is static (static_program.h): fs is the engine's only while the program's code does not run.
extern bool static_program;
// And ld.so has loaded it all the same: what the program's own file holds is that, its libraries are not.
extern bool loaded_static_program;
// True while page 0 holds the sled: it is then not the program's to see.
extern bool page_zero_is_ours;
// In a fork's child: frees the engine's locks, whose holders may not exist here.
void reset_locks_after_fork() noexcept;
// Threads the engine knows; clone.cc adds, exit subtracts.
extern int thread_count;

}  // namespace zpoline

extern "C" {
extern thread_local zpoline::ThreadState zps_thread_state __attribute__((tls_model("initial-exec"), visibility("hidden")));

// Tables of the entry assembly.
extern uint64_t zps_site_table[65536] __attribute__((visibility("hidden")));
extern int64_t (*zps_on_syscall)(zps_call*) __attribute__((visibility("hidden")));
extern int64_t (*zps_on_engine_call_pointer)(zps_call*) __attribute__((visibility("hidden")));
extern const void* zps_own_stack_ways[ZPS_NR_COUNT] __attribute__((visibility("hidden")));
extern const void* zps_static_ways[ZPS_NR_COUNT] __attribute__((visibility("hidden")));
extern uint64_t zps_xsave_bytes __attribute__((visibility("hidden")));
extern uint64_t zps_xsave_mask __attribute__((visibility("hidden")));
extern bool zps_has_xsavec __attribute__((visibility("hidden")));

// Places in the entry assembly (addresses only).
extern const char zps_pass[], zps_sigreturn[], zps_clone[], zps_null_call[];
extern const char zps_hooked_general[], zps_hooked_sse[], zps_hooked_full[];
extern const char zps_engine_general[], zps_engine_sse[], zps_engine_full[];
// The same for those who come from a stub (stubs.cc).
extern const char zps_clone_near[], zps_exit_near[];
extern const char zps_hooked_general_near[], zps_hooked_sse_near[], zps_hooked_full_near[];
extern const char zps_engine_general_near[], zps_engine_sse_near[], zps_engine_full_near[];
// The same for those who come from a small stack (own_stack.S), and what else is there.
extern const char zps_clone_own_stack[], zps_sigreturn_own_stack[], zps_pass_own_stack[], zps_pass_small_stack[];
extern const char zps_hooked_general_own_stack[], zps_hooked_sse_own_stack[], zps_hooked_full_own_stack[];
extern const char zps_engine_general_own_stack[], zps_engine_sse_own_stack[], zps_engine_full_own_stack[];
extern const char zps_own_stack[], zps_own_stack_switched[], zps_own_stack_trapped[], zps_own_stack_missing[];
extern const char zps_own_stack_trapped_on[], zps_pass_without_stack[];
// For those who come from a static program (static_entry.S).
extern const char zps_static_call[], zps_exit_static_call[], zps_static[], zps_exit_static[];
extern const char zps_clone_on[], zps_clone_on_static[];
extern const char zps_own_stack_static[], zps_own_stack_static_again[], zps_own_stack_static_switched[], zps_own_stack_static_missing[];
extern const char zps_own_stack_static_trapped[], zps_own_stack_static_on[];
extern const void* zps_clone_way_on __attribute__((visibility("hidden")));
// For those who come from a signal handler (trap.cc).
extern const char zps_trapped[], zps_pass_trapped[], zps_sigreturn_trapped[];
extern const char zps_sleep_begin[], zps_sleep_end[], zps_sleep_interrupted[], zps_restore_rt[];
[[noreturn]] void zps_resume(ucontext_t* context) noexcept;
int64_t zps_sleep(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) noexcept;

// Called from the entry assembly.
void zps_leave() noexcept;  // inside = 0, and the handlers that were put off run
int64_t zps_on_engine_call(zps_call* call) noexcept;
void zps_before_exit(int64_t status) noexcept;  // the engine's part of exit
extern uint32_t zps_exit_lock __attribute__((visibility("hidden")));
zpoline::CloneFrame* zps_before_clone(zps_call* call) noexcept;
int64_t zps_after_clone_parent(zpoline::CloneFrame* frame, int64_t result) noexcept;
int64_t zps_after_clone_child(zpoline::CloneFrame* frame, int64_t result) noexcept;
}

namespace zpoline {
inline ThreadState& this_thread() noexcept { return zps_thread_state; }
// What entry.S does around a hooked call, for callbacks of the hook. In this order: a handler that runs between finds the hook closed.
inline void enter_hook(ThreadState& thread) noexcept {
  thread.words.inside = 1;
  thread.words.selector = 0;
}
inline void leave_hook(ThreadState& thread) noexcept {
  thread.words.selector = 1;
  thread.words.inside = 0;
}
}  // namespace zpoline
