// Calls of Go code: their sites are found in each version of Go's table, at start and late, and the hook runs on another stack than a
// goroutine's, which has no byte left here. A signal handler sees the program behind its system call.
// SPDX-License-Identifier: BSD-3-Clause
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/zpoline/hooked.h"

struct SmallCall {
  long nr;
  long arg[6];
  long rcx, r14, r15;
};
struct GoFunctions {
  const uint8_t *unnumbered, *numbered, *widely_numbered, *constant, *not_compared, *vfork_and_exit, *after_unnumbered, *end;
};
extern "C" {
void call_on(const uint8_t* stack_end, const void* function, SmallCall* call);
extern const GoFunctions go12_functions, go116_functions, go118_functions, go120_functions, go126_functions;
}

namespace {

struct Library {
  const char* name;
  const GoFunctions* functions;
  bool at_start;
};

Library loaded_late() {
  void* library = dlopen(TEST_DIRECTORY "/libzpstack-test-go-sites-late.so", RTLD_NOW);
  if (library == nullptr) return {"late", nullptr, false};
  return {"late", static_cast<const GoFunctions*>(dlsym(library, "late_functions")), false};
}

const std::vector<Library>& libraries() {
  static const std::vector<Library> all = {{"go12", &go12_functions, true},   {"go116", &go116_functions, true},
                                           {"go118", &go118_functions, true}, {"go120", &go120_functions, true},
                                           {"go126", &go126_functions, true}, loaded_late()};
  return all;
}

// A thread's stack for signals, and a stack that ends where a function begins: below rsp nothing is mapped then.
class Goroutine {
 public:
  Goroutine() {
    memory_ = static_cast<uint8_t*>(mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_EQ(mprotect(memory_, kPage, PROT_NONE), 0);
    stack_t signals{};
    signals.ss_sp = signal_stack_.data();
    signals.ss_size = signal_stack_.size();
    EXPECT_EQ(sigaltstack(&signals, nullptr), 0);
  }
  ~Goroutine() {
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
    munmap(memory_, 2 * kPage);
  }
  SmallCall call(const uint8_t* function, long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) const {
    SmallCall call{nr, {a, b, c, d, e, f}, 0, 0, 0};
    call_on(rsp() + 8, function, &call);
    EXPECT_EQ(call.r14, 0x1414);
    EXPECT_EQ(call.r15, 0x1515);
    return call;
  }
  // While a function runs.
  [[nodiscard]] uint8_t* rsp() const { return memory_ + kPage; }

 private:
  static constexpr size_t kPage = 4096;
  uint8_t* memory_;
  std::vector<char> signal_stack_ = std::vector<char>(256 << 10);
};

class SmallStacks : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override { ASSERT_NE(go().unnumbered, nullptr) << dlerror(); }
  [[nodiscard]] const Library& library() const { return libraries()[GetParam()]; }
  [[nodiscard]] const GoFunctions& go() const { return *library().functions; }
  Goroutine goroutine_;
};

constexpr uint8_t kJump = 0xe9, kTrap = 0xf4, kSyscall = 0x0f;

TEST_P(SmallStacks, sites_get_jumps_or_traps_and_constants_stay) {
  const bool untouched = !hooked::expected() || hooked::mode() == "sud";
  const bool jumps = library().at_start;
  const auto form = [&](uint8_t before, uint8_t after) { return untouched ? before : after; };
  EXPECT_EQ(go().unnumbered[0], form(kSyscall, jumps ? kJump : kTrap));
  EXPECT_EQ(go().widely_numbered[7], form(kSyscall, jumps ? kJump : kTrap));
  EXPECT_EQ(go().not_compared[3], form(kSyscall, kTrap));
  EXPECT_EQ(go().vfork_and_exit[2], form(kSyscall, kTrap));
  EXPECT_EQ(go().constant[0], 0xb8);
  EXPECT_EQ(go().constant[1], 0x0f);
  if (jumps) EXPECT_EQ(go().numbered[0], form(0xb8, kJump));
}

TEST_P(SmallStacks, kernel_answers) {
  SmallCall call = goroutine_.call(go().unnumbered, SYS_getpid);
  EXPECT_EQ(call.nr, getpid());
  EXPECT_EQ(call.arg[2], 0);
  EXPECT_EQ(call.rcx, hooked::word(go().after_unnumbered));
  call = goroutine_.call(go().unnumbered, SYS_getppid);  // that nobody claims
  EXPECT_EQ(call.nr, getppid());
  EXPECT_EQ(call.rcx, hooked::word(go().after_unnumbered));
  call = goroutine_.call(go().unnumbered, SYS_read, -1, 2, 3, 4, 5, 6);
  EXPECT_EQ(call.nr, -1);
  EXPECT_EQ(call.arg[2], EBADF);
  EXPECT_EQ(std::vector<long>({call.arg[0], call.arg[1], call.arg[3], call.arg[4], call.arg[5]}), std::vector<long>({-1, 2, 4, 5, 6}));
  EXPECT_EQ(goroutine_.call(go().not_compared, SYS_getpid).nr, getpid());
  for (const long nr : {100000L, -1L}) EXPECT_EQ(goroutine_.call(go().unnumbered, nr).arg[2], ENOSYS) << nr;
  EXPECT_EQ(goroutine_.call(go().unnumbered, 1L << 40 | SYS_getpid).nr, getpid());
  EXPECT_EQ(goroutine_.call(go().constant, 0).nr, 0x50f);
}

TEST_P(SmallStacks, hook_answers) {
  SKIP_UNLESS_HOOKED();
  for (const long nr : {kProbeGeneral, kProbeSse, kProbeFull}) EXPECT_EQ(goroutine_.call(go().unnumbered, nr, 41).nr, 42) << nr;
  EXPECT_EQ(goroutine_.call(go().numbered, 0, 41).nr, 42);
  EXPECT_EQ(goroutine_.call(go().widely_numbered, 0, 41).nr, 42);
  EXPECT_EQ(goroutine_.call(go().not_compared, kProbeFull, 41).nr, 42);
}

// The one call that asks where rsp is: it takes 32 bytes.
TEST_P(SmallStacks, alternate_stack_is_known) {
  stack_t seen{};
  SmallCall call{SYS_sigaltstack, {0, hooked::word(&seen)}, 0, 0, 0};
  call_on(goroutine_.rsp() + 40, go().unnumbered, &call);
  EXPECT_EQ(call.nr, 0);
  EXPECT_EQ(seen.ss_size, size_t{256} << 10);
}

const GoFunctions* called_by_handler = nullptr;
volatile long seen_rip = 0, seen_rsp = 0, nested = 0;

void on_signal(int, siginfo_t*, void* context) {
  const auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  seen_rip = registers[REG_RIP];
  seen_rsp = registers[REG_RSP];
  alignas(64) uint8_t room[24 << 10];  // Go's handlers call from the stack that they run on
  for (int i = 0; i < 100; i++) {
    SmallCall call{SYS_getpid, {}, 0, 0, 0};
    call_on(room + sizeof room, called_by_handler->unnumbered, &call);
    nested = call.nr;
  }
}

// The thread `tid` sleeps in read(). (/proc says so of natively as well as of hooked calls.)
bool sleeps_in_read(pid_t tid) {
  std::ifstream file("/proc/self/task/" + std::to_string(tid) + "/syscall");
  std::string number;
  return file >> number && number == "0";
}

TEST_P(SmallStacks, handlers_see_the_program) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  called_by_handler = &go();
  seen_rip = 0;
  seen_rsp = 0;
  nested = 0;
  std::atomic<pid_t> tid{0};
  std::thread sleeper([&] {
    const Goroutine first;
    tid = gettid();
    char byte;
    const SmallCall call = first.call(go().unnumbered, SYS_read, ends[0], hooked::word(&byte), 1);
    EXPECT_EQ(call.nr, -1);
    EXPECT_EQ(call.arg[2], EINTR);
    EXPECT_EQ(seen_rip, hooked::word(go().after_unnumbered));
    EXPECT_EQ(seen_rsp, hooked::word(first.rsp()));
    EXPECT_EQ(nested, getpid());
  });
  while (tid == 0 || !sleeps_in_read(tid)) sched_yield();
  EXPECT_EQ(tgkill(getpid(), tid, SIGUSR1), 0);
  sleeper.join();
  close(ends[0]);
  close(ends[1]);
}

TEST_P(SmallStacks, children) {
  int status = 0;
  SmallCall call = goroutine_.call(go().unnumbered, SYS_fork);
  if (call.nr == 0) goroutine_.call(go().unnumbered, SYS_exit_group, 3);
  ASSERT_GT(call.nr, 0);
  EXPECT_EQ(waitpid(static_cast<pid_t>(call.nr), &status, 0), call.nr);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 3) << status;
  call = goroutine_.call(go().vfork_and_exit, SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD);
  ASSERT_GT(call.nr, 0);
  EXPECT_EQ(waitpid(static_cast<pid_t>(call.nr), &status, 0), call.nr);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
  EXPECT_EQ(goroutine_.call(go().unnumbered, SYS_getpid).nr, getpid());
}

size_t mapped_bytes() {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * 4096;
}

TEST_P(SmallStacks, threads_leave_nothing) {
  const auto run = [&] { std::thread([&] { EXPECT_EQ(Goroutine().call(go().unnumbered, SYS_getpid).nr, getpid()); }).join(); };
  for (int i = 0; i < 4; i++) run();
  const size_t before = mapped_bytes();
  for (int i = 0; i < 100; i++) run();
  EXPECT_LE(mapped_bytes(), before + (1 << 20));
}

INSTANTIATE_TEST_SUITE_P(versions, SmallStacks, testing::Range(size_t{0}, libraries().size()),
                         [](const testing::TestParamInfo<size_t>& info) { return std::string(libraries()[info.param].name); });

}  // namespace
