// A process's life: forks from any state, nested vforks, threads that come and go, what the kernel keeps per thread, what /proc shows.
// SPDX-License-Identifier: BSD-3-Clause
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/late_library.h"

namespace {

// The late library looks at this page while it is loaded.
[[gnu::constructor]] void map_meeting() {
  (void)mmap(reinterpret_cast<void*>(kLateMeeting), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

long probe_of(long argument) { return hooked::expected() ? argument + 1 : -ENOSYS; }

int status_of(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// What a child does to show that all of the engine works in it: calls, signals, a thread, memory, a child of its own.
int lives() {
  if (hooked::call(SYS_getpid) != getpid()) return 1;
  for (long nr = kProbeGeneral; nr <= kProbeFull; nr++) {
    if (hooked::call(nr, 5) != probe_of(5)) return 2;
  }
  static volatile int ran;
  ran = 0;
  signal(SIGUSR2, [](int) { ran = static_cast<int>(hooked::call(kProbeGeneral, 1) == probe_of(1)); });
  raise(SIGUSR2);
  if (ran != 1) return 3;
  void* memory = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || munmap(memory, 4096) != 0) return 4;
  pthread_t thread;
  if (pthread_create(
          &thread, nullptr, [](void*) -> void* { return reinterpret_cast<void*>(hooked::call(kProbeFull, 8)); }, nullptr) != 0)
    return 5;
  void* result = nullptr;
  pthread_join(thread, &result);
  if (reinterpret_cast<long>(result) != probe_of(8)) return 6;
  const pid_t child = fork();
  if (child == 0) _exit(hooked::call(kProbeSse, 2) == probe_of(2) ? 17 : 1);
  return status_of(child) == 17 ? 0 : 7;
}

void fork_and_live() {
  const pid_t child = fork();
  if (child == 0) _exit(lives());
  EXPECT_EQ(status_of(child), 0) << "the number of the step in lives()";
}

TEST(ForkFromAnyState, Plain) { fork_and_live(); }

TEST(ForkFromAnyState, AChildOfAChild) {
  const pid_t child = fork();
  if (child == 0) {
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(lives());
    _exit(status_of(grandchild) == 0 && lives() == 0 ? 0 : 1);
  }
  EXPECT_EQ(status_of(child), 0);
}

TEST(ForkFromAnyState, FromAHandlerThatInterruptsASleep) {
  static volatile pid_t child;
  static int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  struct sigaction action {};
  action.sa_handler = [](int) {
    child = fork();
    if (child == 0) _exit(lives());
  };
  sigaction(SIGALRM, &action, nullptr);
  const itimerval soon{{0, 0}, {0, 2000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  char byte;
  const long nr = hooked::expected() ? static_cast<long>(kProbeSleep) : SYS_read;
  EXPECT_EQ(hooked::call(nr, pipes[0], hooked::word(&byte), 1), -EINTR);
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(lives(), 0);
  signal(SIGALRM, SIG_DFL);
  close(pipes[0]);
  close(pipes[1]);
}

TEST(ForkFromAnyState, FromAHandlerOnItsOwnStackWithSignalsBlocked) {
  static char memory[256 * 1024];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof memory;
  ASSERT_EQ(sigaltstack(&stack, nullptr), 0);
  static volatile pid_t child;
  struct sigaction action {};
  sigfillset(&action.sa_mask);
  action.sa_flags = SA_ONSTACK;
  action.sa_handler = [](int) {
    child = fork();
    if (child == 0) {
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      _exit(lives());
    }
  };
  sigaction(SIGUSR1, &action, nullptr);
  raise(SIGUSR1);
  EXPECT_EQ(status_of(child), 0);
  signal(SIGUSR1, SIG_DFL);
  stack.ss_flags = SS_DISABLE;
  sigaltstack(&stack, nullptr);
}

// Others are in the middle of all that the engine has locks for when the fork comes.
TEST(ForkFromAnyState, WhileOtherThreadsAreInTheEngine) {
  std::atomic<bool> over{false};
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!over) {
      void* library = dlopen(LATE_LIBRARY, RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr) dlclose(library);
    }
  });
  threads.emplace_back([&] {
    while (!over) {
      void* memory = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      munmap(memory, 4096);
      signal(SIGUSR1, SIG_IGN);
      signal(SIGUSR1, SIG_DFL);
    }
  });
  threads.emplace_back([&] {
    while (!over) std::thread([] { (void)hooked::call(kProbeFull, 1); }).join();
  });
  threads.emplace_back([&] {
    char byte;
    (void)hooked::call(hooked::expected() ? static_cast<long>(kProbeSleep) : SYS_read, pipes[0], hooked::word(&byte), 1);
  });
  for (int i = 0; i < 25 && !::testing::Test::HasFailure(); i++) fork_and_live();
  over = true;
  (void)!write(pipes[1], "x", 1);
  for (auto& thread : threads) thread.join();
  close(pipes[0]);
  close(pipes[1]);
}

TEST(Vfork, Nested) {
  volatile int seen = 0;
  const pid_t child = vfork();
  if (child == 0) {
    const pid_t grandchild = vfork();
    if (grandchild == 0) {
      seen = seen + 1;
      execl("/nonexistent", "x", static_cast<char*>(nullptr));
      _exit(hooked::call(SYS_getppid) > 0 ? 3 : 4);
    }
    int status = 0;
    hooked::call(SYS_wait4, grandchild, hooked::word(&status));
    seen = seen + 1;
    _exit(WEXITSTATUS(status) + 1);
  }
  EXPECT_EQ(status_of(child), 4);
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(lives(), 0);
}

TEST(Vfork, FromManyThreads) {
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&right, t] {
      for (int i = 0; i < 50; i++) {
        const pid_t child = vfork();
        if (child == 0) _exit(40 + t);
        right += status_of(child) == 40 + t;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 200);
}

long resident_pages() {
  long all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident;
}

TEST(ShortThreads, TenThousandLeakNothing) {
  const auto run = [](int count) {
    std::atomic<int> right{0};
    for (int i = 0; i < count / 2; i++) {
      std::thread a([&] { right += hooked::call(kProbeFull, 4) == probe_of(4); });
      std::thread b([&] { right += hooked::call(SYS_gettid) > 0; });
      a.join();
      b.join();
    }
    EXPECT_EQ(right, count / 2 * 2);
  };
  run(1000);
  const long before = resident_pages();
  run(10'000);
  EXPECT_LT(resident_pages() - before, 64);
  EXPECT_EQ(lives(), 0);
}

TEST(Clone3, ArgumentsMayBeUsedAgain) {
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  for (int i = 0; i < 20; i++) {
    const long child = hooked::call(SYS_clone3, hooked::word(&arguments), sizeof arguments);
    if (child == 0) hooked::call(SYS_exit_group, i);
    ASSERT_GT(child, 0);
    ASSERT_EQ(status_of(static_cast<pid_t>(child)), i);
  }
}

TEST(ClonesThatFail, LeaveNothingBehind) {
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NPROC, &old), 0);
  for (int i = 0; i < 300; i++) {
    EXPECT_EQ(hooked::call(SYS_clone, CLONE_SIGHAND), -EINVAL);
    EXPECT_EQ(hooked::call(SYS_clone, CLONE_NEWUSER | CLONE_FS), -EINVAL);
    EXPECT_EQ(hooked::call(SYS_clone3, 0x8000, 64), -EFAULT);
  }
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGUSR1));
  EXPECT_EQ(lives(), 0);
}

TEST(KernelPerThread, RseqStaysRegistered) {
  if (__rseq_size == 0) GTEST_SKIP() << "glibc did not register rseq";
  std::thread([] {
    auto* area = reinterpret_cast<volatile struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
    EXPECT_EQ(hooked::call(SYS_rseq, hooked::word(const_cast<struct rseq*>(area)), 32, 0, RSEQ_SIG), -EBUSY)
        << "glibc's registration is there";
    for (int i = 0; i < 1000; i++) {
      unsigned cpu = 0;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(i % static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)), &one);
      if (sched_setaffinity(0, sizeof one, &one) != 0) continue;  // a processor that is not ours
      ASSERT_EQ(hooked::call(SYS_getcpu, hooked::word(&cpu), 0, 0), 0);
      ASSERT_EQ(area->cpu_id, cpu);
    }
  }).join();
}

TEST(KernelPerThread, RobustListAndClearedThreadId) {
  static pthread_mutex_t mutex;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&mutex, &attributes);
  std::thread([] {
    void* head = nullptr;
    size_t bytes = 0;
    EXPECT_EQ(hooked::call(SYS_get_robust_list, 0, hooked::word(&head), hooked::word(&bytes)), 0);
    EXPECT_NE(head, nullptr);
    pthread_mutex_lock(&mutex);
  }).join();
  EXPECT_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  pthread_mutex_consistent(&mutex);
  pthread_mutex_unlock(&mutex);
  pthread_mutex_destroy(&mutex);

  const pid_t child = fork();
  if (child == 0) {
    static int cleared = 1;
    _exit(hooked::call(SYS_set_tid_address, hooked::word(&cleared)) == gettid() ? 0 : 1);
  }
  EXPECT_EQ(status_of(child), 0);
}

// CLONE_CHILD_CLEARTID wakes who waits for the end of the thread, that has neither TLS nor libc.
TEST(KernelPerThread, TheEndOfARawThreadIsTold) {
  static volatile int id;
  std::vector<char> stack(64 * 1024);
  constexpr long kFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID |
                          CLONE_PARENT_SETTID | CLONE_SETTLS;
  static char tls_block[8192] __attribute__((aligned(64)));
  char* thread_pointer = tls_block + sizeof tls_block - 1024;
  memcpy(thread_pointer, &thread_pointer, sizeof thread_pointer);
  id = -1;
  long result = SYS_clone;
  register long r10 asm("r10") = hooked::word(&id);
  register long r8 asm("r8") = hooked::word(thread_pointer);
  asm volatile("nop\n syscall\n test %%rax, %%rax\n jnz 1f\n mov $60, %%eax\n xor %%edi, %%edi\n nop\n syscall\n 1:"
               : "+a"(result)
               : "D"(kFlags), "S"(stack.data() + stack.size() - 64), "d"(&id), "r"(r10), "r"(r8)
               : "rcx", "r11", "memory", "cc");
  ASSERT_GT(result, 0);
  while (id != 0) syscall(SYS_futex, &id, FUTEX_WAIT, static_cast<int>(result), nullptr, nullptr, 0);
  EXPECT_EQ(lives(), 0);
}

TEST(Seen, VdsoWorks) {
  timespec a{}, b{};
  ASSERT_EQ(clock_gettime(CLOCK_MONOTONIC, &a), 0);
  ASSERT_EQ(hooked::call(SYS_clock_gettime, CLOCK_MONOTONIC, hooked::word(&b)), 0);
  EXPECT_LE(a.tv_sec * 1'000'000'000 + a.tv_nsec, b.tv_sec * 1'000'000'000 + b.tv_nsec);
  EXPECT_NE(getauxval(AT_SYSINFO_EHDR), 0u);
  const auto* header = reinterpret_cast<const unsigned char*>(getauxval(AT_SYSINFO_EHDR));
  EXPECT_EQ(memcmp(header, "\x7f" "ELF", 4), 0);
}

TEST(Seen, ProcShowsTheProgram) {
  char path[4096] = "";
  ASSERT_GT(readlink("/proc/self/exe", path, sizeof path - 1), 0);
  EXPECT_NE(strstr(path, "zpoline_life_test"), nullptr);
  std::ifstream maps("/proc/self/maps");
  int program = 0, stack = 0, vdso = 0;
  for (std::string line; std::getline(maps, line);) {
    program += line.find("zpoline_life_test") != std::string::npos;
    stack += line.find("[stack]") != std::string::npos;
    vdso += line.find("[vdso]") != std::string::npos;
  }
  EXPECT_GE(program, 3);
  EXPECT_EQ(stack, 1);
  EXPECT_EQ(vdso, 1);
  std::string command;
  std::getline(std::ifstream("/proc/self/cmdline"), command, '\0');
  EXPECT_NE(command.find("zpoline_life_test"), std::string::npos);
  std::string name;
  std::getline(std::ifstream("/proc/self/comm"), name);
  EXPECT_EQ(name, "zpoline_life_te");
  EXPECT_NE(strstr(reinterpret_cast<const char*>(getauxval(AT_EXECFN)), "zpoline_life_test"), nullptr);
  EXPECT_EQ(getauxval(AT_PAGESZ), 4096u);
  EXPECT_EQ(getauxval(AT_SECURE), 0u);
  int threads = 0;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("Threads:", 0) == 0) threads = atoi(line.c_str() + 8);
  }
  EXPECT_EQ(threads, 1);
}

// After PR_SET_MDWE nothing writable may become executable: what is rewritten works on, what comes later traps.
TEST(Company, MemoryDenyWriteExecute) {
  constexpr int kSetMdwe = 65;
  const pid_t child = fork();
  if (child == 0) {
    if (prctl(kSetMdwe, 1, 0, 0, 0) != 0) _exit(99);
    void* library = dlopen(LATE_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) _exit(98);
    const auto late = reinterpret_cast<LateAnswers (*)()>(dlsym(library, "late_answers"));
    const LateAnswers answers = late();
    const auto probe_of = [](long argument) { return hooked::expected() ? argument + 1 : -ENOSYS; };
    const bool right = answers.in_constructor == probe_of(41) && answers.probed == probe_of(1) && answers.probed_full == probe_of(1);
    if (!right || answers.process != getpid()) _exit(96);
    const int lived = lives();
    if (lived != 0) _exit(lived);
    dlclose(library);
    void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    _exit(memory == MAP_FAILED && errno == EACCES ? 0 : 97);
  }
  const int status = status_of(child);
  if (status == 99) GTEST_SKIP() << "this kernel has no PR_SET_MDWE";
  EXPECT_EQ(status, 0);
}

}  // namespace
