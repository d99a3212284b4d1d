// Waiting and signals as the program sees them: masks of waits, restarts, flags of sigaction, handlers for faults, signals without
// handlers.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
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
volatile int deepest;
volatile int depth;

void install(int number, void (*handler)(int, siginfo_t*, void*), int flags) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = flags | SA_SIGINFO;
  ASSERT_EQ(sigaction(number, &action, nullptr), 0);
}
void count(int, siginfo_t*, void*) { ran = ran + 1; }

sigset_t set_of(int number) {
  sigset_t set;
  sigemptyset(&set);
  if (number != 0) sigaddset(&set, number);
  return set;
}

bool is_blocked(int number) {
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, number) == 1;
}

class Waits : public ::testing::Test {
 protected:
  void SetUp() override {
    ran = 0;
    ASSERT_EQ(pipe(pipes_), 0);
  }
  void TearDown() override {
    close(pipes_[0]);
    close(pipes_[1]);
    for (int number : {SIGUSR1, SIGUSR2, SIGALRM, SIGSYS, SIGSEGV, SIGTRAP}) signal(number, SIG_DFL);
    const sigset_t none = set_of(0);
    sigprocmask(SIG_SETMASK, &none, nullptr);
  }
  int pipes_[2];
};

// Blocked outside of the wait, open in it, blocked again after it; pending from before: the wait ends at once.
class MaskedWait : public Waits, public ::testing::WithParamInterface<const char*> {
 protected:
  int wait(const sigset_t* mask) {
    const std::string how = GetParam();
    if (how == "ppoll") {
      pollfd fd{pipes_[0], POLLIN, 0};
      return ppoll(&fd, 1, nullptr, mask);
    }
    if (how == "pselect") {
      fd_set set;
      FD_ZERO(&set);
      FD_SET(pipes_[0], &set);
      return pselect(pipes_[0] + 1, &set, nullptr, nullptr, nullptr, mask);
    }
    if (how == "sigsuspend") return sigsuspend(mask);
    const int epoll = epoll_create1(0);
    epoll_event event{EPOLLIN, {.u64 = 1}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes_[0], &event);
    const int result = epoll_pwait(epoll, &event, 1, -1, mask);
    const int error = errno;
    close(epoll);
    errno = error;
    return result;
  }
};

TEST_P(MaskedWait, IsAtomic) {
  install(SIGUSR1, count, SA_RESTART);
  const sigset_t usr1 = set_of(SIGUSR1);
  const sigset_t none = set_of(0);
  ASSERT_EQ(sigprocmask(SIG_BLOCK, &usr1, nullptr), 0);
  for (int i = 1; i <= 200; i++) {
    raise(SIGUSR1);
    ASSERT_EQ(ran, i - 1);
    ASSERT_EQ(wait(&none), -1);
    ASSERT_EQ(errno, EINTR);
    ASSERT_EQ(ran, i);
    ASSERT_TRUE(is_blocked(SIGUSR1));
  }
}

TEST_P(MaskedWait, EndsWhenASignalComes) {
  install(SIGALRM, count, SA_RESTART);
  const sigset_t alarm = set_of(SIGALRM);
  const sigset_t none = set_of(0);
  ASSERT_EQ(sigprocmask(SIG_BLOCK, &alarm, nullptr), 0);
  for (int i = 1; i <= 100; i++) {
    const itimerval soon{{0, 0}, {0, 1 + i * 7 % 100}};
    setitimer(ITIMER_REAL, &soon, nullptr);
    ASSERT_EQ(wait(&none), -1);
    ASSERT_EQ(errno, EINTR);
    ASSERT_EQ(ran, i);
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, MaskedWait, ::testing::Values("ppoll", "pselect", "epoll_pwait", "sigsuspend"));

// engine->sleep() comes back for each handler, and says whether the kernel would have restarted the call.
TEST_F(Waits, AnEmulatedWaitHearsOfHandlersAndWhetherToRestart) {
  SKIP_UNLESS_HOOKED();
  for (const int flags : {0, SA_RESTART}) {
    install(SIGALRM, count, flags);
    (void)hooked::call(kProbeWords);
    const itimerval soon{{0, 0}, {0, 2000}};
    setitimer(ITIMER_REAL, &soon, nullptr);
    char byte;
    EXPECT_EQ(hooked::call(kProbeSleep, pipes_[0], hooked::word(&byte), 1), -EINTR);
    EXPECT_EQ(hooked::call(kProbeWords), flags == 0 ? 1 : 2);
  }
  EXPECT_EQ(ran, 2);
}

void nest(int number, siginfo_t*, void*) {
  ran = ran + 1;
  depth = depth + 1;
  if (depth > deepest) deepest = depth;
  if (ran < 3) raise(number);
  depth = depth - 1;
}

TEST_F(Waits, NodeferNestsAndItsAbsenceDoesNot) {
  for (const int flags : {0, SA_NODEFER}) {
    ran = 0;
    deepest = 0;
    depth = 0;
    install(SIGUSR1, nest, flags);
    raise(SIGUSR1);
    EXPECT_EQ(ran, 3);
    EXPECT_EQ(deepest, flags == 0 ? 1 : 3);
  }
}

TEST_F(Waits, TheMaskOfAHandler) {
  static volatile bool usr1, usr2, alarm_;
  struct sigaction action {};
  action.sa_handler = [](int) {
    usr1 = is_blocked(SIGUSR1);
    usr2 = is_blocked(SIGUSR2);
    alarm_ = is_blocked(SIGALRM);
  };
  sigaddset(&action.sa_mask, SIGUSR2);
  sigaction(SIGUSR1, &action, nullptr);
  raise(SIGUSR1);
  EXPECT_TRUE(usr1);
  EXPECT_TRUE(usr2);
  EXPECT_FALSE(alarm_);
  EXPECT_FALSE(is_blocked(SIGUSR1) || is_blocked(SIGUSR2));
}

TEST_F(Waits, ResetHandOnceEvenInsideAHook) {
  install(SIGUSR1, count, SA_RESETHAND);
  raise(SIGUSR1);
  EXPECT_EQ(ran, 1);
  struct sigaction now {};
  sigaction(SIGUSR1, nullptr, &now);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
  const pid_t child = fork();
  if (child == 0) {
    raise(SIGUSR1);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
}

sigjmp_buf back;
volatile int fault_number;
void* volatile fault_address;

void on_fault(int number, siginfo_t* info, void*) {
  fault_number = number;
  fault_address = info->si_addr;
  siglongjmp(back, 1);
}

TEST_F(Waits, TheProgramsOwnFaultHandlers) {
  install(SIGSEGV, on_fault, 0);
  install(SIGTRAP, [](int, siginfo_t*, void*) { ran = ran + 1; }, 0);
  for (int i = 0; i < 100; i++) {
    if (sigsetjmp(back, 1) == 0) {
      *reinterpret_cast<volatile int*>(0x12345678) = 1;
      FAIL();
    }
    ASSERT_EQ(fault_number, SIGSEGV);
    ASSERT_EQ(fault_address, reinterpret_cast<void*>(0x12345678));
  }
  asm volatile("int3");
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(hooked::call(600), -ENOSYS) << "the engine's own use of SIGSEGV goes on";
  EXPECT_EQ(hooked::call(SYS_getpid), getpid());
}

TEST_F(Waits, TheProgramsOwnSigsysHandler) {
  install(SIGSYS, count, 0);
  raise(SIGSYS);
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(hooked::call(600), -ENOSYS);
  struct sigaction now {};
  sigaction(SIGSYS, nullptr, &now);
  EXPECT_EQ(now.sa_sigaction, count);
}

TEST_F(Waits, SignalsWithoutHandlers) {
  sigset_t both = set_of(SIGUSR1);
  sigaddset(&both, SIGUSR2);
  ASSERT_EQ(sigprocmask(SIG_BLOCK, &both, nullptr), 0);
  const sigset_t usr2 = set_of(SIGUSR2);
  const int fd = signalfd(-1, &usr2, SFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  for (int i = 0; i < 100; i++) {
    sigqueue(getpid(), SIGUSR1, sigval{.sival_int = i});
    sigqueue(getpid(), SIGUSR2, sigval{.sival_int = i + 1000});
    siginfo_t info{};
    const sigset_t usr1 = set_of(SIGUSR1);
    ASSERT_EQ(sigwaitinfo(&usr1, &info), SIGUSR1);
    ASSERT_EQ(info.si_value.sival_int, i);
    signalfd_siginfo more{};
    ASSERT_EQ(read(fd, &more, sizeof more), static_cast<ssize_t>(sizeof more));
    ASSERT_EQ(more.ssi_signo, static_cast<uint32_t>(SIGUSR2));
    ASSERT_EQ(more.ssi_int, i + 1000);
  }
  close(fd);
}

// Real-time signals to the process queue: each arrives, in order, though the hook is busy while they come.
TEST_F(Waits, QueuedSignalsArriveInOrder) {
  SKIP_UNLESS_HOOKED();
  static volatile int last, disorder;
  last = -1;
  disorder = 0;
  const int number = SIGRTMIN + 3;
  install(number, [](int, siginfo_t* info, void*) {
    disorder = disorder + (info->si_value.sival_int != last + 1);
    last = info->si_value.sival_int;
    ran = ran + 1;
  }, SA_RESTART);
  volatile int begun = 0;
  std::thread sender([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    while (begun == 0) sched_yield();
    for (int i = 0; i < 100; i++) sigqueue(getpid(), number, sigval{.sival_int = i});
  });
  (void)hooked::call(kProbeSpin, hooked::word(&begun), hooked::word(&ran));
  sender.join();
  while (ran < 100) sched_yield();
  EXPECT_EQ(ran, 100);
  EXPECT_EQ(disorder, 0);
  signal(number, SIG_DFL);
}

}  // namespace
