// Children of every kind: each comes back to the right place with the right memory, hooked where it should be.
// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/zpoline/hooked.h"

extern char** environ;

namespace {

int status_of(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

std::string output_of(const char* command) {
  std::string text;
  FILE* pipe = popen(command, "r");
  char buffer[256];
  while (fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  pclose(pipe);
  return text;
}

TEST(Fork, ChildAndParentGoOn) {
  for (int i = 0; i < 50; i++) {
    const pid_t child = fork();
    if (child == 0) _exit(hooked::call(SYS_getppid) == getppid() ? 7 : 8);
    ASSERT_EQ(status_of(child), 7);
  }
}

TEST(Fork, ByRawCalls) {
  for (const long nr : {SYS_fork, SYS_clone}) {
    const long child = hooked::call(nr, nr == SYS_clone ? SIGCHLD : 0);
    if (child == 0) _exit(9);
    ASSERT_GT(child, 0);
    EXPECT_EQ(status_of(static_cast<pid_t>(child)), 9);
  }
}

TEST(Fork, CallbacksRunOnBothSides) {
  SKIP_UNLESS_HOOKED();
  const long before = hooked::call(kProbeForks);
  const pid_t child = fork();
  if (child == 0) _exit(hooked::call(kProbeForks) == before + 1 + 10000 ? 0 : 1);
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(hooked::call(kProbeForks), before + 1 + 100);
}

TEST(Fork, TheMaskIsKept) {
  sigset_t set, old, child_sees;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_SETMASK, &set, &old);
  const pid_t child = fork();
  sigprocmask(SIG_SETMASK, nullptr, &child_sees);
  const bool right = sigismember(&child_sees, SIGUSR2) && !sigismember(&child_sees, SIGUSR1) && !sigismember(&child_sees, SIGTERM);
  if (child == 0) _exit(right ? 0 : 1);
  EXPECT_EQ(status_of(child), 0);
  EXPECT_TRUE(right);
  sigprocmask(SIG_SETMASK, &old, nullptr);
}

TEST(Vfork, ExecAndExit) {
  for (int i = 0; i < 20; i++) {
    volatile int local = i;
    const pid_t child = vfork();
    if (child == 0) {
      if (i % 2 == 0) _exit(5);
      execl("/bin/true", "true", static_cast<char*>(nullptr));
      _exit(6);
    }
    EXPECT_EQ(status_of(child), i % 2 == 0 ? 5 : 0);
    EXPECT_EQ(local, i);
  }
}

TEST(Vfork, FailingExec) {
  const pid_t child = vfork();
  if (child == 0) {
    execl("/nonexistent", "x", static_cast<char*>(nullptr));
    _exit(errno == ENOENT ? 3 : 4);
  }
  EXPECT_EQ(status_of(child), 3);
  EXPECT_EQ(hooked::call(SYS_getpid), getpid());
  if (hooked::expected()) {
    EXPECT_EQ(hooked::call(kProbeInside), 1) << "the child's exit left the parent inside a call";
  }
}

TEST(Vfork, DispositionsOfTheParentStay) {
  struct sigaction action {
  }, now{};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  const pid_t child = vfork();
  if (child == 0) {
    signal(SIGUSR1, SIG_DFL);
    _exit(0);
  }
  EXPECT_EQ(status_of(child), 0);
  sigaction(SIGUSR1, nullptr, &now);
  EXPECT_EQ(now.sa_handler, action.sa_handler);
  raise(SIGUSR1);
  signal(SIGUSR1, SIG_DFL);
}

TEST(Clone, VforkWithoutAStack) {
  // All in one piece of assembly: the child may not return from the function whose frame its parent still needs.
  long child = SYS_clone;
  asm volatile("nop\n syscall\n test %%rax, %%rax\n jnz 1f\n mov $11, %%edi\n mov %1, %%eax\n nop\n syscall\n 1:"
               : "+a"(child)
               : "i"(SYS_exit_group), "D"(static_cast<long>(CLONE_VM | CLONE_VFORK | SIGCHLD)), "S"(0L)
               : "rcx", "r11", "memory", "cc");
  EXPECT_EQ(status_of(static_cast<pid_t>(child)), 11);
}

TEST(Clone, FailsAsLinuxSays) {
  EXPECT_EQ(hooked::call(SYS_clone, CLONE_THREAD, 0), -EINVAL);
  EXPECT_EQ(hooked::call(SYS_clone3, 0, 0), -EINVAL);
  for (int i = 0; i < 200; i++) EXPECT_EQ(hooked::call(SYS_clone, CLONE_SIGHAND | CLONE_THREAD, 0), -EINVAL);  // no frame leaks
}

int on_own_stack(void* argument) {
  *static_cast<volatile int*>(argument) = static_cast<int>(hooked::call(SYS_getppid));
  return 12;
}

TEST(Clone, NewStackSharedMemory) {
  std::vector<char> stack(256 * 1024);
  volatile int parent_seen = 0;
  for (int i = 0; i < 100; i++) {
    const int child = clone(on_own_stack, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | SIGCHLD, const_cast<int*>(&parent_seen));
    ASSERT_GT(child, 0);
    ASSERT_EQ(status_of(child), 12);
    ASSERT_EQ(parent_seen, getpid());
  }
}

std::atomic<int> guest_calls{0};
int call_for_ever(void*) {
  for (;;) {
    hooked::call(SYS_write, -1, 0, 0);
    guest_calls.fetch_add(1);
  }
}

// A child with its parent's TLS that is killed anywhere, also inside a hooked call, while its parent makes calls and gets signals.
TEST(Clone, ChildrenWithTheSameTlsLeaveNothingBehind) {
  std::vector<char> stack(256 * 1024);
  static std::atomic<int> alarms;
  signal(SIGALRM, [](int) { alarms++; });
  const itimerval often = {{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &often, nullptr);
  for (int i = 0; i < 300; i++) {
    guest_calls = 0;
    const int child = clone(call_for_ever, stack.data() + stack.size(), CLONE_VM | CLONE_FS | CLONE_SIGHAND | SIGCHLD, nullptr);
    ASSERT_GT(child, 0);
    while (guest_calls < 100) hooked::call(SYS_write, -1, 0, 0);
    kill(child, SIGKILL);
    ASSERT_EQ(status_of(child), 1000 + SIGKILL);
    if (hooked::expected()) {
      ASSERT_EQ(hooked::call(kProbeGeneral, 41), 42);
    }
  }
  const int before = alarms;
  while (alarms == before) hooked::call(SYS_write, -1, 0, 0);  // handlers still run: nothing stays put off
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  sigset_t mask;
  sigprocmask(SIG_BLOCK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGALRM));
  signal(SIGALRM, SIG_DFL);
  EXPECT_EQ(system("exit 3"), 3 << 8);
}

// As a leak checker makes: dispositions of its own for what might befall it, and calls afterwards, in code that may trap.
int set_handlers_and_call(void* of_parent) {
  static struct sigaction action;
  action.sa_handler = [](int) { hooked::call(SYS_exit_group, 9); };
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGSYS}) {
    if (hooked::call(SYS_rt_sigaction, number, hooked::word(&action), 0, 8) != 0) return 1;
    for (int i = 0; i < 10; i++) {
      if (hooked::call(SYS_getppid) != *static_cast<long*>(of_parent)) return 2;
    }
  }
  return 0;
}

TEST(Clone, AChildWithTheSameTlsMaySetHandlers) {
  std::vector<char> stack(256 * 1024);
  long pid = getpid();
  for (int i = 0; i < 20; i++) {
    const int child = clone(set_handlers_and_call, stack.data() + stack.size(), CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, &pid);
    ASSERT_GT(child, 0);
    ASSERT_EQ(status_of(child), 0);
    ASSERT_EQ(hooked::call(SYS_getpid), pid);
  }
}

TEST(Clone3, ReadOnlyArguments) {
  auto* arguments = static_cast<clone_args*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  arguments->exit_signal = SIGCHLD;
  mprotect(arguments, 4096, PROT_READ);
  const long child = hooked::call(SYS_clone3, hooked::word(arguments), sizeof *arguments);
  if (child == 0) hooked::call(SYS_exit_group, 13);
  ASSERT_GT(child, 0);
  EXPECT_EQ(status_of(static_cast<pid_t>(child)), 13);
  munmap(arguments, 4096);
}

// What posix_spawn() of newer C libraries makes its children with, by memory of their own and by the parent's.
TEST(Clone, ClearSighand) {
  struct sigaction action {
  };
  action.sa_handler = [](int) {};
  ASSERT_EQ(0, sigaction(SIGUSR1, &action, nullptr));
  ASSERT_EQ(0, sigaction(SIGSEGV, &action, nullptr));
  signal(SIGUSR2, SIG_IGN);
  clone_args arguments{};
  arguments.flags = CLONE_CLEAR_SIGHAND;
  arguments.exit_signal = SIGCHLD;
  const auto make_child = [&] {
    return static_cast<pid_t>(hooked::call(SYS_clone3, reinterpret_cast<long>(&arguments), sizeof arguments));
  };
  const auto disposition = [](int number) {
    struct sigaction now {};
    (void)sigaction(number, nullptr, &now);
    return now.sa_handler;
  };
  pid_t child = make_child();
  if (child == 0) {
    const bool right = disposition(SIGUSR1) == SIG_DFL && disposition(SIGSEGV) == SIG_DFL && disposition(SIGUSR2) == SIG_IGN;
    const bool answered = hooked::call(600) == -ENOSYS;  // a number beyond the trampoline is answered by way of a fault
    _exit(right && answered ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  EXPECT_EQ(0, status_of(child));
  for (const int number : {SIGUSR1, SIGSEGV}) {
    child = make_child();
    if (child == 0) {
      (void)hooked::call(SYS_kill, getpid(), number);
      _exit(2);
    }
    EXPECT_EQ(1000 + number, status_of(child));
  }
  EXPECT_EQ(action.sa_handler, disposition(SIGUSR1));
  raise(SIGUSR1);
  for (const int number : {SIGUSR1, SIGSEGV, SIGUSR2}) signal(number, SIG_DFL);
}

TEST(Clone, ClearSighandOnTheParentsMemory) {
  struct sigaction action {
  };
  action.sa_handler = [](int) {};
  ASSERT_EQ(0, sigaction(SIGUSR1, &action, nullptr));
  std::vector<char> stack(64 * 1024);
  static long answer;
  answer = 0;
  clone_args arguments{};
  arguments.flags = CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND;
  arguments.exit_signal = SIGCHLD;
  arguments.stack = reinterpret_cast<uint64_t>(stack.data());
  arguments.stack_size = stack.size();
  void (*const run)() = [] {
    answer = hooked::call(600);
    (void)hooked::call(SYS_kill, hooked::call(SYS_getpid), SIGUSR1);
    (void)hooked::call(SYS_exit_group, 2);
  };
  long child = SYS_clone3;
  asm volatile("nop\n syscall\n test %%rax, %%rax\n jnz 1f\n call *%3\n 1:"
               : "+a"(child)
               : "D"(&arguments), "S"(sizeof arguments), "b"(run)
               : "rcx", "r11", "memory", "cc");
  ASSERT_GT(child, 0);
  EXPECT_EQ(1000 + SIGUSR1, status_of(static_cast<pid_t>(child)));
  EXPECT_EQ(-ENOSYS, answer);
  struct sigaction now {
  };
  sigaction(SIGUSR1, nullptr, &now);
  EXPECT_EQ(action.sa_handler, now.sa_handler);
  signal(SIGUSR1, SIG_DFL);
}

TEST(Spawn, PosixSpawnSystemPopen) {
  pid_t child = 0;
  const char* arguments[] = {"sh", "-c", "exit 21", nullptr};
  ASSERT_EQ(posix_spawn(&child, "/bin/sh", nullptr, nullptr, const_cast<char**>(arguments), environ), 0);
  EXPECT_EQ(status_of(child), 21);
  EXPECT_EQ(posix_spawn(&child, "/nonexistent", nullptr, nullptr, const_cast<char**>(arguments), environ), ENOENT);
  ASSERT_EQ(posix_spawn(&child, "/bin/sh", nullptr, nullptr, const_cast<char**>(arguments), environ), 0);
  EXPECT_EQ(status_of(child), 21);
  EXPECT_EQ(WEXITSTATUS(system("exit 22")), 22);
  EXPECT_EQ(output_of("echo a | cat"), "a\n");
}

TEST(Exec, EmptyEnvironmentStaysHooked) {
  SKIP_UNLESS_HOOKED();
  const std::string text = output_of("env -i /bin/grep -c libzpstack.so /proc/self/maps");
  EXPECT_GT(atoi(text.c_str()), 0);
  EXPECT_EQ(output_of("ZPS_HOOK=off /bin/grep -c test-hook-probe /proc/self/maps"), "0\n");
  EXPECT_GT(atoi(output_of("LD_PRELOAD= /bin/grep -c libzpstack.so /proc/self/maps").c_str()), 0);
}

TEST(Exec, DispositionsAreInherited) {
  signal(SIGUSR1, SIG_IGN);
  const std::string text = output_of("grep SigIgn /proc/self/status");
  signal(SIGUSR1, SIG_DFL);
  ASSERT_GT(text.size(), 10u);
  EXPECT_TRUE(strtoull(text.c_str() + 8, nullptr, 16) & 1ull << (SIGUSR1 - 1));
}

TEST(Threads, ManyShortOnes) {
  std::atomic<int> ran{0};
  for (int round = 0; round < 200; round++) {
    std::thread a([&] { ran += hooked::call(SYS_getpid) == getpid(); });
    std::thread b([&] { ran += hooked::call(SYS_gettid) != 0; });
    a.join();
    b.join();
  }
  EXPECT_EQ(ran, 400);
}

// True if the kernel says that `thread` sleeps.
bool sleeps(pid_t thread) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
  FILE* file = fopen(path, "r");
  char state = '?';
  if (file == nullptr || fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = '?';
  if (file != nullptr) fclose(file);
  return state == 'S';
}

// Blocked inside the hook: the unwinder goes through sleep, hook and entry back to the program's frames.
TEST(Threads, CancelledInAnEmulatedCall) {
  SKIP_UNLESS_HOOKED();
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  static volatile bool destroyed;
  static std::atomic<pid_t> sleeper;
  static long (*volatile call)(long, long, long, long, long, long, long) =
      hooked::call;  // a call that may throw, as far as the compiler knows
  destroyed = false;
  pthread_t thread;
  ASSERT_EQ(pthread_create(
                &thread, nullptr,
                [](void* opaque) -> void* {
                  struct Guard {
                    ~Guard() { destroyed = true; }
                  } guard;
                  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
                  char byte;
                  sleeper = gettid();
                  call(kProbeSleep, *static_cast<int*>(opaque), hooked::word(&byte), 1, 0, 0, 0);
                  return nullptr;
                },
                pipes),
            0);
  while (sleeper == 0 || !sleeps(sleeper)) sched_yield();
  pthread_cancel(thread);
  void* result = nullptr;
  pthread_join(thread, &result);
  EXPECT_EQ(result, PTHREAD_CANCELED);
  EXPECT_TRUE(destroyed);
  close(pipes[0]);
  close(pipes[1]);
}

TEST(Threads, CancelledInABlockingCall) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  static volatile bool destroyed;
  destroyed = false;
  std::atomic<int> started{0};
  struct Argument {
    int fd;
    std::atomic<int>* started;
  } argument{pipes[0], &started};
  pthread_t thread;
  ASSERT_EQ(pthread_create(
                &thread, nullptr,
                [](void* opaque) -> void* {
                  struct Guard {
                    ~Guard() { destroyed = true; }
                  } guard;
                  auto* given = static_cast<Argument*>(opaque);
                  *given->started = 1;
                  char byte;
                  (void)!read(given->fd, &byte, 1);
                  return nullptr;
                },
                &argument),
            0);
  while (started == 0) sched_yield();
  pthread_cancel(thread);
  void* result = nullptr;
  pthread_join(thread, &result);
  EXPECT_EQ(result, PTHREAD_CANCELED);
  EXPECT_TRUE(destroyed);
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace
