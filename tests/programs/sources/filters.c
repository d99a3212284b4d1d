// Programs that shut themselves in: seccomp's strict mode, filters that allow little, kill or return an error, and prctl's locks.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char* text) {
  const ssize_t written = write(1, text, strlen(text));
  (void)written;
}

static void on_trap(int number, siginfo_t* info, void* context) {
  (void)number;
  (void)context;
  say(info->si_syscall == SYS_getppid ? "trapped getppid\n" : "trapped something else\n");
}

static scmp_filter_ctx deny_by(uint32_t action) {
  scmp_filter_ctx filter = seccomp_init(action);
  static const int kAllowed[] = {SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit)};
  for (unsigned i = 0; i < sizeof kAllowed / sizeof *kAllowed; i++) seccomp_rule_add(filter, SCMP_ACT_ALLOW, kAllowed[i], 0);
  return filter;
}

static void strict(void) {
  prctl(PR_SET_SECCOMP, 1);
  say("strict: still writing\n");
  syscall(SYS_exit, 11);
}
static void strict_break(void) {
  prctl(PR_SET_SECCOMP, 1);
  syscall(SYS_getppid);
  say("not reached\n");
}
static void few(void) {
  char byte;
  int ends[2];
  if (pipe(ends) != 0 || write(ends[1], "x", 1) != 1) exit(1);
  seccomp_load(deny_by(SCMP_ACT_KILL_PROCESS));
  const ssize_t length = read(ends[0], &byte, 1);
  say(length == 1 ? "few: one byte\n" : "few: nothing\n");
  _exit(12);
}
static void few_break(void) {
  seccomp_load(deny_by(SCMP_ACT_KILL_PROCESS));
  (void)socket(AF_INET, SOCK_STREAM, 0);
  say("not reached\n");
}
static void refuse(void) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 0);
  seccomp_rule_add(filter, SCMP_ACT_ERRNO(EXDEV), SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
  seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  seccomp_load(filter);
  const int made = socket(AF_INET, SOCK_STREAM, 0);
  printf("socket %d %s\n", made, strerror(errno));
  void* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const int changed = mprotect(page, 4096, PROT_READ | PROT_EXEC);
  printf("mprotect %d %s\n", changed, strerror(errno));
  printf("system %d\n", system("echo in the box"));
  fflush(stdout);
  _exit(13);
}
static void trap(void) {
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGSYS, &action, NULL);
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  seccomp_rule_add(filter, SCMP_ACT_TRAP, SCMP_SYS(getppid), 0);
  seccomp_load(filter);
  syscall(SYS_getppid);
  _exit(14);
}
static void write_xor_execute(void) {
  prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0);
  void* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  printf("mmap %s\n", page == MAP_FAILED ? strerror(errno) : "allowed");
  printf("system %d\n", system("echo from a child"));
  fflush(stdout);
  _exit(15);
}
static void locked(void) {
  printf("mlockall %d\n", mlockall(MCL_CURRENT | MCL_FUTURE));
  void* page = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(page, 1, 1 << 20);
  printf("munlockall %d\n", munlockall());
  fflush(stdout);
  _exit(16);
}
static void no_new_privileges(void) {
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  printf("%d %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), system("grep -c 'NoNewPrivs:.1' /proc/self/status"));
  fflush(stdout);
  _exit(17);
}
static void small_space(void) {
  const struct rlimit limit = {64 << 20, 64 << 20};
  printf("setrlimit %d\n", setrlimit(RLIMIT_AS, &limit));
  printf("mmap %s\n", mmap(NULL, 256 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? strerror(errno) : "allowed");
  fflush(stdout);
  _exit(18);
}

static const struct {
  const char* name;
  void (*run)(void);
} kBoxes[] = {{"strict", strict},
              {"strict, broken", strict_break},
              {"few", few},
              {"few, broken", few_break},
              {"refuse", refuse},
              {"trap", trap},
              {"write xor execute", write_xor_execute},
              {"locked", locked},
              {"no new privileges", no_new_privileges},
              {"small space", small_space}};

// Runs the boxes that are named, one process each.
int main(int count, char** words) {
  for (unsigned i = 0; i < sizeof kBoxes / sizeof *kBoxes; i++) {
    int wanted = 0;
    for (int word = 1; word < count; word++) wanted |= strcmp(words[word], kBoxes[i].name) == 0;
    if (!wanted) continue;
    printf("-- %s\n", kBoxes[i].name);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      kBoxes[i].run();
      _exit(99);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("exit %d signal %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  }
  return 0;
}
