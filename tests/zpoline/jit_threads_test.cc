// System calls of code that the program makes, in threads that were there before, that come and go, in forks, and under signals.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <thread>
#include <vector>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/made.h"
#include "tests/lib/rounds.h"

namespace {

using namespace made;

// One thread spins for the code; one sleeps in the kernel, in a call that no other has to notice; one is inside the hook.
TEST(Threads, ThatExistedBefore) {
  for (long round = tests::rounds(30); round > 0 && !::testing::Test::HasFailure(); round--) {
    in_child([] {
      std::atomic<Made> code{nullptr};
      std::atomic<int> ready{0};
      int to_sleeper[2], to_hook[2];
      ASSERT_EQ(pipe(to_sleeper) | pipe(to_hook), 0);
      std::vector<std::thread> threads;
      threads.emplace_back([&] {
        ready++;
        Made made;
        while ((made = code.load()) == nullptr) {
        }
        EXPECT_EQ(made(kProbeGeneral, 6), probed(6));
      });
      threads.emplace_back([&] {
        char byte = 0;
        ready++;
        EXPECT_EQ(read(to_sleeper[0], &byte, 1), 1);
        EXPECT_EQ(code.load()(kProbeSse, byte), probed(byte));
      });
      threads.emplace_back([&] {
        char byte = 0;
        ready++;
        long result = -EINTR;
        while (result == -EINTR)
          result = hooked::expected() ? hooked::call(kProbeSleep, to_hook[0], hooked::word(&byte), 1) : read(to_hook[0], &byte, 1);
        EXPECT_EQ(result, 1);
        EXPECT_EQ(code.load()(kProbeFull, byte), probed(byte));
      });
      while (ready < 3) sched_yield();
      code = reinterpret_cast<Made>(changing_code());
      EXPECT_EQ(write(to_sleeper[1], "\x05", 1), 1);
      EXPECT_EQ(write(to_hook[1], "\x06", 1), 1);
      for (std::thread& thread : threads) thread.join();
    });
  }
}

std::atomic<long> segv_handled{0};

// Threads that come and go while made code begins in one of them.
TEST(Threads, ThatComeAndGo) {
  for (long round = tests::rounds(20); round > 0 && !::testing::Test::HasFailure(); round--) {
    in_child([] {
      std::atomic<Made> code{nullptr};
      std::atomic<bool> over{false};
      std::vector<std::thread> makers;
      for (int i = 0; i < 3; i++) {
        makers.emplace_back([&] {
          while (!over) {
            std::thread([&] {
              if (const Made made = code.load(); made != nullptr) EXPECT_EQ(made(kProbeGeneral, 6), probed(6));
            }).join();
            if (const Made made = code.load(); made != nullptr) EXPECT_EQ(made(kProbeSse, 6), probed(6));
          }
        });
      }
      const auto page = reinterpret_cast<Made>(changing_code());
      code = page;
      for (int i = 0; i < 100; i++) EXPECT_EQ(page(kProbeGeneral, i), probed(i));
      over = true;
      for (std::thread& maker : makers) maker.join();
    });
  }
}

// A signal of the number that tells threads to arm themselves arrives while calls trap: no call is lost with it.
TEST(Threads, TrapWhileSignalsCome) {
  in_child([] {
    struct sigaction action {};
    action.sa_handler = [](int) { segv_handled++; };
    action.sa_flags = SA_RESTART;
    ASSERT_EQ(sigaction(SIGSEGV, &action, nullptr), 0);
    const auto page = reinterpret_cast<Made>(changing_code());
    const pid_t self = gettid();
    std::atomic<bool> over{false};
    std::thread sender([&] {
      while (!over) {
        const long seen = segv_handled;
        (void)tgkill(getpid(), self, SIGSEGV);
        while (segv_handled == seen && !over) sched_yield();
      }
    });
    const long rounds = tests::rounds(5000);
    for (long i = 0; (i < rounds || segv_handled < 100) && !::testing::Test::HasFailure(); i++) {
      EXPECT_EQ(page(kProbeGeneral, i), probed(i));
      EXPECT_EQ(page(SYS_getpid, 0), getpid());
    }
    over = true;
    sender.join();
  });
}

// The second finds its memory in the range that the first is just taking from all threads.
TEST(Threads, ThatMakeCodeAtOnce) {
  for (long round = tests::rounds(20); round > 0 && !::testing::Test::HasFailure(); round--) {
    in_child([] {
      constexpr int kThreads = 3;
      std::atomic<int> ready{0};
      std::vector<std::thread> makers;
      for (int i = 0; i < kThreads; i++) {
        makers.emplace_back([&] {
          ready++;
          while (ready < kThreads) {
          }
          expect_calls(changing_code());
        });
      }
      for (std::thread& maker : makers) maker.join();
    });
  }
}

TEST(Processes, ForkWhileAThreadMakesCode) {
  for (long round = tests::rounds(10); round > 0 && !::testing::Test::HasFailure(); round--) {
    in_child([] {
      std::atomic<bool> forks{false};
      std::thread maker([&] {
        while (!forks) {
        }
        expect_calls(changing_code());
      });
      forks = true;
      for (int i = 0; i < 10; i++) {
        in_child([] {
          expect_calls(changing_code());
          std::thread([] { expect_calls(changing_code()); }).join();
        });
      }
      maker.join();
    });
  }
}

TEST(Processes, ForkVforkAndThreadsAfter) {
  in_child([] {
    uint8_t* page = changing_code();
    expect_calls(page);
    in_child([page] { expect_calls(page); });
    std::thread([page] { expect_calls(page); }).join();
    std::thread([page] { in_child([page] { expect_calls(page); }); }).join();
    const auto made = reinterpret_cast<Made>(page);
    const pid_t child = vfork();
    if (child == 0) _exit(made(kProbeGeneral, 6) == probed(6) ? 7 : 8);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 7);
    expect_calls(page);
  });
}

Made storm_code;
std::atomic<long> handled{0};
std::atomic<int> wrong{0};

void on_storm(int) {
  const int error = errno;
  const long count = handled.fetch_add(1);
  if (storm_code(kProbeGeneral, count) != probed(count) || hooked::call(SYS_getpid) != getpid()) wrong++;
  errno = error;
}

// Signals at any instruction of trapped calls; their handlers make such calls themselves.
TEST(Storm, OfSignalsOverMadeCode) {
  in_child([] {
    storm_code = reinterpret_cast<Made>(changing_code());
    struct sigaction action {};
    action.sa_handler = on_storm;
    action.sa_flags = SA_RESTART;
    ASSERT_EQ(sigaction(SIGALRM, &action, nullptr), 0);
    timer_t timer;
    ASSERT_EQ(timer_create(CLOCK_MONOTONIC, nullptr, &timer), 0);
    const itimerspec often{{0, 50'000}, {0, 50'000}};
    ASSERT_EQ(timer_settime(timer, 0, &often, nullptr), 0);
    const long wanted = tests::rounds(3000);
    for (long i = 0; handled < wanted; i++) {
      if (storm_code(kProbeSse, i) != probed(i) || storm_code(kProbeFull, i) != probed(i)) wrong++;
      if (storm_code(SYS_getpid, 0) != getpid()) wrong++;
    }
    timer_delete(timer);
    EXPECT_EQ(wrong, 0);
  });
}

// The word by which threads are told is nobody else's: not of who waits for all signals, nor of who has a handler for it.
TEST(Threads, WhoWaitForSignalsHearNothingOfIt) {
  in_child([] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    const int fd = signalfd(-1, &all, SFD_CLOEXEC);
    ASSERT_GE(fd, 0);
    std::atomic<int> ready{0};
    int seen = 0;
    signalfd_siginfo read_info{};
    std::thread waiter([&] {
      ready++;
      EXPECT_EQ(sigwait(&all, &seen), 0);
    });
    std::thread reader([&] {
      ready++;
      EXPECT_EQ(read(fd, &read_info, sizeof read_info), static_cast<ssize_t>(sizeof read_info));
    });
    while (ready < 2) sched_yield();
    expect_calls(changing_code());
    pthread_kill(waiter.native_handle(), SIGUSR1);
    pthread_kill(reader.native_handle(), SIGUSR2);
    waiter.join();
    reader.join();
    EXPECT_EQ(seen, SIGUSR1);
    EXPECT_EQ(read_info.ssi_signo, static_cast<uint32_t>(SIGUSR2));
  });
  in_child([] {
    static std::atomic<int> ran{0};
    signal(SIGSYS, [](int) { ran++; });
    std::atomic<bool> over{false};
    std::thread other([&] {
      while (!over) sched_yield();
    });
    expect_calls(changing_code());
    EXPECT_EQ(ran, 0);
    int sent = 0;
    while (ran == 0) {  // one that meets the engine's own, not delivered yet, is one with it
      sent++;
      pthread_kill(other.native_handle(), SIGSYS);
      sched_yield();
    }
    over = true;
    other.join();
    EXPECT_LE(ran, sent);
  });
}

}  // namespace
