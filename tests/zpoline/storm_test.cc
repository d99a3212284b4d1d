// Signals at arbitrary instructions of hooked code: a timer and another thread interrupt each kind of work, and the handlers make calls.
// SPDX-License-Identifier: BSD-3-Clause
//
// Short by default; ZPS_TEST_ROUNDS=1000000 says how many handlers have to run over each kind of work.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <ctime>
#include <thread>

#include "tests/zpoline/hooked.h"
#include "tests/lib/rounds.h"
#include "tests/zpoline/snapshot.h"

extern char** environ;

namespace {

std::atomic<long> handled{0};
std::atomic<int> wrong_line{0};
std::atomic<pid_t> target{0};  // the thread that the sender interrupts

#define MUST(condition) \
  do { \
    if (!(condition)) wrong_line = __LINE__; \
  } while (0)

long probed(long nr, long argument) { return hooked::call(nr, argument); }
long expected_of_probe(long argument) { return hooked::expected() ? argument + 1 : -ENOSYS; }

void make_calls() {
  const int error = errno;
  const long count = handled.fetch_add(1);
  MUST(probed(kProbeGeneral, count) == expected_of_probe(count));
  MUST(hooked::call(SYS_getpid) == getpid());
  if (count % 8 == 0) {
    MUST(probed(kProbeFull, count) == expected_of_probe(count));
    MUST(hooked::call(kProbeInside) == (hooked::expected() ? 1 : -ENOSYS));  // a call of a handler is a whole one
    MUST(hooked::call(SYS_read, -1, 0, 0) == -EBADF);
  }
  errno = error;
}

// SIGUSR2 nests in itself. A periodic timer would be ahead of handlers on a busy machine, natively too: each finds the next signal waiting,
// until no stack is left. So a handler winds the timer up for the next one, and from a depth on that is left to those that return.
constexpr int kDeepest = 16;
constexpr long kIntervalNs = 20'000;
thread_local volatile int depth = 0;
timer_t timer;

void wind_timer() {
  const itimerspec once{{0, 0}, {0, kIntervalNs}};
  MUST(timer_settime(timer, 0, &once, nullptr) == 0);
}

void enter_handler(int number) {
  const int error = errno;
  depth = depth + 1;
  if (number == SIGUSR2 && depth <= kDeepest) wind_timer();
  errno = error;
}

void on_signal(int number, siginfo_t*, void*) {
  enter_handler(number);
  make_calls();
  const int error = errno;
  depth = depth - 1;
  if (depth == kDeepest) wind_timer();
  errno = error;
}

sigjmp_buf back;
void on_signal_jump(int number, siginfo_t*, void*) {
  enter_handler(number);
  make_calls();
  siglongjmp(back, 1);
}

void install(int number, void (*handler)(int, siginfo_t*, void*), int flags) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  ASSERT_EQ(sigaction(number, &action, nullptr), 0);
}

class Storm : public ::testing::Test {
 protected:
  void SetUp() override {
    handled = 0;
    wrong_line = 0;
    target = gettid();
    install(SIGUSR1, on_signal, SA_RESTART);
    install(SIGUSR2, on_signal, SA_RESTART | SA_NODEFER);
    wanted_ = tests::rounds(2000);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR2;
    event._sigev_un._tid = gettid();
    ASSERT_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    depth = 0;
    wind_timer();
    sender_ = std::thread([this] {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, nullptr);
      while (!over_) {
        (void)tgkill(getpid(), target, SIGUSR1);
        // Signals of one number do not queue: the next one waits for the handler, or for a while.
        const long seen = handled;
        for (int i = 0; i < 100 && handled == seen; i++) sched_yield();
      }
    });
  }

  void TearDown() override {
    over_ = true;
    sender_.join();
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    timer_delete(timer);  // no handler winds it up any more
    EXPECT_EQ(wrong_line, 0) << "the check in this line of the test failed";
    EXPECT_GE(handled, wanted_);
  }

  [[nodiscard]] bool blows() const { return handled < wanted_ && wrong_line == 0; }

 private:
  long wanted_ = 0;
  std::atomic<bool> over_{false};
  std::thread sender_;
};

TEST_F(Storm, OverEmulatedCalls) {
  for (long i = 0; blows(); i++) {
    for (const long nr : {kProbeGeneral, kProbeSse, kProbeFull}) MUST(probed(nr, i) == expected_of_probe(i));
  }
}

TEST_F(Storm, OverSleeps) {
  const int event = eventfd(0, 0);
  ASSERT_GE(event, 0);
  const long nr = hooked::expected() ? static_cast<long>(kProbeSleep) : SYS_read;
  while (blows()) {
    const uint64_t one = 1;
    uint64_t got = 0;
    MUST(write(event, &one, sizeof one) == 8);
    long result = -EINTR;
    while (result == -EINTR) result = hooked::call(nr, event, hooked::word(&got), sizeof got);
    MUST(result == 8 && got == 1);
  }
  close(event);
}

TEST_F(Storm, OverKernelCalls) {
  const pid_t self = getpid();
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  for (long i = 0; blows(); i++) {
    long there = i;
    long here = -1;
    MUST(write(pipes[1], &there, sizeof there) == sizeof there);
    MUST(read(pipes[0], &here, sizeof here) == sizeof here && here == there);
    MUST(hooked::call(SYS_getpid) == self);
    MUST(hooked::call(-1) == -ENOSYS && hooked::call(600) == -ENOSYS && hooked::call(0x123456789abcdef0) == -ENOSYS);
  }
  close(pipes[0]);
  close(pipes[1]);
}

TEST_F(Storm, OverMasksAndDispositions) {
  sigset_t both;
  sigemptyset(&both);
  sigaddset(&both, SIGUSR1);
  sigaddset(&both, SIGUSR2);
  while (blows()) {
    MUST(pthread_sigmask(SIG_BLOCK, &both, nullptr) == 0);
    const long before = handled;
    MUST(probed(kProbeFull, before) == expected_of_probe(before));
    MUST(handled == before);
    MUST(pthread_sigmask(SIG_UNBLOCK, &both, nullptr) == 0);
    install(SIGUSR1, on_signal, SA_RESTART);
    sigset_t now;
    sigprocmask(SIG_SETMASK, nullptr, &now);
    MUST(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2) && !sigismember(&now, SIGTERM));
  }
}

TEST_F(Storm, OverMemoryCalls) {
  while (blows()) {
    void* memory = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(memory != MAP_FAILED);
    *static_cast<volatile char*>(memory) = 1;
    MUST(mprotect(memory, 4096, PROT_READ) == 0);
    memory = mremap(memory, 8192, 4096, 0);
    MUST(memory != MAP_FAILED && munmap(memory, 4096) == 0);
  }
}

int status_of(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

TEST_F(Storm, OverForks) {
  for (long i = 0; blows(); i++) {
    const pid_t self = getpid();
    if (i % 4 == 0) {
      pid_t child = vfork();
      if (child == 0) _exit(5);
      MUST(status_of(child) == 5);
      const char* arguments[] = {"x", nullptr};
      MUST(posix_spawn(&child, "/nonexistent", nullptr, nullptr, const_cast<char**>(arguments), environ) == ENOENT);
    }
    const pid_t child = fork();
    if (child == 0) _exit(hooked::call(SYS_getppid) == self && probed(kProbeSse, 1) == expected_of_probe(1) ? 7 : 8);
    MUST(status_of(child) == 7);
  }
}

TEST_F(Storm, OverThreads) {
  const pid_t self = gettid();
  for (long i = 0; blows(); i++) {
    std::thread thread([i] {
      target = gettid();
      for (int turn = 0; turn < 20; turn++) MUST(probed(kProbeFull, i) == expected_of_probe(i));
    });
    thread.join();
    target = self;
  }
}

// Every register over a call that a signal interrupts somewhere.
TEST_F(Storm, OverAllRegisters) {
  std::mt19937_64 random(7);
  tests::State in = tests::random_state(random, 0);
  constexpr uint64_t kFlags[] = {0x202, 0x202 | 0x8d5, 0x202 | 0x801, 0x202 | 0x0d4};
  for (long i = 0; blows() && !HasFailure(); i++) {
    const long nrs[] = {SYS_getuid, SYS_read, kProbeGeneral, kProbeFull, SYS_munmap, 600};
    in.general[0] = static_cast<uint64_t>(nrs[i % 6]);
    in.general[7] = nrs[i % 6] == SYS_munmap ? 1 : 0xffff'ff00;
    in.flags = kFlags[i % 4];
    static tests::State out;
    const int width = static_cast<int>(i % (tests::widest() + 1));
    tests::snapshot_call(&in, &out, width);
    tests::expect_kept(in, out, width);
  }
}

// Handlers that leave: from before, inside (after it) and behind a hooked call. They land with both signals blocked: siglongjmp() sets
// the mask before it leaves its stack, and a signal that waits already would nest there, natively too, until no stack is left.
TEST_F(Storm, LeftBySiglongjmpAnywhere) {
  static std::atomic<long> turn;
  sigset_t both;
  sigemptyset(&both);
  sigaddset(&both, SIGUSR1);
  sigaddset(&both, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &both, nullptr);
  const int landed = sigsetjmp(back, 1);
  depth = 0;
  wind_timer();
  if (landed == 0) {
    install(SIGUSR1, on_signal_jump, SA_RESTART);
    install(SIGUSR2, on_signal_jump, SA_RESTART | SA_NODEFER);
  }
  if (blows()) pthread_sigmask(SIG_UNBLOCK, &both, nullptr);
  while (blows()) {
    const long now = turn++;
    for (const long nr : {kProbeGeneral, kProbeSse, kProbeFull}) MUST(probed(nr, now) == expected_of_probe(now));
    MUST(hooked::call(SYS_munmap, 1, 2) == -EINVAL);
    MUST(hooked::call(600) == -ENOSYS);
    MUST(hooked::call(kProbeInside) == (hooked::expected() ? 1 : -ENOSYS));
  }
  pthread_sigmask(SIG_BLOCK, &both, nullptr);
  install(SIGUSR1, on_signal, SA_RESTART);
  install(SIGUSR2, on_signal, SA_RESTART);
  pthread_sigmask(SIG_UNBLOCK, &both, nullptr);
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGUSR1) || sigismember(&mask, SIGTERM));
}

}  // namespace
