// Making, lending and giving back the stacks of own_stack.S, and what signal handlers see of a call that runs on one.
// SPDX-License-Identifier: BSD-3-Clause
//
// A stack is made when a thread first needs it. That is in the handler of a fault or of a trap, for nothing but that can be made without a
// stack. It is given back when the thread ends, has a page below it that faults, and takes memory only as deep as hooks go.
//
// Handlers. Go's profiler unwinds from the program counter and stack pointer that a SIGPROF interrupted, and its preemption (SIGURG) asks
// whether the counter is a place where a goroutine may be stopped. In the kernel a thread inside a system call shows the instruction behind
// it. So does the context here. A call that the handler makes on the same thread must not overwrite what the interrupted one has on the
// stack: the next one begins below. siglongjmp() out of such a handler would leave the begin there; Go's have no way to leave.
#include "zpoline/life/own_stack.h"

#include <sys/mman.h>

#include <atomic>

#include "base/log.h"
#include "base/syscall.h"

namespace zpoline {
namespace {

constexpr uint64_t kStackBytes = 256u << 10;
constexpr uint64_t kGuardBytes = 4096;
constexpr uint64_t kRedZoneBytes = 128;
constexpr greg_t kResume = 0x10000;  // RF, which a fault sets
// For a handler without SA_ONSTACK, which runs below the hook that it interrupts.
constexpr uint64_t kHandlerBytes = 64u << 10;

std::atomic<bool> refused{false};

[[nodiscard]] bool is_on(const ThreadState& thread, uint64_t rsp) noexcept {
  return thread.own_stack_low != 0 && rsp - thread.own_stack_low < kStackBytes;
}

uint64_t& word(uint64_t begin, uint64_t offset) noexcept { return *reinterpret_cast<uint64_t*>(begin + offset); }

uint64_t begin_below(uint64_t rsp) noexcept { return (rsp & ~uint64_t{63}) - ZPS_OWN_HEAD_BYTES; }

bool make_stack(ThreadState& thread) noexcept {
  if (thread.own_stack != 0) return true;
  constexpr long kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
  const long memory = base::kernel_call(SYS_mmap, 0, kStackBytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (memory < 0) {
    if (!refused.exchange(true))
      base::log(base::LogLevel::warn, "no memory for a stack (error %ld): calls of threads without one go to the kernel", -memory);
    return false;
  }
  (void)base::kernel_call(SYS_mprotect, memory, kGuardBytes, PROT_NONE);
  thread.own_stack_low = static_cast<uint64_t>(memory);
  thread.own_stack = begin_below(thread.own_stack_low + kStackBytes);
  return true;
}

[[nodiscard]] bool is_between(greg_t address, const char* begin, const char* end) noexcept {
  return address >= reinterpret_cast<greg_t>(begin) && address < reinterpret_cast<greg_t>(end);
}

}  // namespace

void enter_own_stack(ucontext_t* context, uint64_t return_address) noexcept {
  greg_t* registers = context->uc_mcontext.gregs;
  ThreadState& thread = this_thread();
  registers[REG_RCX] = static_cast<greg_t>(return_address);
  registers[REG_R11] = reinterpret_cast<greg_t>(zps_own_stack_trapped_on);
  registers[REG_EFL] &= ~kResume;
  if (!make_stack(thread)) {
    registers[REG_RIP] = reinterpret_cast<greg_t>(zps_pass_without_stack);
    return;
  }
  const char* const on = static_program ? zps_own_stack_static_on : zps_own_stack_trapped_on;
  word(thread.own_stack, ZPS_OWN_ON) = reinterpret_cast<uint64_t>(on);
  word(thread.own_stack, ZPS_OWN_PROGRAM_ON) = reinterpret_cast<uint64_t>(zps_own_stack_trapped_on);
  word(thread.own_stack, ZPS_OWN_RETURN) = return_address;
  word(thread.own_stack, ZPS_OWN_RSP) = static_cast<uint64_t>(registers[REG_RSP]);
  registers[REG_RSP] = static_cast<greg_t>(thread.own_stack);
  registers[REG_RIP] = reinterpret_cast<greg_t>(static_program ? zps_own_stack_static_trapped : zps_own_stack_trapped);
}

bool answer_missing_stack(ucontext_t* context) noexcept {
  greg_t* registers = context->uc_mcontext.gregs;
  const char* const missing = static_program ? zps_own_stack_static_missing : zps_own_stack_missing;
  if (registers[REG_RIP] != reinterpret_cast<greg_t>(missing)) return false;
  registers[REG_EFL] &= ~kResume;
  if (make_stack(this_thread())) {
    registers[REG_RIP] = reinterpret_cast<greg_t>(static_program ? zps_own_stack_static_again : zps_own_stack);
  } else {
    registers[REG_RIP] = reinterpret_cast<greg_t>(zps_pass_without_stack);
    registers[REG_RCX] = static_cast<greg_t>(word(static_cast<uint64_t>(registers[REG_R11]), static_cast<uint64_t>(-8)));
  }
  return true;
}

void free_own_stack(ThreadState& thread) noexcept {
  if (thread.own_stack_low == 0 || is_on(thread, reinterpret_cast<uint64_t>(__builtin_frame_address(0)))) return;
  const auto memory = static_cast<long>(thread.own_stack_low);
  thread.own_stack = thread.own_stack_low = 0;
  (void)base::kernel_call(SYS_munmap, memory, kStackBytes);
}

bool is_in_own_entry(const ucontext_t* context) noexcept {
  const greg_t rip = context->uc_mcontext.gregs[REG_RIP];
  if (static_program) return is_between(rip, zps_own_stack_static, zps_own_stack_static_switched);
  return is_between(rip, zps_own_stack, zps_own_stack_switched);
}

void leave_own_entry(ucontext_t* context) noexcept {
  greg_t* registers = context->uc_mcontext.gregs;
  if (is_in_own_entry(context)) registers[REG_RIP] = registers[REG_R11] - ZPS_OWN_STUB_ON;
}

ProgramContext::ProgramContext(ThreadState& thread, ucontext_t* context, bool own_fault) noexcept
    : thread_(thread), registers_(context->uc_mcontext.gregs) {
  const auto rsp = static_cast<uint64_t>(registers_[REG_RSP]);
  if (own_fault || !is_on(thread, rsp)) return;
  begin_ = thread.own_stack;
  hook_ = program_ = place();
  const char* const switched = static_program ? zps_own_stack_static_switched : zps_own_stack_switched;
  if (is_between(hook_.rip, switched, static_program ? zps_own_stack_static_missing : zps_own_stack_trapped)) {
    const bool noted = hook_.rip != reinterpret_cast<greg_t>(switched);
    program_.rip = static_cast<greg_t>(word(static_cast<uint64_t>(registers_[REG_R11]), static_cast<uint64_t>(-8)));
    program_.rsp = noted ? static_cast<greg_t>(word(begin_, ZPS_OWN_RSP)) : registers_[REG_RCX];
  } else {
    program_.rip = static_cast<greg_t>(word(begin_, ZPS_OWN_RETURN));
    program_.rsp = static_cast<greg_t>(word(begin_, ZPS_OWN_RSP));
    if (rsp < begin_) program_.rbp = static_cast<greg_t>(word(begin_, static_cast<uint64_t>(-8)));
  }
  set(program_);
  const auto here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  thread.own_stack = begin_below(is_on(thread, here) ? here - kHandlerBytes : rsp - kRedZoneBytes);
}

ProgramContext::~ProgramContext() {
  if (begin_ == 0) return;
  if (place() == program_) set(hook_);
  thread_.own_stack = begin_;
}

ProgramContext::Place ProgramContext::place() const noexcept { return {registers_[REG_RIP], registers_[REG_RSP], registers_[REG_RBP]}; }

void ProgramContext::set(const Place& place) noexcept {
  registers_[REG_RIP] = place.rip;
  registers_[REG_RSP] = place.rsp;
  registers_[REG_RBP] = place.rbp;
}

}  // namespace zpoline
