// Syscall User Dispatch: system calls of code that nobody rewrote, caught by the kernel and sent to the engine's entry.
//
// The problem. The kernel can send a thread SIGSYS instead of making its system call. The natural thing, to serve the call in the signal
// handler, is wrong in many small ways: masks, alternate stacks, sleeps, siglongjmp, fork and sigreturn all see the handler's frame.
//
// How. The handler serves nothing. It edits the context it was given so that sigreturn "returns" into an entry of entry.S, with the
// return address in rcx and every other register, the stack pointer and the flags as the program had them. From there on a
// trapped call is like any other: same frames, same claims, same signals. The price is the signal alone.
//
// Whose calls trap. The kernel asks two things per call: is the instruction in the allowed range, and else, what does this thread's selector byte
// say. The range is the text of libzpstack.so (every kernel call of the engine, those that it makes for the program included). The
// selector is beside ThreadState::inside and says the opposite: 0, allow, while the hook runs, so that its libraries, its libc and
// what it needs of ld.so are free; 1, trap, while the program runs. A range alone cannot do it: what belongs to the hook lies in several
// mappings among the program's. Threads that the hook makes for itself are never armed.
//
// The kernel clears dispatch in every new thread, process and program; arm_thread() is part of each clone (clone.cc), before the
// child runs anything of the program.
//
// `int $0x80` traps as well. Its registers leave no room for a return address, so it is made here, in the handler.
//
// Known limits: a trapped call needs stack for a signal frame (3-4 KB), or an alternate stack; a call whose stack pointer is invalid and
// that has none ends the process. A seccomp filter that refuses prctl() leaves threads made after it undispatched.
//
// Sources: Documentation/admin-guide/syscall-user-dispatch.rst; Linux kernel/entry/syscall_user_dispatch.c.
#include "zpoline/trap.h"

#include <link.h>

#include <cstddef>

#include "base/log.h"
#include "base/syscall.h"
#include "zpoline/engine.h"

namespace zpoline {
namespace {

constexpr long kSetDispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH
constexpr long kAllBut = 1;        // PR_SYS_DISPATCH_ON: the given range is free
constexpr int kByDispatch = 2;     // si_code SYS_USER_DISPATCH
constexpr uint32_t kArchI386 = 0x40000003;

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
};
Range free_range;  // the engine's text
bool dispatching = false;

int find_text(dl_phdr_info* object, size_t, void* context) noexcept {
  const auto inside = reinterpret_cast<uint64_t>(zps_pass);
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    const uint64_t begin = object->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || inside < begin || inside >= begin + segment.p_memsz) continue;
    *static_cast<Range*>(context) = {begin, begin + segment.p_memsz};
    return 1;
  }
  return 0;
}

long arm() noexcept {
  ThreadState& thread = this_thread();
  thread.selector = thread.words.inside == 0;
  return base::kernel_call(SYS_prctl, kSetDispatch, kAllBut, static_cast<long>(free_range.begin),
                           static_cast<long>(free_range.end - free_range.begin), base::as_arg(&thread.selector));
}

// A 32-bit call, with the registers of the context; all of them survive but eax.
void make_i386_call(greg_t* registers) noexcept {
  int64_t result = registers[REG_RAX];
  int64_t sixth = registers[REG_RBP];
  asm volatile(
      "xchg %%rbp, %[sixth]\n"
      "int $0x80\n"
      "xchg %%rbp, %[sixth]\n"
      : "+a"(result), [sixth] "+r"(sixth)
      : "b"(registers[REG_RBX]), "c"(registers[REG_RCX]), "d"(registers[REG_RDX]), "S"(registers[REG_RSI]), "D"(registers[REG_RDI])
      : "memory", "r8", "r9", "r10", "r11");
  registers[REG_RAX] = result;
}

}  // namespace

base::Result<bool> dispatch_everything() noexcept {
  (void)dl_iterate_phdr(find_text, &free_range);
  dispatching = true;
  const long result = arm();
  if (result == 0) return true;
  dispatching = false;
  return base::make_error("the kernel has no Syscall User Dispatch (error %ld): it takes Linux 5.11", -result);
}

bool is_dispatching() noexcept { return dispatching; }

void arm_thread() noexcept {
  if (dispatching && arm() < 0) base::log(base::LogLevel::warn, "a new thread cannot be dispatched: its unknown calls go to the kernel");
}

void enter_trapped(ucontext_t* context, uint64_t return_address) noexcept {
  greg_t* registers = context->uc_mcontext.gregs;
  const int64_t nr = registers[REG_RAX];
  const void* entry = nr >= 0 && nr < ZPS_NR_COUNT ? near_entry(nr) : nullptr;
  const void* way = entry == zps_exit_near ? entry : entry != nullptr ? zps_trapped : nr == SYS_rt_sigreturn ? zps_sigreturn_trapped : zps_pass_trapped;
  registers[REG_RIP] = reinterpret_cast<greg_t>(way);
  registers[REG_RCX] = static_cast<greg_t>(return_address);
  registers[REG_R11] = reinterpret_cast<greg_t>(entry);
  constexpr greg_t kResume = 0x10000;  // RF, which a fault sets
  registers[REG_EFL] &= ~kResume;
}

bool answer_dispatch(const siginfo_t* info, ucontext_t* context) noexcept {
  if (info->si_code != kByDispatch) return false;
  __atomic_add_fetch(&counts.dispatched, 1, __ATOMIC_RELAXED);
  if (info->si_arch == kArchI386) make_i386_call(context->uc_mcontext.gregs);
  else enter_trapped(context, static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]));
  return true;
}

}  // namespace zpoline
