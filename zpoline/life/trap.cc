// Syscall User Dispatch: system calls of code that nobody rewrote, caught by the kernel and sent to the engine's entry.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. The kernel can send a thread SIGSYS instead of making its system call. The natural thing, to serve the call in the signal
// handler, is wrong in many small ways: masks, alternate stacks, sleeps, siglongjmp, fork and sigreturn all see the handler's frame.
//
// How. The handler serves nothing. It edits the context it was given so that sigreturn "returns" into an entry of entry.S, with the
// return address in rcx and every other register, the stack pointer and the flags as the program had them. From there on a
// trapped call is like any other: same frames, same claims, same signals. The price is the signal alone.
//
// Whose calls trap. The kernel asks two things per call: is the instruction in the free range, and else, what does this thread's selector
// byte say. The free range holds the text of libzpstack.so (every kernel call of the engine, those that it makes for the program included).
// The selector is beside ThreadState::inside and says the opposite: 0, allow, while the hook runs, so that its libraries, its libc and
// what it needs of ld.so are free; 1, trap, while the program runs. A range alone cannot do it: what belongs to the hook lies in several
// mappings among the program's. Threads that the hook makes for itself are never armed.
//
// How far the free range goes. In mode sud it is that text alone. In the others no thread is armed until the program makes code
// that no proof covers (made_code.cc); then the range is as wide as it can be without that code, and becomes narrower with more of it. It
// does not grow again: what is mapped at the same place later traps without need, but a thread is armed rarely. As mmap gives lower and
// lower addresses, it ends at the lowest text above the made code, and most code that is made later needs nothing.
//
// Threads that exist already arm themselves in a handler: the engine sends each of them SIGSEGV, which nobody can block here, and then lets
// membarrier() interrupt those that run. A call that such a thread sleeps in goes on as after any handler with SA_RESTART. It is not
// SIGSYS: the kernel drops a signal of which one is pending already, and the call of a thread that is armed by then would be lost with it;
// a fault comes again.
//
// So there are two ranges: the one that a thread is armed with next, and the one that every thread is armed with. Only the second answers
// whether a piece of code traps; it follows when all have been told, and `arming` lets one thread at a time do that. Whoever forks, or
// begins, in between finds `dispatching` set and arms itself, with the range as it was or as it will be; a child whose second range lags
// behind arms again when it has to.
//
// The kernel clears dispatch in every new thread, process and program; arm_thread() is part of each clone (clone.cc), before the
// child runs anything of the program.
//
// `int $0x80` traps as well. Its registers leave no room for a return address, so it is made here, in the handler.
//
// Known limits: a trapped call needs stack for a signal frame (3-4 KB), or an alternate stack, which no two threads share
// (signal_stacks.cc); a call whose stack pointer is invalid and that has none ends the process. A seccomp filter that refuses prctl(), or
// kills for it, leaves threads made after it undispatched. poll, select, epoll_wait, nanosleep end with EINTR in a thread that is armed
// while it sleeps there (signal(7) names them all).
//
// Sources: Documentation/admin-guide/syscall-user-dispatch.rst; Linux kernel/entry/syscall_user_dispatch.c.
#include "zpoline/life/trap.h"

#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#include "base/log.h"
#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/kernel_lock.h"
#include "zpoline/life/masks.h"
#include "zpoline/life/own_stack.h"
#include "zpoline/life/seccomp_filter.h"
#include "zpoline/sites/maps.h"
#include "zpoline/sites/rewriter.h"

namespace zpoline {
namespace {

constexpr long kSetDispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH
constexpr long kAllBut = 1;        // PR_SYS_DISPATCH_ON: the given range is free
constexpr int kByDispatch = 2;     // si_code SYS_USER_DISPATCH
constexpr uint32_t kArchI386 = 0x40000003;
constexpr long kInterruptOthers = 1 << 3;     // MEMBARRIER_CMD_PRIVATE_EXPEDITED
constexpr long kMayInterruptOthers = 1 << 4;  // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED

Range own_text;  // the engine's
// The free range that a thread arms itself with: it only becomes narrower, so that any two values of these go together.
std::atomic<uint64_t> free_begin{0};
std::atomic<uint64_t> free_end{uint64_t{1} << 56};
std::atomic<uint32_t> generation{0};  // changes with them
// The one that every thread is armed with, or a narrower one.
std::atomic<uint64_t> armed_begin{0};
std::atomic<uint64_t> armed_end{uint64_t{1} << 56};
std::atomic<uint32_t> arming{0};
std::atomic<bool> dispatching{false};
bool everything = false;           // mode sud
std::atomic<bool> stopped{false};  // no thread that is not armed is armed any more

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
  // Inside it is 0 or about to be; or, on the way out, 1 already.
  if (thread.words.inside == 0) thread.words.selector = 1;
  thread.armed = generation.load();
  const uint64_t begin = free_begin.load();
  return base::kernel_call(SYS_prctl, kSetDispatch, kAllBut, static_cast<long>(begin), static_cast<long>(free_end.load() - begin),
                           base::as_arg(&thread.words.selector));
}

// The word to a thread of the program to arm itself. Its siginfo may have been lost: the queue was full, or such a signal waited already.
constexpr int kWord = SIGSEGV;
struct ArmingWord {
  int signo = kWord;
  int error = 0;
  int code = SI_QUEUE;
  int padding = 0;
  int pid = 0;
  int uid = 0;
  const void* value = &generation;
  uint8_t unused[96] = {};
};
static_assert(sizeof(ArmingWord) == sizeof(siginfo_t) && offsetof(ArmingWord, value) == offsetof(siginfo_t, si_value));

[[nodiscard]] bool is_arming_word(const siginfo_t* info, bool late) noexcept {
  const bool lost = late && info->si_code == SI_USER && info->si_pid == 0;
  return lost || (info->si_code == SI_QUEUE && info->si_value.sival_ptr == &generation);
}

struct DirectoryEntry {
  uint64_t inode;
  uint64_t next;
  uint16_t bytes;
  uint8_t type;
  char name[];
};

// 0 for "." and "..".
long number_of(const DirectoryEntry& entry) noexcept {
  long number = 0;
  for (const char* digit = entry.name; *digit >= '0' && *digit <= '9'; digit++) number = number * 10 + *digit - '0';
  return number;
}

// Sends the word to every thread that `tasks` (/proc/self/task) lists but this one. False if there may be some that it does not list: the
// kernel goes from each thread to the next, and loses its way where one ends before it has gone on.
bool send_to_all(long tasks) noexcept {
  const long process = base::kernel_call(SYS_getpid);
  const long self = base::kernel_call(SYS_gettid);
  ArmingWord word;
  word.pid = static_cast<int>(process);
  alignas(8) char entries[4096];
  const auto lives = [process](long thread) { return base::kernel_call(SYS_tgkill, process, thread, 0) == 0; };
  for (long last = self;;) {
    const long bytes = base::kernel_call(SYS_getdents64, tasks, base::as_arg(entries), sizeof entries);
    if (!lives(last)) return false;  // after which the next piece begins
    if (bytes <= 0) return true;
    const auto* entry = reinterpret_cast<const DirectoryEntry*>(entries);
    for (long at = entry->bytes; at < bytes; at += entry->bytes) entry = reinterpret_cast<const DirectoryEntry*>(entries + at);
    last = number_of(*entry);
    if (!lives(last)) return false;  // with which this piece ends
    for (long at = 0; at < bytes; at += entry->bytes) {
      entry = reinterpret_cast<const DirectoryEntry*>(entries + at);
      const long thread = number_of(*entry);
      if (thread != self && thread != 0) (void)base::kernel_call(SYS_rt_tgsigqueueinfo, process, thread, kWord, base::as_arg(&word));
    }
    constexpr long kLargestEntry = 32;
    if (bytes + kLargestEntry <= static_cast<long>(sizeof entries)) return true;
  }
}

// False if the kernel does not tell who they are.
bool reach_others() noexcept {
  const long tasks = base::kernel_call(SYS_openat, AT_FDCWD, base::as_arg("/proc/self/task"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (tasks < 0) return false;
  struct stat now {};
  const bool alone = base::kernel_call(SYS_fstat, tasks, base::as_arg(&now)) == 0 && now.st_nlink == 3;  // ".", ".." and this thread
  for (int attempt = 0; !alone && attempt < 100 && !send_to_all(tasks); attempt++) (void)base::kernel_call(SYS_lseek, tasks, 0, SEEK_SET);
  (void)base::kernel_call(SYS_close, tasks);
  if (alone) return true;
  (void)base::kernel_call(SYS_membarrier, kInterruptOthers);
  return true;
}

// Makes the free range so narrow that it has no part in the code.
void set_free(uint64_t code_begin, uint64_t code_end) noexcept {
  if (code_begin >= own_text.end) {
    if (code_begin < free_end.load()) free_end = code_begin;
  } else {
    const uint64_t begin = first_text_above(code_end, own_text.begin);
    if (begin > free_begin.load()) free_begin = begin;
  }
  generation++;
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

void prepare_dispatch() noexcept {
  (void)dl_iterate_phdr(find_text, &own_text);
  (void)base::kernel_call(SYS_membarrier, kMayInterruptOthers);  // a process with threads would wait for all processors
}

base::Result<bool> dispatch_everything() noexcept {
  everything = true;
  armed_begin = free_begin = own_text.begin;
  armed_end = free_end = own_text.end;
  dispatching = true;
  const long result = arm();
  if (result == 0) return true;
  dispatching = false;
  return base::make_error("the kernel has no Syscall User Dispatch (error %ld): it takes Linux 5.11", -result);
}

bool dispatch_also(uint64_t begin, uint64_t end) noexcept {
  if (begin < own_text.end && end > own_text.begin) return false;  // our own
  long result = 0;
  bool reached = true;
  {
    const KernelLock locked(arming);
    if (stopped) return false;
    if (is_dispatched(begin, end)) return is_dispatching();
    const bool first = !dispatching.exchange(true);  // before the range changes: who is made, or forks, from here on arms itself
    set_free(begin, end);
    result = arm();
    if (result == 0) reached = reach_others();
    else if (first) dispatching = false;
    armed_begin = free_begin.load();
    armed_end = free_end.load();
  }
  base::log(base::LogLevel::debug, "code at 0x%llx-0x%llx is not known: its system calls trap (%ld)",
            static_cast<unsigned long long>(begin), static_cast<unsigned long long>(end), result);
  if (!reached) base::log(base::LogLevel::debug, "/proc/self/task cannot be read: other threads' unknown calls go to the kernel");
  return result == 0;
}

bool is_dispatched(uint64_t begin, uint64_t end) noexcept { return end <= armed_begin.load() || begin >= armed_end.load(); }

bool cuts_off_libc(uint64_t begin, uint64_t end) noexcept {
  const auto libc = reinterpret_cast<uint64_t>(&__errno_location);
  if (libc < armed_begin.load() || libc >= armed_end.load()) return false;  // it is already
  return end <= own_text.begin ? libc < begin : libc >= end;
}

void stop_dispatching_others() noexcept {
  const KernelLock locked(arming);
  stopped = !everything;
}

void reset_arming_lock() noexcept {
  if (arming != 0) arming = 0;
}

bool is_dispatching() noexcept { return dispatching; }

void arm_thread() noexcept {
  if (!dispatching || stopped || (!is_deadly(SYS_prctl) && arm() == 0) || is_deadly(SYS_write)) return;
  base::log(base::LogLevel::warn, "a new thread cannot be dispatched: its unknown calls go to the kernel");
}

void enter_trapped(ucontext_t* context, uint64_t return_address) noexcept {
  if (has_small_stack(return_address)) return enter_own_stack(context, return_address);
  greg_t* registers = context->uc_mcontext.gregs;
  const int64_t nr = registers[REG_RAX];
  const void* entry = nr >= 0 && nr < ZPS_NR_COUNT ? near_entry(nr) : nullptr;
  const void* way = entry == zps_exit_near   ? (static_program ? zps_exit_static : entry)
                    : entry != nullptr       ? (static_program ? zps_static : zps_trapped)
                    : nr == SYS_rt_sigreturn ? zps_sigreturn_trapped
                                             : zps_pass_trapped;
  registers[REG_RIP] = reinterpret_cast<greg_t>(way);
  registers[REG_RCX] = static_cast<greg_t>(return_address);
  registers[REG_R11] = reinterpret_cast<greg_t>(entry);
  constexpr greg_t kResume = 0x10000;  // RF, which a fault sets
  registers[REG_EFL] &= ~kResume;
}

bool answer_word(int number, const siginfo_t* info) noexcept {
  if (number != kWord) return false;
  ThreadState& thread = this_thread();
  const bool late = dispatching && !stopped && thread.of_program != 0 && thread.armed != generation.load() && !is_guest(thread);
  if (late) (void)arm();  // whatever came: a fault that was on its way swallows the word
  return is_arming_word(info, late);
}

bool answer_dispatch(int number, const siginfo_t* info, ucontext_t* context) noexcept {
  if (number != SIGSYS || info->si_code != kByDispatch) return false;
  __atomic_add_fetch(&counts.dispatched, 1, __ATOMIC_RELAXED);
  if (info->si_arch == kArchI386) {
    change_kernel_mask(SIG_UNBLOCK, signal_bit(SIGSYS));  // the call may be refused by a SIGSYS in turn, or be an exec
    make_i386_call(context->uc_mcontext.gregs);
  } else {
    enter_trapped(context, static_cast<uint64_t>(context->uc_mcontext.gregs[REG_RIP]));
  }
  return true;
}

}  // namespace zpoline
