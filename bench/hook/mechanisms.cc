// Set-up of the kernel's own interception mechanisms.
// SPDX-License-Identifier: BSD-3-Clause
#include "bench/hook/mechanisms.h"

#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

namespace bench {
namespace {

volatile char selector = 0;  // SYSCALL_DISPATCH_FILTER_ALLOW

void answer_dispatch(int, siginfo_t*, void* context) {
  // The selector blocks the handler's own return too, so it is opened for the way back and closed by the loop that measures.
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = 42;
  selector = 0;
}

void answer_breakpoint(int, siginfo_t*, void* context) { static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = 42; }

bool install(int signal, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  return sigaction(signal, &action, nullptr) == 0;
}

}  // namespace

bool arm_user_dispatch() { return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector) == 0; }

bool trap_user_dispatch() { return install(SIGSYS, answer_dispatch) && arm_user_dispatch(); }

bool trap_breakpoint() { return install(SIGTRAP, answer_breakpoint); }

bool trace_by_parent() {
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(1);
    raise(SIGSTOP);
    return true;
  }
  int status = 0;
  while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
    if (ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0) break;
  }
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

void breakpoint_call() { asm volatile("int3" ::: "rax", "memory"); }

void close_selector() { selector = 1; }

}  // namespace bench
