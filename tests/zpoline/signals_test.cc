// Handlers around hooked calls: put off while the hook runs, run in its sleeps, left by siglongjmp, exact in what they are told.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <thread>

#include "tests/zpoline/hooked.h"

namespace {

volatile int ran;
volatile int value;
volatile int inside_seen;
sigjmp_buf back;

void install(int number, void (*handler)(int, siginfo_t*, void*), int flags) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = flags | SA_SIGINFO;
  ASSERT_EQ(sigaction(number, &action, nullptr), 0);
}

void count(int, siginfo_t* info, void*) {
  ran = ran + 1;
  value = info->si_value.sival_int;
}

void count_and_look(int, siginfo_t*, void*) {
  ran = ran + 1;
  inside_seen = static_cast<int>(hooked::call(kProbeInside));  // a hooked call from a handler is a whole one: inside is 1 in it
}

void jump(int, siginfo_t*, void*) { siglongjmp(back, 1); }

class Signals : public ::testing::Test {
 protected:
  void SetUp() override {
    ran = 0;
    value = 0;
    inside_seen = -1;
  }
  void TearDown() override {
    for (int number : {SIGUSR1, SIGUSR2, SIGALRM}) signal(number, SIG_DFL);
  }
};

// Sends `number` to `target` once `begun` is set.
std::thread sender(pthread_t target, int number, volatile int* begun) {
  return std::thread([=] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    while (*begun == 0) sched_yield();
    pthread_sigqueue(target, number, sigval{.sival_int = 77});
  });
}

TEST_F(Signals, HandlerSeesItsInformation) {
  install(SIGUSR1, count, 0);
  sigqueue(getpid(), SIGUSR1, sigval{.sival_int = 42});
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(value, 42);
}

TEST_F(Signals, SigactionShowsWhatWasSet) {
  struct sigaction wanted {
  }, seen{};
  wanted.sa_sigaction = count;
  wanted.sa_flags = SA_SIGINFO | SA_RESTART | SA_RESETHAND | SA_NODEFER;
  sigemptyset(&wanted.sa_mask);
  sigaddset(&wanted.sa_mask, SIGUSR2);
  ASSERT_EQ(sigaction(SIGUSR1, &wanted, nullptr), 0);
  ASSERT_EQ(sigaction(SIGUSR1, nullptr, &seen), 0);
  EXPECT_EQ(seen.sa_sigaction, wanted.sa_sigaction);
  EXPECT_EQ(seen.sa_flags & ~0x04000000, wanted.sa_flags);
  EXPECT_TRUE(sigismember(&seen.sa_mask, SIGUSR2));
  raise(SIGUSR1);
  EXPECT_EQ(ran, 1);
  ASSERT_EQ(sigaction(SIGUSR1, nullptr, &seen), 0);
  EXPECT_EQ(seen.sa_handler, SIG_DFL);
  ASSERT_EQ(sigaction(SIGSEGV, nullptr, &seen), 0);
  EXPECT_EQ(seen.sa_handler, SIG_DFL);
  EXPECT_EQ(hooked::call(SYS_rt_sigaction, SIGKILL, hooked::word(&wanted), 0, 8), -EINVAL);
  EXPECT_EQ(hooked::call(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), -EFAULT);
  EXPECT_EQ(hooked::call(SYS_rt_sigaction, 65, 0, 0, 8), -EINVAL);
}

TEST_F(Signals, PutOffWhileTheHookRuns) {
  SKIP_UNLESS_HOOKED();
  install(SIGUSR1, count, 0);
  for (int i = 1; i <= 150; i++) {
    volatile int begun = 0;
    std::thread thread = sender(pthread_self(), SIGUSR1, &begun);
    const long seen = hooked::call(kProbeSpin, hooked::word(&begun), hooked::word(&ran));
    thread.join();
    ASSERT_EQ(seen, i - 1) << "the handler ran inside the hook";
    ASSERT_EQ(ran, i) << "the handler did not run after the hook";
    ASSERT_EQ(value, 77);
  }
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGUSR1) || sigismember(&mask, SIGTERM));
}

TEST_F(Signals, SleepIsInterrupted) {
  SKIP_UNLESS_HOOKED();
  install(SIGUSR1, count_and_look, 0);
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  (void)hooked::call(kProbeWords);
  for (int i = 0; i < 150; i++) {
    ran = 0;
    std::atomic<bool> back_again{false};
    const pthread_t self = pthread_self();
    std::thread thread([&] {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, nullptr);
      while (!back_again) {
        pthread_kill(self, SIGUSR1);
        sched_yield();
      }
    });
    char byte;
    const long result = hooked::call(kProbeSleep, pipes[0], hooked::word(&byte), 1);
    back_again = true;
    thread.join();
    ASSERT_EQ(result, -EINTR);
    ASSERT_GT(ran, 0);
    ASSERT_EQ(inside_seen, 1);
  }
  EXPECT_EQ(hooked::call(kProbeWords), 1);
  install(SIGUSR1, count, SA_RESTART);
  raise(SIGUSR1);
  EXPECT_EQ(hooked::call(kProbeWords), 2);
  EXPECT_EQ(hooked::call(kProbeWords), 0);
  close(pipes[0]);
  close(pipes[1]);
}

TEST_F(Signals, LeftBySiglongjmpTenThousandTimes) {
  install(SIGALRM, jump, 0);
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  const long nr = hooked::expected() ? static_cast<long>(kProbeSleep) : SYS_read;
  volatile int left = 0;
  static int i;  // static: siglongjmp leaves locals undefined
  for (i = 0; i < 10000; i++) {
    if (sigsetjmp(back, 1) == 0) {
      const itimerval soon{{0, 0}, {0, 1 + i % 50}};
      setitimer(ITIMER_REAL, &soon, nullptr);
      char byte;
      (void)hooked::call(nr, pipes[0], hooked::word(&byte), 1);
      FAIL() << "the read came back";
    }
    left = left + 1;
    if (hooked::expected()) {
      ASSERT_EQ(hooked::call(kProbeInside), 1);
    }
  }
  EXPECT_EQ(left, 10000);
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGALRM));
  close(pipes[0]);
  close(pipes[1]);
}

// A timer interrupts a loop that alternates flags with hooked calls: they never change under it.
TEST_F(Signals, FlagsOfTheInterruptedCodeStay) {
  install(SIGALRM, count, SA_RESTART);
  const itimerval often{{0, 50}, {0, 50}};
  setitimer(ITIMER_REAL, &often, nullptr);
  const long nr = hooked::expected() ? static_cast<long>(kProbeGeneral) : SYS_getppid;
  for (int i = 0; i < 200'000 || ran < 200; i++) {
    unsigned char carry = 0;
    unsigned char overflow = 0;
    long result = nr;
    asm volatile("stc\n syscall\n setc %0\n seto %1\n"
                 : "=r"(carry), "=r"(overflow), "+a"(result)
                 : "D"(5L)
                 : "rcx", "r11", "memory", "cc");
    ASSERT_EQ(carry, 1);
    if (hooked::expected()) {
      ASSERT_EQ(result, 6);
    }
  }
  const itimerval never{};
  setitimer(ITIMER_REAL, &never, nullptr);
}

TEST_F(Signals, AlternateStack) {
  static char memory[65536];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof memory;
  ASSERT_EQ(sigaltstack(&stack, nullptr), 0);
  static volatile bool on_it;
  on_it = false;
  install(
      SIGUSR1,
      [](int, siginfo_t*, void*) {
        char here;
        on_it = &here >= memory && &here < memory + sizeof memory;
      },
      SA_ONSTACK);
  raise(SIGUSR1);
  EXPECT_TRUE(on_it);
  stack.ss_flags = SS_DISABLE;
  sigaltstack(&stack, nullptr);
}

// Those whose signals the engine needs itself are put off as any other, and its own faults are told from them.
TEST_F(Signals, PutOffWithItsStory) {
  SKIP_UNLESS_HOOKED();
  for (const int number : {SIGSEGV, SIGSYS, SIGBUS}) {
    install(number, count, 0);
    ran = 0;
    volatile int begun = 0;
    std::thread thread = sender(pthread_self(), number, &begun);
    EXPECT_EQ(hooked::call(kProbeSpin, hooked::word(&begun), hooked::word(&ran)), 0);
    thread.join();
    EXPECT_EQ(ran, 1) << number;
    EXPECT_EQ(value, 77) << number;
    signal(number, SIG_DFL);
  }
}

TEST_F(Signals, BlockedOnesKeepTheirStory) {
  for (const int number : {SIGSEGV, SIGSYS, SIGUSR1}) {
    install(number, count, 0);
    ran = 0;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    sigprocmask(SIG_BLOCK, &one, nullptr);
    for (const int story : {5, 6}) sigqueue(getpid(), number, sigval{.sival_int = story});
    EXPECT_EQ(ran, 0) << number;
    const pid_t child = fork();
    if (child == 0) {
      sigprocmask(SIG_UNBLOCK, &one, nullptr);
      _exit(ran);  // what waits for the parent does not for the child
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << number;
    sigprocmask(SIG_UNBLOCK, &one, nullptr);
    EXPECT_EQ(ran, 1) << number;
    EXPECT_EQ(value, 5) << number;
    signal(number, SIG_DFL);
  }
}

// Frames of one signal do not lie on each other, however fast it is sent: nobody's stack is that large.
TEST_F(Signals, FasterThanTheirHandler) {
  for (const int number : {SIGSEGV, SIGSYS, SIGBUS, SIGUSR1}) {
    if (number == SIGSYS && hooked::mode() == "sud") continue;  // may take the place of the kernel's own: a known limit
    static volatile uintptr_t lowest;
    ran = 0;
    lowest = UINTPTR_MAX;
    install(number, [](int, siginfo_t*, void*) {
      ran = ran + 1;
      const auto frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
      if (frame < lowest) lowest = frame;
      (void)getppid();
    }, 0);
    const pid_t self = gettid();
    std::atomic<int> sending{2};
    std::thread senders[2];
    for (std::thread& thread : senders) {
      thread = std::thread([&] {
        for (int i = 0; i < 20000; i++) (void)tgkill(getpid(), self, number);
        sending--;
      });
    }
    while (sending > 0) ASSERT_EQ(getpid(), self);
    for (std::thread& thread : senders) thread.join();
    signal(number, SIG_DFL);
    EXPECT_GT(ran, 0);
    const auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    EXPECT_LT(here - lowest, 65536u) << number;
  }
}

TEST_F(Signals, RestartsTheKernelsCalls) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  for (const bool restart : {false, true}) {
    ran = 0;
    std::atomic<bool> back_again{false};
    install(SIGUSR1, count, restart ? SA_RESTART : 0);
    const pthread_t self = pthread_self();
    std::thread thread([&] {
      while (restart ? ran == 0 : !back_again) {
        pthread_kill(self, SIGUSR1);
        sched_yield();
      }
      if (restart) (void)!write(pipes[1], "x", 1);
    });
    char byte;
    const ssize_t got = read(pipes[0], &byte, 1);
    const int error = errno;
    back_again = true;
    EXPECT_EQ(got, restart ? 1 : -1);
    if (!restart) {
      EXPECT_EQ(error, EINTR);
    }
    thread.join();
  }
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace
