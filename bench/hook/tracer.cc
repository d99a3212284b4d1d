// Traces a process's first thread with PTRACE_SYSCALL until it ends: what a hook by ptrace costs, without doing anything.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: bench_tracer PID. Prints "attached" when it is. Ends with the process, or leaves it alone when it is itself ended.
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace {

// What the thread is given when it goes on: a signal of its own, nothing for stops that are the tracer's.
long signal_of(int status) {
  const int signal = WSTOPSIG(status);
  if (signal == (SIGTRAP | 0x80)) return 0;
  return status >> 16 == PTRACE_EVENT_STOP ? 0 : signal;
}

}  // namespace

int main(int argc, char** argv) {
  const pid_t pid = argc == 2 ? atoi(argv[1]) : 0;
  if (pid <= 0 || ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_TRACESYSGOOD) != 0 || ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0) {
    perror("bench_tracer PID");
    return 1;
  }
  printf("attached\n");
  fflush(stdout);
  int status = 0;
  while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
    if (ptrace(PTRACE_SYSCALL, pid, nullptr, signal_of(status)) != 0) break;
  }
  return 0;
}
