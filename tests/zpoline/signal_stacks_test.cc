// Threads that give the kernel one and the same memory as their alternate signal stack, or little of it, while engine signals come to all.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/made.h"
#include "tests/lib/rounds.h"

namespace {

using namespace made;

constexpr size_t kBytes = 64 << 10;
alignas(16) char shared_memory[kBytes];

stack_t stack_of(void* memory, size_t bytes, int flags = 0) {
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = bytes;
  stack.ss_flags = flags;
  return stack;
}
stack_t shared_stack(int flags = 0) { return stack_of(shared_memory, kBytes, flags); }
stack_t no_stack() { return stack_of(nullptr, 0, SS_DISABLE); }

bool is_in(const void* address, const stack_t& stack) {
  const auto at = reinterpret_cast<uintptr_t>(address), begin = reinterpret_cast<uintptr_t>(stack.ss_sp);
  return at >= begin && at < begin + stack.ss_size;
}

// Sees where a handler with SA_ONSTACK runs, and what the program is told there.
std::atomic<const void*> handler_ran_at{nullptr};
stack_t told_in_handler;
int changed_in_handler;
void on_stack_handler(int) {
  const char here = 0;
  handler_ran_at = &here;
  (void)sigaltstack(nullptr, &told_in_handler);
  const stack_t none = no_stack();
  changed_in_handler = sigaltstack(&none, nullptr) == 0 ? 0 : errno;
}

void handle(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_ONSTACK;
  ASSERT_EQ(sigaction(number, &action, nullptr), 0);
}

// Threads of one alternate stack, each of which runs `body` when all have it.
void with_sharing_threads(int count, const std::function<void()>& before, const std::function<void(int)>& body, int flags = 0) {
  std::atomic<int> ready{0};
  std::atomic<bool> begins{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; i++) {
    threads.emplace_back([&, i] {
      const stack_t stack = shared_stack(flags);
      EXPECT_EQ(sigaltstack(&stack, nullptr), 0);
      ready++;
      while (!begins) {
      }
      body(i);
    });
  }
  while (ready < count) sched_yield();
  before();
  begins = true;
  for (std::thread& thread : threads) thread.join();
}

// All are told, while they run, of code that was made; then all make trapped calls at once.
void share(int flags) {
  for (long round = tests::rounds(3); round > 0 && !::testing::Test::HasFailure(); round--) {
    in_child([flags] {
      Made code = nullptr;
      with_sharing_threads(
          8, [&] { code = reinterpret_cast<Made>(changing_code()); },
          [&](int) {
            for (int i = 0; i < 200; i++) {
              EXPECT_EQ(code(kProbeGeneral, i), probed(i));
              EXPECT_EQ(code(SYS_getpid, 0), getpid());
            }
          },
          flags);
    });
  }
}

TEST(SharedStack, NoSignalOfTheEngineIsInAnothersWay) { share(0); }
TEST(SharedStack, DisarmedWhileAHandlerRuns) { share(1 << 31); }

// Those that are told while they sleep.
TEST(SharedStack, OfSleepers) {
  in_child([] {
    constexpr int kThreads = 16;
    int wakes[2];
    ASSERT_EQ(pipe(wakes), 0);
    std::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++) {
      threads.emplace_back([&] {
        const stack_t stack = shared_stack();
        EXPECT_EQ(sigaltstack(&stack, nullptr), 0);
        char byte = 0;
        ready++;
        EXPECT_EQ(read(wakes[0], &byte, 1), 1);
        expect_calls(reinterpret_cast<const void*>(changing_code()));
      });
    }
    while (ready < kThreads) sched_yield();
    (void)changing_code();
    EXPECT_EQ(write(wakes[1], "0123456789abcdef", kThreads), kThreads);
    for (std::thread& thread : threads) thread.join();
  });
}

TEST(SharedStack, IsWhatTheProgramIsTold) {
  handle(SIGUSR1, on_stack_handler);
  std::atomic<int> turn{0};
  with_sharing_threads(3, [] {}, [&](int number) {
    while (turn != number) sched_yield();
    stack_t seen{};
    EXPECT_EQ(sigaltstack(nullptr, &seen), 0);
    EXPECT_EQ(seen.ss_sp, shared_memory);
    EXPECT_EQ(seen.ss_size, kBytes);
    EXPECT_EQ(seen.ss_flags, 0);
    EXPECT_EQ(raise(SIGUSR1), 0);
    EXPECT_EQ(told_in_handler.ss_sp, shared_memory);
    EXPECT_EQ(told_in_handler.ss_size, kBytes);
    EXPECT_EQ(told_in_handler.ss_flags, SS_ONSTACK);
    EXPECT_EQ(changed_in_handler, EPERM);
    char own[kBytes];
    const stack_t other = stack_of(own, sizeof own), none = no_stack(), again = shared_stack();
    EXPECT_EQ(sigaltstack(&other, &seen), 0);
    EXPECT_EQ(seen.ss_sp, shared_memory);
    EXPECT_EQ(raise(SIGUSR1), 0);
    EXPECT_TRUE(is_in(handler_ran_at, other));
    EXPECT_EQ(sigaltstack(&again, &seen), 0);
    EXPECT_EQ(seen.ss_sp, own);
    EXPECT_EQ(sigaltstack(&none, &seen), 0);
    EXPECT_EQ(seen.ss_sp, shared_memory);
    EXPECT_EQ(seen.ss_size, kBytes);
    EXPECT_EQ(sigaltstack(nullptr, &seen), 0);
    EXPECT_EQ(seen.ss_flags, SS_DISABLE);
    EXPECT_EQ(raise(SIGUSR1), 0);
    EXPECT_FALSE(is_in(handler_ran_at, again));
    turn++;
  });
}

sigjmp_buf out;
char* page_without_access;

// A crash: the handler runs though the thread's own stack is of no use, and leaves.
TEST(SharedStack, HandlesACrashOfEach) {
  in_child([] {
    page_without_access = reinterpret_cast<char*>(new_pages(PROT_NONE));
    handle(SIGSEGV, [](int) { siglongjmp(out, 1); });
    std::atomic<int> turn{0};
    with_sharing_threads(4, [] { (void)changing_code(); }, [&](int number) {
      while (turn != number) sched_yield();
      for (int i = 0; i < 3; i++) {
        if (sigsetjmp(out, 1) == 0) {
          asm volatile("mov %%rsp, %%rbx\n mov %0, %%rsp\n push %%rax\n mov %%rbx, %%rsp"
                       :
                       : "r"(page_without_access + 2048)
                       : "rbx", "memory");
          ADD_FAILURE() << "no fault";
        }
      }
      turn++;
    });
  });
}

// Memory that was another thread's is this one's when that has ended, or has another.
TEST(SharedStack, GoesFromOneThreadToTheNext) {
  handle(SIGUSR1, on_stack_handler);
  const stack_t stack = shared_stack(), none = no_stack();
  for (int i = 0; i < 20; i++) {
    std::thread([&] {
      EXPECT_EQ(sigaltstack(&stack, nullptr), 0);
      EXPECT_EQ(raise(SIGUSR1), 0);
      EXPECT_TRUE(is_in(handler_ran_at, stack)) << i;
    }).join();
  }
  EXPECT_EQ(sigaltstack(&stack, nullptr), 0);
  EXPECT_EQ(sigaltstack(&none, nullptr), 0);
  std::thread([&] {
    EXPECT_EQ(sigaltstack(&stack, nullptr), 0);
    EXPECT_EQ(raise(SIGUSR1), 0);
    EXPECT_TRUE(is_in(handler_ran_at, stack));
  }).join();
}

// A fork's child has one thread, and each stack for itself.
TEST(SharedStack, InAForksChild) {
  in_child([] {
    handle(SIGUSR1, on_stack_handler);
    with_sharing_threads(8, [] { (void)changing_code(); }, [&](int) {
      in_child([] {
        stack_t seen{};
        const stack_t again = shared_stack();
        EXPECT_EQ(sigaltstack(&again, &seen), 0);
        EXPECT_EQ(seen.ss_sp, shared_memory);
        EXPECT_EQ(raise(SIGUSR1), 0);
        EXPECT_TRUE(is_in(handler_ran_at, again));
        expect_calls(changing_code());
        with_sharing_threads(4, [] {}, [&](int) { expect_calls(changing_code()); });
      });
      const pid_t child = vfork();
      if (child == 0) {
        stack_t seen{};
        _exit(sigaltstack(nullptr, &seen) == 0 && seen.ss_sp == shared_memory ? 7 : 8);
      }
      int status = 0;
      EXPECT_EQ(waitpid(child, &status, 0), child);
      EXPECT_EQ(WEXITSTATUS(status), 7);
    });
  });
}

// Room for the kernel's frame and a handler of a few bytes; what is beyond cannot be touched.
TEST(SmallStack, HoldsNoMoreThanTheKernelsFrame) {
  in_child([] {
    constexpr size_t kFrameBytes = 51;  // AT_MINSIGSTKSZ
    const size_t bytes = (getauxval(kFrameBytes) + 512) & ~size_t{63};
    const auto pages = static_cast<long>((bytes + kPage - 1) / kPage);
    uint8_t* memory = new_pages(PROT_READ | PROT_WRITE, pages + 1);
    ASSERT_EQ(mprotect(memory, kPage, PROT_NONE), 0);
    const stack_t small = stack_of(memory + kPage, bytes);
    static volatile sig_atomic_t ran = 0;
    handle(SIGUSR1, [](int) { ran = ran + 1; });
    std::thread([&] {
      ASSERT_EQ(sigaltstack(&small, nullptr), 0);
      expect_calls(changing_code());
      EXPECT_EQ(raise(SIGUSR1), 0);
      EXPECT_EQ(ran, 1);
      stack_t seen{};
      EXPECT_EQ(sigaltstack(nullptr, &seen), 0);
      EXPECT_EQ(seen.ss_sp, small.ss_sp);
      EXPECT_EQ(seen.ss_size, bytes);
    }).join();
  });
}

TEST(SmallStack, ErrorsAreTheKernels) {
  const auto set = [](const void* wanted, void* old) { return hooked::call(SYS_sigaltstack, hooked::word(wanted), hooked::word(old)); };
  const stack_t tiny = stack_of(shared_memory, 1024), odd = stack_of(shared_memory, kBytes, 0x4000);
  void* nowhere = new_pages(PROT_NONE);
  stack_t before{}, after{};
  ASSERT_EQ(set(nullptr, &before), 0);
  EXPECT_EQ(set(&tiny, nullptr), -ENOMEM);
  EXPECT_EQ(set(&odd, nullptr), -EINVAL);
  EXPECT_EQ(set(nowhere, nullptr), -EFAULT);
  EXPECT_EQ(set(nullptr, nowhere), -EFAULT);
  ASSERT_EQ(set(nullptr, &after), 0);
  EXPECT_EQ(memcmp(&before, &after, sizeof before), 0);
}

}  // namespace
