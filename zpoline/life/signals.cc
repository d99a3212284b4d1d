// Signals: putting handlers off while a hook runs, running them inside a sleep, and the faults that are ours to answer.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. A handler may call read() on a socket of ours, or leave by siglongjmp. If it interrupted the hook in the middle
// of the same socket, the one would corrupt it and the other would leave it locked. The kernel never runs a handler
// "inside" a system call; neither do we.
//
// How. The kernel knows one handler for every signal that the program handles: on_signal(). The program's own dispositions
// are kept in `actions` and are what sigaction() shows. When a signal comes
//   - outside a hook: the program's handler is called with the same arguments;
//   - inside (ThreadState::inside is 1): the signal is sent again to this thread with its siginfo, all signals are blocked in
//     the context that sigreturn restores, and `signals_pending` is set. When the hook has ended zps_leave() puts the mask back;
//     the kernel then delivers the signal with the mask, the stack and the flags of its sigaction, as it would have. SIGSEGV and SIGSYS
//     are not sent again before zps_leave() but held (masks.cc);
//   - inside a sleep (engine->sleep()): `inside` is 0 there, the handler runs at once. If the kernel call had not begun, the context
//     is sent to zps_sleep_interrupted, which gives -EINTR: no signal is lost between the look and the sleep. If the handler
//     leaves by siglongjmp, `inside` is 0 already and the words are as outside.
// Signals that interrupt on_signal() before it has changed its context do the same first; the outermost writes
// `mask_to_restore` last, and that is the program's mask.
//
// Faults of the thread itself (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP raised by the kernel) cannot be put off. Before
// the program hears of a SIGSEGV, on_fault() looks whether it is
//   - an instruction that the engine put where a system call was (kTrap): the call goes on in the engine's entry (trap.cc);
//   - a rewritten call with a number beyond the sled (rip is the number, or the call itself where the number is no
//     address): the kernel's answer to that number is put into rax and the program goes on;
//   - a bad pointer in the hook's own copy of the program's memory (zps_hook.fault_begin): the copy ends with -EFAULT;
//   - zps_null_call: the program called or jumped into 0..511 itself. It gets SIGSEGV with that address.
//
// SA_RESETHAND is done here, not by the kernel: a signal that is sent again must find its handler.
//
// Rejected: running handlers later on a copied context (masks, alternate stacks and sigreturn with an edited context come
// out wrong); blocking signals around every hooked call (two kernel calls each).
//
// SIGSEGV and SIGSYS are blocked while on_signal() looks at one of them, as for any handler, and only there: a fault or a trapped call of
// the program's handler would be a kill.
//
// SIGSYS is either the kernel's dispatch, or the engine's word to a thread to arm itself (trap.cc), or the program's own business: seccomp,
// kill().
//
// A static program's thread pointer is not the engine's (static_entry.S): the kernel calls on_signal_static(), which exchanges them.
//
// Known limits: what a jump (not a call) through a small pointer
// aimed at is not recorded by the CPU: the address reported is then 0. Sources: signal(7), sigaction(2), rt_sigqueueinfo(2); Linux
// kernel/signal.c, arch/x86/kernel/signal_64.c.
#include "zpoline/life/signals.h"

#include <ucontext.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/syscall.h"
#include "zpoline/life/copy.h"
#include "zpoline/engine.h"
#include "zpoline/life/masks.h"
#include "zpoline/life/own_stack.h"
#include "zpoline/life/seccomp_filter.h"
#include "zpoline/life/static_signals.h"
#include "zpoline/sites/page_zero.h"
#include "zpoline/sites/rewriter.h"
#include "zpoline/sites/stubs.h"
#include "zpoline/life/trap.h"

namespace zpoline {
namespace {

// struct sigaction as the kernel has it.
struct Action {
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  uint64_t mask;
};

constexpr int kSignals = 64;
constexpr uint64_t kRestorer = 0x04000000;
constexpr uint64_t kKnownFlags =
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | 0x80000000ull | 0x800 | kRestorer;
constexpr uint64_t kResetHand = 0x80000000ull;
constexpr uint64_t kUnblockable = 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1);
constexpr uint64_t kDefault = 0;
constexpr uint64_t kIgnore = 1;

Action actions[kSignals + 1];  // the program's view, by signal number
std::atomic<uint32_t> lock{0};
// A seccomp filter may make a kill of each call that on_signal() makes: those two then are not blocked at all, and frames may nest.
std::atomic<bool> boxed{false};


// What the kernel knows.
[[nodiscard]] uint64_t kernel_handler() noexcept { return reinterpret_cast<uint64_t>(static_program ? &on_signal_static : &on_signal); }

[[nodiscard]] bool has_handler(const Action& action) noexcept { return action.handler != kDefault && action.handler != kIgnore; }

long kernel_sigaction(int number, const Action* action, Action* old) noexcept {
  return base::kernel_call(SYS_rt_sigaction, number, base::as_arg(action), base::as_arg(old), sizeof(uint64_t));
}

// Traps and faults that the engine answers itself, whatever the program thinks of the signal.
[[nodiscard]] bool is_needed(int number) noexcept {
  if (number == SIGSYS) return !boxed || is_dispatching();  // in a box nobody is armed any more
  return number == SIGSEGV || number == SIGBUS;
}

// Those that the kernel blocks while on_signal() looks at one.
[[nodiscard]] uint64_t blocked_by_kernel() noexcept { return boxed.load(std::memory_order_relaxed) ? 0 : kNeverBlocked; }

// Before a handler of the program, whose calls may trap, and before looks at its memory: in on_signal() for `number`, which interrupted
// code that had `mask`.
void let_trap(int number, uint64_t mask) noexcept {
  if ((signal_bit(number) | mask) & blocked_by_kernel()) change_kernel_mask(SIG_UNBLOCK, kNeverBlocked);
}

// What the kernel is told when the program wants `action`.
Action kernel_view(int number, const Action& action) noexcept {
  Action seen = action;
  const bool needed = is_needed(number);
  if (!has_handler(action) && !needed) return seen;
  seen.handler = kernel_handler();
  if (has_handler(action)) {
    seen.flags = (action.flags | SA_SIGINFO) & ~kResetHand;
    seen.mask = action.mask & ~kNeverBlocked;
    // Else their frames nest if they come fast.
    if (signal_bit(number) & kNeverBlocked) seen.flags = boxed ? seen.flags | SA_NODEFER : seen.flags & ~uint64_t{SA_NODEFER};
    if (number == SIGSYS) seen.flags |= SA_ONSTACK;  // most of them are calls; they need no room on the program's stack
  } else {
    seen.flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | (boxed ? SA_NODEFER : 0);
    seen.mask = 0;
  }
  // The program's own way back would be a call that traps, perhaps from within the handler of traps.
  seen.flags |= kRestorer;
  seen.restorer = reinterpret_cast<uint64_t>(zps_restore_rt);
  return seen;
}

uint64_t* mask_of(ucontext_t* context) noexcept { return reinterpret_cast<uint64_t*>(&context->uc_sigmask); }

// While a hook's pending signals wait, nothing else comes.
[[nodiscard]] bool blocks_all(uint64_t mask) noexcept { return (~mask & ~kFaults & ~kUnblockable) == 0; }

void put_off(ThreadState& thread, int number, siginfo_t* info, ucontext_t* context) noexcept {
  const uint64_t program_mask = *mask_of(context) & ~kNeverBlocked;  // blocked only if an on_signal() of theirs was interrupted
  const uint64_t all = ~kFaults;
  if (signal_bit(number) & kFaults) {
    hold(thread, number, info);
    if (thread.hidden_mask & signal_bit(number)) return;
  } else {
    // Blocked first: sent to a thread that does not block it, it would come back at once.
    change_kernel_mask(SIG_SETMASK, all);
    send_again(number, info);
  }
  if (thread.words.signals_pending && blocks_all(program_mask)) return;  // that is `all`, of the one before
  *mask_of(context) = all;
  thread.mask_to_restore = program_mask;
  thread.words.signals_pending = 1;
}

// Gives the signal the effect it has by default, with rip where the context says.
void die_of(int number, siginfo_t* info, bool faults_again) noexcept {
  const Action by_default{};
  (void)kernel_sigaction(number, &by_default, nullptr);
  if (!faults_again) send_again(number, info);
}

// The program's memory; page 0, while it is ours, does not exist for the program.
bool peek(uint64_t address, void* out, size_t bytes) noexcept {
  return !(page_zero_is_ours && address < kPageBytes) && copy_in(out, address, bytes);
}

bool poke(uint64_t address, void* value, size_t bytes) noexcept {
  return !(page_zero_is_ours && address < kPageBytes) && copy_out(address, value, bytes);
}

// The target of the `call *register` before `return_address`, if that is what is there and it aimed at the sled; else 0.
uint64_t called_address(const greg_t* registers, uint64_t return_address) noexcept {
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  uint8_t code[3];
  if (!peek(return_address - 3, code, sizeof code) || code[1] != 0xff || (code[2] & 0xf8) != 0xd0) return 0;
  const int number = (code[2] & 7) + (code[0] == 0x41 ? 8 : 0);
  if (number == 1 || number == 11) return 0;  // rcx and r11 are gone by now
  const uint64_t target = static_cast<uint64_t>(registers[kOrder[number]]);
  return target < 512 ? target : 0;
}

// The kernel's answer to a call number that the sled does not hold; the registers are those of the call.
void answer_odd_number(greg_t* registers, uint64_t return_address, uint64_t rsp) noexcept {
  registers[REG_RAX] = base::kernel_call(registers[REG_RAX], registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], registers[REG_R10],
                                         registers[REG_R8], registers[REG_R9]);
  registers[REG_RIP] = static_cast<greg_t>(return_address);
  registers[REG_RSP] = static_cast<greg_t>(rsp);
  registers[REG_RCX] = static_cast<greg_t>(return_address);
  constexpr greg_t kResume = 0x10000;  // RF, which the fault itself set
  registers[REG_R11] = registers[REG_EFL] & ~kResume;
}

[[nodiscard]] bool is_prefix(uint8_t byte) noexcept {
  constexpr uint8_t kRex = 0x40;
  for (const uint8_t prefix : {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65}) {
    if (byte == prefix) return true;
  }
  return (byte & 0xf0) == kRex;
}

// The length of the faulting instruction if the engine put it where a system call was; else 0.
int trap_bytes(uint64_t rip) noexcept {
  constexpr int kMostPrefixes = 13;
  for (int prefixes = 0; prefixes <= kMostPrefixes; prefixes++) {
    if (!is_return_address(rip + static_cast<uint64_t>(prefixes) + 2)) continue;
    uint8_t code[kMostPrefixes + 1];
    if (!copy_in(code, rip, static_cast<size_t>(prefixes) + 1)) return 0;
    bool leads = code[prefixes] == kTrap;
    for (int i = 0; i < prefixes; i++) leads &= is_prefix(code[i]);
    if (leads) return prefixes + 2;
  }
  return 0;
}

enum class Fault { answered, edited, not_ours };

Fault on_fault(siginfo_t* info, ucontext_t* context) noexcept {
  greg_t* registers = context->uc_mcontext.gregs;
  const uint64_t rip = static_cast<uint64_t>(registers[REG_RIP]);
  const uint64_t rsp = static_cast<uint64_t>(registers[REG_RSP]);
  const bool fetched = info->si_code == SI_KERNEL;  // its bytes, then, can be looked at
  if (const int bytes = fetched ? trap_bytes(rip) : 0; bytes != 0) {
    enter_trapped(context, rip + static_cast<uint64_t>(bytes));
    return Fault::answered;
  }
  if (fetched && answer_missing_stack(context)) return Fault::answered;
  if (is_return_address(rip + 2)) {  // the call itself faulted: its target is no canonical address (or its stack is gone)
    const int64_t number = registers[REG_RAX];
    if (number << 16 >> 16 == number) return Fault::not_ours;
    answer_odd_number(registers, rip + 2, rsp);
    return Fault::answered;
  }
  if (!page_zero_is_ours) return Fault::not_ours;
  const bool in_null_call = rip == reinterpret_cast<uint64_t>(zps_null_call) || (rip >= kLandingPage && rip < kDispatchTable);
  const bool in_landing_zone = (rip >= ZPS_NR_COUNT && rip < kPageBytes) || (rip >= kFreeNumbersBegin && rip < kFreeNumbersEnd);
  if (!in_null_call && !in_landing_zone && rip != static_cast<uint64_t>(registers[REG_RAX])) return Fault::not_ours;
  uint64_t return_address = 0;
  let_trap(SIGSEGV, 0);
  const bool readable = peek(rsp, &return_address, sizeof return_address);
  if (!in_null_call && readable && is_return_address(return_address)) {
    if (rip != static_cast<uint64_t>(registers[REG_RAX])) registers[REG_RAX] = ZPS_NR_COUNT;  // an exit's inner byte ate it
    answer_odd_number(registers, return_address, rsp + 8);
    return Fault::answered;
  }
  if (!in_null_call && !in_landing_zone) return Fault::not_ours;
  const uint64_t target = in_landing_zone ? rip : readable ? called_address(registers, return_address) : 0;
  registers[REG_RIP] = static_cast<greg_t>(target);
  info->si_code = SEGV_MAPERR;
  info->si_addr = reinterpret_cast<void*>(target);
  return Fault::edited;
}

// A handler, and an unwinder that it starts, sees the program's own code, not a stub.
void leave_stub(ucontext_t* context) noexcept {
  greg_t* registers = context->uc_mcontext.gregs;
  StubRegisters seen{static_cast<uint64_t>(registers[REG_RIP]), static_cast<uint64_t>(registers[REG_RSP]),
                     static_cast<uint64_t>(registers[REG_RAX]), static_cast<uint64_t>(registers[REG_EFL])};
  if (!step_out_of_stub(seen)) return;
  registers[REG_RIP] = static_cast<greg_t>(seen.rip);
  registers[REG_RSP] = static_cast<greg_t>(seen.rsp);
  registers[REG_EFL] = static_cast<greg_t>(seen.flags);
}

// A bad pointer in the hook's or the engine's copy to or from the program's memory: the copy ends with -EFAULT.
bool resume_copy(ThreadState& thread, ucontext_t* context) noexcept {
  greg_t& rip = context->uc_mcontext.gregs[REG_RIP];
  const uint64_t at = static_cast<uint64_t>(rip);
  if (at >= reinterpret_cast<uint64_t>(zps_engine_copy_begin) && at < reinterpret_cast<uint64_t>(zps_engine_copy_end)) {
    rip = reinterpret_cast<greg_t>(zps_engine_copy_fault);
  } else if (thread.words.inside != 0 && at >= hook.fault_begin && at < hook.fault_end) {
    rip = static_cast<greg_t>(hook.fault_resume);
  } else {
    return false;
  }
  // What interrupted this very handler took its mask for the program's.
  if (thread.words.signals_pending && !blocks_all(*mask_of(context))) thread.mask_to_restore = *mask_of(context) & ~kNeverBlocked;
  return true;
}

[[nodiscard]] bool is_own_fault(int number, const siginfo_t* info) noexcept { return info->si_code > 0 && (kFaults >> (number - 1) & 1); }

// The end of on_signal() for `number` where it has answered itself what came. A filter may make a kill of the usual one.
void go_on(int number, ucontext_t* context) noexcept {
  if (!is_deadly(SYS_rt_sigreturn)) return;
  if (kernel_view(number, actions[number]).mask & ~*mask_of(context)) change_kernel_mask(SIG_SETMASK, *mask_of(context));
  if (static_program) leave_interrupted();
  zps_resume(context);
}

Action take_action(int number) noexcept {
  Action action = actions[number];
  if ((action.flags & kResetHand) && has_handler(action)) {
    actions[number].handler = kDefault;
    const Action seen = kernel_view(number, actions[number]);
    (void)kernel_sigaction(number, &seen, nullptr);
  }
  return action;
}

// One that interrupts this one in the middle counts first and is overwritten by it: the one below was delivered first.
void count_handler(zps_thread& words, bool restarts) noexcept {
  const uint32_t number = words.handlers_run;
  const uint64_t bit = uint64_t{1} << (number % 64);
  words.restarts = restarts ? words.restarts | bit : words.restarts & ~bit;
  words.handlers_run = number + 1;
}

// The program's handler, in its own view of the mask.
void run_handler(ThreadState& thread, int number, const Action& action, siginfo_t* info, ucontext_t* context) noexcept {
  const auto handler = reinterpret_cast<Handler>(action.handler);
  uint64_t* mask = mask_of(context);
  const uint64_t blocked = *mask & kNeverBlocked;  // by the kernel: this interrupted an on_signal() of theirs
  *mask = (*mask & ~kNeverBlocked) | thread.hidden_mask;
  thread.hidden_mask |= (action.mask | (action.flags & SA_NODEFER ? 0 : signal_bit(number))) & kNeverBlocked;
  let_trap(number, blocked);
  {
    const ProgramContext shown(thread, context, is_own_fault(number, info));
    call_handler(handler, number, info, context);
  }
  const uint64_t hidden = *mask & kNeverBlocked;
  *mask = (*mask & ~kNeverBlocked) | blocked;
  ThreadState& now = this_thread();
  // What is held or comes now is delivered when this handler's frame is gone: sigreturn unblocks it.
  if (signal_bit(number) & blocked_by_kernel() || now.held & ~hidden) change_kernel_mask(SIG_SETMASK, ~uint64_t{0});
  believe(now, hidden);
}

}  // namespace

void on_signal(int number, siginfo_t* info, void* opaque) noexcept {
  ThreadState& thread = this_thread();
  auto* context = static_cast<ucontext_t*>(opaque);
  if (number != SIGTRAP) {  // stepping through one would begin anew for ever
    leave_own_entry(context);
    leave_stub(context);
  }
  const bool own_fault = is_own_fault(number, info);
  bool edited = false;
  if (answer_word(number, info)) return;
  if (own_fault && resume_copy(thread, context)) return go_on(number, context);
  if (answer_dispatch(number, info, context)) return go_on(number, context);
  if (own_fault && number == SIGSEGV) {
    const Fault fault = on_fault(info, context);
    if (fault == Fault::answered) return go_on(number, context);
    edited = fault == Fault::edited;
  }
  const bool guest = is_guest(thread);
  const bool in_hook = thread.words.inside != 0 || thread.words.signals_pending != 0;  // or on the last steps out of it
  if (in_hook && !own_fault && !guest) return put_off(thread, number, info, context);

  const uint64_t rip = static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]);
  if (rip > reinterpret_cast<uint64_t>(zps_sleep_begin) && rip < reinterpret_cast<uint64_t>(zps_sleep_end)) {
    context->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(zps_sleep_interrupted);
  }
  const bool blocked = !guest && (thread.hidden_mask & signal_bit(number)) != 0;
  if (blocked && own_fault) return die_of(number, info, !edited);
  if (blocked) return hold(thread, number, info);
  const Action action = take_action(number);
  if (action.handler == kIgnore && !own_fault) return;
  if (!has_handler(action)) return die_of(number, info, own_fault && !edited && number != SIGSYS);
  if (guest) {
    let_trap(number, *mask_of(context));
    return call_handler(reinterpret_cast<Handler>(action.handler), number, info, opaque);
  }
  count_handler(thread.words, (action.flags & SA_RESTART) != 0);
  run_handler(thread, number, action, info, context);
}

namespace {

class Locked {
 public:
  Locked() noexcept {
    while (lock.exchange(1, std::memory_order_acquire) != 0) __builtin_ia32_pause();
  }
  ~Locked() { lock.store(0, std::memory_order_release); }
};

int64_t set_action(int number, Action wanted) noexcept {
  wanted.flags &= kKnownFlags;
  wanted.mask &= ~kUnblockable;
  const Action old = actions[number];
  const Action seen = kernel_view(number, wanted);
  actions[number] = wanted;  // first: the signal may come as soon as the kernel knows
  const long result = kernel_sigaction(number, &seen, nullptr);
  if (result < 0) actions[number] = old;
  return result;
}

// A vfork child has dispositions of its own but shares `actions` with its parent: it goes to the kernel unwrapped.
int64_t vfork_child_sigaction(zps_call* call) noexcept {
  const int number = static_cast<int>(call->arg[0]);
  if (is_needed(number)) {  // by the engine here too; the next program starts with the default anyway
    return call->arg[2] == 0 || poke(static_cast<uint64_t>(call->arg[2]), &actions[number], sizeof(Action)) ? 0 : -EFAULT;
  }
  const int64_t result = base::kernel_call(call->nr, call->arg[0], call->arg[1], call->arg[2], call->arg[3]);
  Action old;
  if (result < 0 || call->arg[2] == 0 || !peek(static_cast<uint64_t>(call->arg[2]), &old, sizeof old)) return result;
  if (old.handler == kernel_handler())
    (void)poke(static_cast<uint64_t>(call->arg[2]), &actions[number], sizeof(Action));
  return result;
}

}  // namespace

void reset_signal_lock() noexcept {
  if (lock.load(std::memory_order_relaxed) != 0) lock.store(0, std::memory_order_release);
}

void take_over_signals() noexcept {
  for (int number = 1; number <= kSignals; number++) {
    if (number == SIGKILL || number == SIGSTOP) continue;
    (void)kernel_sigaction(number, nullptr, &actions[number]);
    if (has_handler(actions[number]) || is_needed(number)) {
      const Action seen = kernel_view(number, actions[number]);
      (void)kernel_sigaction(number, &seen, nullptr);
    }
  }
  take_over_mask();  // what waits behind it comes now
}

// flush_signal_handlers() of Linux: what is ignored stays so, without its flags.
void forget_handlers(bool own_memory) noexcept {
  for (int number = 1; number <= kSignals; number++) {
    if (number == SIGKILL || number == SIGSTOP) continue;
    const Action action{actions[number].handler == kIgnore ? kIgnore : kDefault, 0, 0, 0};
    if (own_memory) actions[number] = action;
    if (!is_needed(number)) continue;
    const Action seen = kernel_view(number, action);
    (void)kernel_sigaction(number, &seen, nullptr);
  }
}

void expect_seccomp() noexcept {
  Locked locked;
  boxed = true;
  for (const int number : {SIGSEGV, SIGSYS}) {
    const Action seen = kernel_view(number, actions[number]);
    (void)kernel_sigaction(number, &seen, nullptr);
  }
}

void give_signals_back() noexcept {
  give_mask_back();
  for (int number = 1; number <= kSignals; number++) {
    if (is_needed(number) && actions[number].handler == kIgnore) (void)kernel_sigaction(number, &actions[number], nullptr);
  }
}

void take_signals_again() noexcept {
  for (int number = 1; number <= kSignals; number++) {
    if (!is_needed(number) || actions[number].handler != kIgnore) continue;
    const Action seen = kernel_view(number, actions[number]);
    (void)kernel_sigaction(number, &seen, nullptr);
  }
  change_kernel_mask(SIG_UNBLOCK, kNeverBlocked);
}

int64_t program_sigaction(zps_call* call) noexcept {
  const auto number = static_cast<uint64_t>(static_cast<uint32_t>(call->arg[0]));
  const bool strange = number < 1 || number > kSignals || number == SIGKILL || number == SIGSTOP || call->arg[3] != sizeof(uint64_t);
  if (strange) return base::kernel_call(call->nr, call->arg[0], call->arg[1], call->arg[2], call->arg[3]);
  if (this_thread().words.vfork_child) return vfork_child_sigaction(call);
  Action wanted;
  if (call->arg[1] != 0 && !peek(static_cast<uint64_t>(call->arg[1]), &wanted, sizeof wanted)) return -EFAULT;
  Action old;
  int64_t result = 0;
  {
    Locked locked;
    old = actions[number];
    if (call->arg[1] != 0) result = set_action(static_cast<int>(number), wanted);
  }
  if (result < 0) return result;
  if (call->arg[2] != 0 && !poke(static_cast<uint64_t>(call->arg[2]), &old, sizeof old)) return -EFAULT;
  return 0;
}

}  // namespace zpoline

extern "C" void zps_leave() noexcept {
  zpoline::ThreadState& thread = zpoline::this_thread();
  zpoline::leave_hook(thread);
  if (thread.words.signals_pending == 0) return;
  const uint64_t mask = thread.mask_to_restore;
  thread.words.signals_pending = 0;
  if (thread.held & ~thread.hidden_mask) {  // sent again now, delivered with the program's mask
    zpoline::change_kernel_mask(SIG_SETMASK, ~uint64_t{0});
    zpoline::believe(thread, thread.hidden_mask);
  }
  zpoline::change_kernel_mask(SIG_SETMASK, mask);
}
