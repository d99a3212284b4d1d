// Mode symbols: which functions of libc reach the hook, and that signals, forks and threads are the hook's as well.
// SPDX-License-Identifier: BSD-3-Clause
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <thread>

#include "tests/zpoline/hooked.h"

namespace {

long answer(long argument) { return hooked::expected() ? argument + 1 : -1; }

TEST(Symbols, SyscallReachesTheHook) {
  for (const long nr : {kProbeGeneral, kProbeSse, kProbeFull}) {
    errno = 0;
    EXPECT_EQ(syscall(nr, 6), answer(6));
    EXPECT_EQ(errno, hooked::expected() ? 0 : ENOSYS);
  }
}

TEST(Symbols, InstructionsAreTheKernels) { EXPECT_EQ(hooked::call(kProbeGeneral, 6), -ENOSYS); }

// Results, errno and all six arguments of functions that stand in for libc's.
TEST(Symbols, FunctionsDoWhatLibcsDo) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  char byte = 0;
  EXPECT_EQ(send(pair[0], "abcd", 4, 0), 4);
  EXPECT_EQ(recv(pair[1], &byte, 1, MSG_PEEK), 1);
  EXPECT_EQ(byte, 'a');
  EXPECT_EQ(recvfrom(pair[1], &byte, 1, MSG_DONTWAIT, nullptr, nullptr), 1);
  EXPECT_EQ(read(pair[1], &byte, 1), 1);
  EXPECT_EQ(byte, 'b');
  pollfd poller{pair[1], POLLIN, 0};
  EXPECT_EQ(poll(&poller, 1, -1), 1);
  const timespec no_time{0, 1000};
  timespec time = no_time;
  EXPECT_EQ(ppoll(&poller, 1, &time, nullptr), 1);
  EXPECT_EQ(time.tv_nsec, no_time.tv_nsec);
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pair[1], &set);
  EXPECT_EQ(pselect(pair[1] + 1, &set, nullptr, nullptr, &time, nullptr), 1);
  const int events = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{EPOLLIN, {.u64 = 0x123456789abcdef}}, seen{};
  EXPECT_EQ(epoll_ctl(events, EPOLL_CTL_ADD, pair[1], &event), 0);
  sigset_t mask;
  sigemptyset(&mask);
  EXPECT_EQ(epoll_pwait(events, &seen, 1, -1, &mask), 1);
  EXPECT_EQ(seen.data.u64, event.data.u64);
  EXPECT_EQ(fcntl(events, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(close(events), 0);
  EXPECT_EQ(close(events), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(recv(pair[1], &byte, 1, 0), 1);
  EXPECT_EQ(recv(pair[1], &byte, 1, 0), 1);
  EXPECT_EQ(recv(pair[1], &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  close(pair[0]);
  close(pair[1]);
}

std::atomic<int> ran{0};
void on_signal(int) { ran++; }

TEST(Symbols, HandlersArePutOffWhileTheHookRuns) {
  SKIP_UNLESS_HOOKED();
  struct sigaction action {
  }, old{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaddset(&action.sa_mask, SIGUSR2);
  ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  ASSERT_EQ(sigaction(SIGUSR1, nullptr, &old), 0);
  EXPECT_EQ(old.sa_handler, on_signal);
  EXPECT_EQ(old.sa_flags & SA_RESTART, SA_RESTART);
  EXPECT_TRUE(sigismember(&old.sa_mask, SIGUSR2));
  EXPECT_FALSE(sigismember(&old.sa_mask, SIGTERM));
  for (int i = 0; i < 100; i++) {
    ran = 0;
    std::atomic<int> inside{0};
    const pthread_t target = pthread_self();
    std::thread sender([&] {
      while (inside == 0) sched_yield();
      pthread_kill(target, SIGUSR1);
    });
    EXPECT_EQ(syscall(kProbeSpin, &inside, &ran), 0) << "the handler ran inside the hook";
    EXPECT_EQ(ran, 1);
    sender.join();
  }
  EXPECT_EQ(signal(SIGUSR1, SIG_DFL), on_signal);
}

TEST(Symbols, SleepsEndWithHandlers) {
  SKIP_UNLESS_HOOKED();
  signal(SIGALRM, on_signal);
  ran = 0;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  timer_t timer;
  ASSERT_EQ(timer_create(CLOCK_MONOTONIC, nullptr, &timer), 0);
  const itimerspec often{{0, 1'000'000}, {0, 1'000'000}};
  ASSERT_EQ(timer_settime(timer, 0, &often, nullptr), 0);
  char byte;
  EXPECT_EQ(syscall(kProbeSleep, ends[0], &byte, 1), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_GE(ran, 1);
  timer_delete(timer);
  signal(SIGALRM, SIG_DFL);
  close(ends[0]);
  close(ends[1]);
}

TEST(Symbols, ForksTellTheHook) {
  const long before = hooked::expected() ? syscall(kProbeForks) : 0;
  for (const bool by_vfork : {false, true}) {
    sigset_t blocked, now;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
    const pid_t child = by_vfork ? vfork() : fork();
    if (child == 0) {
      const bool right = syscall(kProbeGeneral, 6) == answer(6) && (!hooked::expected() || syscall(kProbeForks) >= 10000);
      _exit(right ? 7 : 8);
    }
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    EXPECT_TRUE(sigismember(&now, SIGUSR2) && !sigismember(&now, SIGUSR1));
    sigemptyset(&now);
    pthread_sigmask(SIG_SETMASK, &now, nullptr);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 7);
  }
  if (hooked::expected()) EXPECT_EQ(syscall(kProbeForks), before + 202);
}

TEST(Symbols, ThreadsAndLateLibraries) {
  for (int i = 0; i < 200; i++) {
    void* result = nullptr;
    pthread_t thread;
    ASSERT_EQ(pthread_create(&thread, nullptr, [](void* argument) -> void* {
      return syscall(kProbeFull, 6) == answer(6) ? argument : nullptr;
    }, &thread), 0);
    ASSERT_EQ(pthread_join(thread, &result), 0);
    EXPECT_EQ(result, &thread);
  }
  void* library = dlopen(LATE_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto late = reinterpret_cast<long (*)(long, long)>(dlsym(library, "late_syscall"));
  ASSERT_NE(late, nullptr);
  EXPECT_EQ(late(kProbeGeneral, 6), answer(6));
  EXPECT_EQ(dlclose(library), 0);
}

// One library is relocated by ld.so in one thread while the other thread's has been, and both are looked through.
TEST(Symbols, LateLibrariesOfTwoThreads) {
  std::atomic<bool> over{false};
  std::atomic<long> loads{0};
  std::thread other([&] {
    while (!over) {
      void* library = dlopen(LATE_LIBRARY, RTLD_NOW | RTLD_LOCAL);
      ASSERT_NE(library, nullptr) << dlerror();
      EXPECT_EQ(reinterpret_cast<long (*)(long, long)>(dlsym(library, "late_syscall"))(kProbeGeneral, 6), answer(6));
      dlclose(library);
      loads++;
    }
  });
  for (int i = 0; i < 100 || loads < 100; i++) {
    void* library = dlopen(LATE_LIBRARY_OF_MANY_RELOCATIONS, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    EXPECT_EQ(reinterpret_cast<long (*)(long, long)>(dlsym(library, "late_syscall"))(kProbeSse, 6), answer(6));
    EXPECT_EQ(dlclose(library), 0);
  }
  over = true;
  other.join();
}

}  // namespace
