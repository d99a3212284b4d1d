// The signals that trapped calls arrive by, and the program's own use of them.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>

#include "tests/zpoline/hooked.h"

namespace {

volatile int ran;
volatile int code_seen;
volatile long value_seen;

void on_sigsys(int, siginfo_t* info, void*) {
  ran = ran + 1;
  code_seen = info->si_code;
  value_seen = hooked::call(SYS_getpid);
}

class OwnSigsys : public ::testing::Test {
 protected:
  void SetUp() override {
    struct sigaction action {};
    action.sa_sigaction = on_sigsys;
    action.sa_flags = SA_SIGINFO;
    ran = 0;
    ASSERT_EQ(sigaction(SIGSYS, &action, &old_), 0);
  }
  void TearDown() override { sigaction(SIGSYS, &old_, nullptr); }
  struct sigaction old_ {};
};

TEST_F(OwnSigsys, ReceivesWhatIsSent) {
  EXPECT_EQ(old_.sa_handler, SIG_DFL);
  raise(SIGSYS);
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(code_seen, SI_TKILL);
  EXPECT_EQ(value_seen, getpid());
  struct sigaction seen {};
  sigaction(SIGSYS, nullptr, &seen);
  EXPECT_EQ(seen.sa_sigaction, on_sigsys);
}

TEST_F(OwnSigsys, WaitsWhileBlocked) {
  sigset_t all, old, seen;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  raise(SIGSYS);
  EXPECT_EQ(ran, 0);
  EXPECT_EQ(hooked::call(SYS_getpid), getpid()) << "calls go on with all signals blocked";
  sigprocmask(SIG_SETMASK, nullptr, &seen);
  EXPECT_TRUE(sigismember(&seen, SIGSYS) && sigismember(&seen, SIGSEGV) && sigismember(&seen, SIGUSR1));
  sigprocmask(SIG_SETMASK, &old, &seen);
  EXPECT_EQ(ran, 1);
  EXPECT_TRUE(sigismember(&seen, SIGSYS));
  sigprocmask(SIG_SETMASK, nullptr, &seen);
  EXPECT_FALSE(sigismember(&seen, SIGSYS) || sigismember(&seen, SIGSEGV));
}

TEST_F(OwnSigsys, HearsOfSeccomp) {
  const pid_t child = fork();
  if (child == 0) {
    sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_yield, 0, 1),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | E2BIG),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog program{sizeof filter / sizeof filter[0], filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(1);
    if (hooked::call(SYS_sched_yield) != -E2BIG) _exit(2);
    (void)hooked::call(SYS_getppid);
    if (ran != 1 || code_seen != 1 /* SYS_SECCOMP */) _exit(3);
    std::thread([] { (void)hooked::call(SYS_getppid); }).join();
    _exit(ran == 2 ? 0 : 4);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// Installs a filter that allows exit_group and rt_sigreturn alone, and does `refusal` with the rest.
void allow_almost_nothing(uint32_t refusal) {
  sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
                          BPF_STMT(BPF_RET | BPF_K, refusal),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  sock_fprog program{sizeof filter / sizeof filter[0], filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(1);
}

int status_of(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(2);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

// The engine makes no call of its own on the way to a handler.
TEST(ShortLists, FaultsAndRefusalsAreHeardOf) {
  static constexpr auto leave = [](int number) { (void)hooked::call(SYS_exit_group, 40 + number); };
  static volatile int* volatile nowhere = reinterpret_cast<int*>(8);
  int status = status_of([] {
    signal(SIGSEGV, leave);
    allow_almost_nothing(SECCOMP_RET_KILL_PROCESS);
    *nowhere = 1;
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 40 + SIGSEGV) << status;
  status = status_of([] {
    signal(SIGSYS, leave);
    allow_almost_nothing(SECCOMP_RET_TRAP);
    (void)hooked::call(SYS_getppid);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 40 + SIGSYS) << status;
  status = status_of([] {
    allow_almost_nothing(SECCOMP_RET_TRAP);
    (void)hooked::call(SYS_getppid);
  });
  // Where calls trap by SIGSYS its disposition cannot be changed any more: the end is another.
  EXPECT_TRUE(WIFSIGNALED(status) && (WTERMSIG(status) == SIGSYS || hooked::mode() == "sud")) << status;
}

// What waits behind the mask goes through an exec.
TEST(FullMasks, WhatWaitsDoesNotEndTheNextProgram) {
  const int status = status_of([] {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    for (const int number : {SIGSEGV, SIGSYS, SIGUSR1}) (void)kill(getpid(), number);
    (void)execl("/bin/true", "true", nullptr);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

void handler_that_calls(int, siginfo_t*, void*) {
  ran = ran + 1;
  value_seen = hooked::call(SYS_getpid);
}

// A handler that runs under the mask of the wait, or under its own: everything is blocked, and it makes calls.
TEST(FullMasks, HandlersMakeCalls) {
  struct sigaction action {
  }, old{};
  action.sa_sigaction = handler_that_calls;
  action.sa_flags = SA_SIGINFO;
  sigfillset(&action.sa_mask);
  ASSERT_EQ(sigaction(SIGUSR1, &action, &old), 0);
  sigset_t all, others, before;
  sigfillset(&all);
  sigfillset(&others);
  sigdelset(&others, SIGUSR1);
  const timespec long_time{20, 0};
  sigprocmask(SIG_SETMASK, &all, &before);
  for (int i = 0; i < 50; i++) {
    ran = 0;
    value_seen = 0;
    raise(SIGUSR1);
    EXPECT_EQ(ran, 0);
    if (i % 3 == 0) EXPECT_EQ(sigsuspend(&others), -1);
    if (i % 3 == 1) EXPECT_EQ(ppoll(nullptr, 0, &long_time, &others), -1);
    if (i % 3 == 2) EXPECT_EQ(pselect(0, nullptr, nullptr, nullptr, &long_time, &others), -1);
    EXPECT_EQ(errno, EINTR);
    EXPECT_EQ(ran, 1);
    EXPECT_EQ(value_seen, getpid());
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST(BlockedFault, EndsTheProcess) {
  const pid_t child = fork();
  if (child == 0) {
    struct sigaction action {};
    action.sa_handler = [](int) { _exit(1); };
    sigaction(SIGSEGV, &action, nullptr);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    volatile int* nowhere = reinterpret_cast<volatile int*>(0x10000);
    *nowhere = 1;
    _exit(2);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

TEST(IgnoredSigsys, IsIgnoredByTheNextProgramToo) {
  signal(SIGSYS, SIG_IGN);
  raise(SIGSYS);
  FILE* pipe = popen("grep SigIgn /proc/self/status", "r");
  char line[100] = "";
  EXPECT_NE(fgets(line, sizeof line, pipe), nullptr);
  EXPECT_EQ(pclose(pipe), 0);
  // Its own engine, if it has one, catches what it ignores; native programs show the bit.
  if (!hooked::expected()) EXPECT_TRUE(strtoull(strchr(line, '\t'), nullptr, 16) >> (SIGSYS - 1) & 1) << line;
  signal(SIGSYS, SIG_DFL);
}

}  // namespace
