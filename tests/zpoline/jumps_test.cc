// Near jumps: which site gets which form, at start and late, and what a program sees of a call through one.
// SPDX-License-Identifier: BSD-3-Clause
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "tests/zpoline/hooked.h"
#include "tests/lib/rounds.h"

extern "C" {
#define SITE(name) \
  long name(long);  \
  extern const uint8_t name##_mov[];
SITE(plain)
SITE(passed)
SITE(compared)
SITE(vfork_and_exit)
long red_zone(long, long*);
long red_zone_unknown(long, long*, long);
long fork_with_red_zone(long, long*);
long clone_on(long, void*);
long sleeps(long, void*, long);
}

namespace {

enum Form {
  kUntouched,
  kCall,
  kJump,      // and a call behind it
  kJumpOnly,  // the system call behind it stays one
  kJumpOver,  // from an xor over the system call and the first byte of a compare
  kCallOver,  // a call between an xor and a compare
  kTrap,
  kTrapOver,  // as kCallOver
};

// What becomes in this mode of a form of mode zpoline.
Form in_this_mode(Form form) {
  if (!hooked::expected() || hooked::mode() == "sud") return kUntouched;
  if (hooked::mode() == "zpoline") return form;
  switch (form) {
    case kCall: return kTrap;
    case kCallOver: return kTrapOver;
    case kJump: return kJumpOnly;
    default: return form;
  }
}

struct Expected {
  const char* name;  // of the function; the mov is at name_mov
  Form at_start;
};
constexpr Expected kExpected[] = {
    {"plain", kJump},
    {"compared", kJumpOver},
    {"compared_by_two", kCallOver},
    {"unclaimed", kUntouched},
    {"branch_to_syscall", kCall},
    {"branch_inside", kCall},
    {"label_inside", kCall},
    {"label_on_syscall", kCall},
    {"table_inside", kCall},
    {"red_zone", kJumpOnly},
    {"sse", kJump},
    {"full", kJump},
    {"passed", kJump},
    {"engines", kJump},
    {"fork_with_red_zone", kJumpOnly},
    {"vfork_and_exit", kJump},
    {"clone_on", kJump},
    {"sleeps", kJump},
    {"at_0_of_16", kJump},
    {"at_3_of_16", kJump},
    {"at_4_of_16", kJump},
    {"at_11_of_16", kJump},
    {"at_12_of_16", kJump},
    {"at_15_of_16", kJump},
    {"at_58_of_64", kJump},
    {"at_63_of_64", kJump},
    {"at_end_of_page", kJump},
    {"across_pages", kJump},
};

// The form while other threads run: what one store can write.
Form late_form(const uint8_t* mov, Form at_start) {
  const auto at = reinterpret_cast<uint64_t>(mov);
  const bool jump = at % 16 + 5 <= 16;
  const bool call = (at + 5) % 64 != 63;
  switch (at_start) {
    case kJump: return jump ? call ? kJump : kJumpOnly : call ? kCall : kTrap;
    case kJumpOnly: return jump ? kJumpOnly : kTrap;
    case kJumpOver: return kCallOver;
    default: return at_start;
  }
}

constexpr const char* kLibrary = TEST_DIRECTORY "/libzpstack-test-jump-sites.so";
constexpr const char* kNoRelro = TEST_DIRECTORY "/libzpstack-test-jump-sites-late.so";
constexpr const char* kNext = TEST_DIRECTORY "/libzpstack-test-jump-sites-next.so";

std::string hex(const uint8_t* bytes, size_t count) {
  std::string text;
  char two[4];
  for (size_t i = 0; i < count; i++) {
    snprintf(two, sizeof two, "%02x ", bytes[i]);
    text += two;
  }
  return text;
}

// The bytes at `mov` that do not depend on where the stub is.
void expect_form(const uint8_t* mov, Form form, const std::string& name) {
  switch (form) {
    case kUntouched:
      if (mov[0] == 0x31) EXPECT_EQ(hex(mov, 10), "31 c0 0f 05 48 3d 00 f0 ff ff ") << name;
      else EXPECT_EQ(hex(mov, 1) + hex(mov + 5, 2), "b8 0f 05 ") << name;
      break;
    case kCall: EXPECT_EQ(hex(mov, 1) + hex(mov + 5, 2), "b8 ff d0 ") << name; break;
    case kJump: EXPECT_EQ(hex(mov, 1) + hex(mov + 5, 2), "e9 ff d0 ") << name; break;
    case kJumpOnly: EXPECT_EQ(hex(mov, 1) + hex(mov + 5, 2), "e9 0f 05 ") << name; break;
    case kJumpOver: EXPECT_EQ(hex(mov, 1) + hex(mov + 5, 5), "e9 3d 00 f0 ff ff ") << name; break;
    case kTrap: EXPECT_EQ(hex(mov, 1) + hex(mov + 5, 2), "b8 f4 05 ") << name; break;
    case kTrapOver: EXPECT_EQ(hex(mov, 10), "31 c0 f4 05 48 3d 00 f0 ff ff ") << name; break;
    case kCallOver: EXPECT_EQ(hex(mov, 10), "31 c0 ff d0 48 3d 00 f0 ff ff ") << name; break;
  }
}

template <class Function = long (*)(long)>
Function find(void* library, const std::string& name) {
  return reinterpret_cast<Function>(dlsym(library, name.c_str()));
}

void check_forms(void* library, bool late) {
  struct Late {
    const char* name;
    Form form;
  };
  constexpr Late kPlaced[] = {{"at_0_of_16_mov", kJump},  {"at_11_of_16_mov", kJump},      {"at_12_of_16_mov", kCall},
                              {"at_15_of_16_mov", kCall}, {"at_58_of_64_mov", kJumpOnly},  {"at_63_of_64_mov", kCall},
                              {"across_pages_mov", kCall}, {"at_end_of_page_mov", kJump}};
  for (const Late& placed : kPlaced) {
    if (late) EXPECT_EQ(late_form(static_cast<const uint8_t*>(dlsym(library, placed.name)), kJump), placed.form) << placed.name;
  }
  for (const Expected& expected : kExpected) {
    const auto* mov = static_cast<const uint8_t*>(dlsym(library, (std::string(expected.name) + "_mov").c_str()));
    ASSERT_NE(mov, nullptr) << expected.name;
    expect_form(mov, in_this_mode(late ? late_form(mov, expected.at_start) : expected.at_start), expected.name);
  }
}

// What every form answers.
void check_answers(void* library) {
  const bool hook = hooked::expected();
  for (const Expected& expected : kExpected) {
    const std::string name = expected.name;
    if (name.rfind("at_", 0) == 0 || name.rfind("branch", 0) == 0 || name.rfind("label", 0) == 0 || name == "table_inside" ||
        name == "plain" || name == "sse" || name == "full" || name == "across_pages") {
      EXPECT_EQ(find(library, name)(41), hook ? 42 : -ENOSYS) << name;
      EXPECT_EQ(find(library, name)(0), hook ? 1 : -ENOSYS) << name;
    }
  }
  EXPECT_EQ(find(library, "passed")(0), getpid());
  EXPECT_EQ(find(library, "unclaimed")(0), getppid());
  EXPECT_EQ(find(library, "engines")(1), -EINVAL);
  EXPECT_EQ(find(library, "zeroed")(-1), -EBADF);
  EXPECT_EQ(find(library, "compared")(-1), 1);
  EXPECT_EQ(find(library, "compared_by_two")(-1), 1);
  EXPECT_EQ(find(library, "compared_by_two")(1 << 20), 1);
}

TEST(Jumps, FormsAtStart) {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(library, nullptr);
  check_forms(library, false);
  check_answers(library);
  dlclose(library);
}

int count_mappings() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find(" r-xp ") != std::string::npos ? 1 : 0;
  return count;
}

// Another thread exists, so that what is patched may be executed meanwhile.
class Company {
 public:
  Company() : thread_([this] {
    while (!ended_) sched_yield();
  }) {}
  ~Company() {
    ended_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

TEST(Jumps, FormsOfALibraryLoadedLate) {
  const int before = count_mappings();
  for (int i = 0; i < 20; i++) {
    const Company company;
    void* library = dlopen(kNext, RTLD_NOW);
    ASSERT_NE(library, nullptr) << dlerror();
    check_forms(library, true);
    check_answers(library);
    dlclose(library);
  }
  EXPECT_EQ(count_mappings(), before) << "stubs went with their library";
}

// A thread runs the site while it is patched: it gets the kernel's answer or the hook's, and the hook's for ever once it had it. (A
// library without RELRO is looked at when the next one is loaded.)
TEST(Jumps, PatchedWhileExecuted) {
  long seen_native = 0;
  for (long i = 0; i < tests::rounds(60); i++) {
    void* library = dlopen(kNoRelro, RTLD_NOW);
    ASSERT_NE(library, nullptr) << dlerror();
    const char* name = i % 3 == 0 ? "plain" : i % 3 == 1 ? "at_4_of_16" : "at_12_of_16";
    const auto function = find(library, name);
    std::atomic<long> calls{0};
    std::atomic<bool> ended{false};
    std::atomic<bool> wrong{false};
    std::thread thread([&] {
      bool was_hooked = false;
      while (!ended) {
        const long result = function(41);
        if (result == 42) was_hooked = true;
        else if (result != -ENOSYS || was_hooked) wrong = true;
        else seen_native++;
        calls++;
      }
    });
    while (calls < 100) sched_yield();
    void* next = dlopen(kNext, RTLD_NOW);
    const long then = calls;
    while (calls < then + 100) sched_yield();
    EXPECT_EQ(function(41), hooked::expected() ? 42 : -ENOSYS) << name << " " << hex(reinterpret_cast<const uint8_t*>(function), 8);
    ended = true;
    thread.join();
    ASSERT_FALSE(wrong);
    dlclose(next);
    dlclose(library);
  }
  if (hooked::mode() != "sud") EXPECT_GT(seen_native, 0);
}

void fill(long* pattern) {
  for (int i = 0; i < 16; i++) pattern[i] = 0x0101010101010101 * (i + 1);
}
void check(const long* pattern) {
  for (int i = 0; i < 16; i++) EXPECT_EQ(pattern[i], 0x0101010101010101 * (i + 1)) << 128 - 8 * i << " below rsp";
}

TEST(RedZone, IsKeptWhole) {
  long pattern[16];
  fill(pattern);
  EXPECT_EQ(red_zone(5, pattern), hooked::expected() ? 6 : -ENOSYS);
  check(pattern);
  fill(pattern);
  EXPECT_EQ(red_zone_unknown(5, pattern, kProbeGeneral), hooked::expected() ? 6 : -ENOSYS);
  check(pattern);
}

int status_of(long child) {
  int status = -1;
  while (waitpid(static_cast<pid_t>(child), &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

TEST(Children, ForkKeepsTheRedZoneOnBothSides) {
  for (int i = 0; i < 20; i++) {
    long pattern[16];
    fill(pattern);
    const long child = fork_with_red_zone(0, pattern);
    ASSERT_GT(child, 0);
    EXPECT_EQ(status_of(child), 0);
  }
}

TEST(Children, VforkAndClone) {
  static char stack[65536];
  for (int i = 0; i < 20; i++) {
    EXPECT_EQ(status_of(vfork_and_exit(i)), i);
    const long child = clone_on(CLONE_VM | CLONE_VFORK | SIGCHLD, stack + sizeof stack);
    ASSERT_GT(child, 0);
    EXPECT_EQ(status_of(child), 14);
    EXPECT_EQ(plain(1), hooked::expected() ? 2 : -ENOSYS);
  }
  EXPECT_EQ(clone_on(CLONE_THREAD, nullptr), -EINVAL);
}

// The name of the mapping that holds `address`: a path, or "" for an anonymous one.
std::string mapping_of(uint64_t address) {
  Dl_info info;
  return dladdr(reinterpret_cast<void*>(address), &info) != 0 ? info.dli_fname : "";
}

volatile bool seen_stub;
volatile uint64_t stub_rip;
volatile long handled;
volatile long lost;  // handlers whose unwinder did not find the caller
uint64_t caller;  // the function that an unwinder has to come by

_Unwind_Reason_Code look_for_caller(_Unwind_Context* context, void* found) {
  if (_Unwind_GetRegionStart(context) == caller) *static_cast<bool*>(found) = true;
  return _URC_NO_REASON;
}

void on_signal(int number, siginfo_t*, void* opaque) {
  const auto* registers = static_cast<ucontext_t*>(opaque)->uc_mcontext.gregs;
  const auto rip = static_cast<uint64_t>(registers[REG_RIP]);
  handled = handled + 1;
  if (mapping_of(rip).empty()) {
    seen_stub = true;
    stub_rip = rip;
    if (number == SIGTRAP) return;  // a debugger's view: it sees what is there
  }
  bool found = false;
  _Unwind_Backtrace(look_for_caller, &found);
  if (!found) lost = lost + 1;
}

[[gnu::noinline]] void call_until(long wanted) {
  const itimerval often{{0, 100}, {0, 100}};
  const itimerval never{};
  volatile long calls = 0;
  setitimer(ITIMER_REAL, &often, nullptr);
  while (handled < wanted || calls < 1000) {
    (void)plain(calls);
    ASSERT_EQ(compared(-1), 1);  // interrupted before, in and behind the compare
    calls = calls + 1;
  }
  setitimer(ITIMER_REAL, &never, nullptr);
}

class Handlers : public ::testing::Test {
 protected:
  void install(int number) {
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    ASSERT_EQ(sigaction(number, &action, nullptr), 0);
    seen_stub = false;
    handled = 0;
    lost = 0;
  }
};

// Interrupted anywhere, also in a stub, the handler sees the program's or the engine's code and unwinds to the caller.
TEST_F(Handlers, SeeTheProgram) {
  install(SIGALRM);
  caller = reinterpret_cast<uint64_t>(&call_until);
  call_until(3000);
  EXPECT_FALSE(seen_stub) << std::hex << stub_rip;
  EXPECT_EQ(lost, 0);
}

// Every instruction of a near call in turn, by the trap flag: the unwinder finds the caller from each.
[[gnu::noinline]] long step_through(long argument) {
  asm volatile("pushfq\n orq $0x100, (%%rsp)\n popfq" : : : "memory", "cc");
  const long result = plain(argument);
  asm volatile("pushfq\n andq $~0x100, (%%rsp)\n popfq" : : : "memory", "cc");
  return result;
}

TEST_F(Handlers, UnwindFromEachInstruction) {
  install(SIGTRAP);
  caller = reinterpret_cast<uint64_t>(&step_through);
  EXPECT_EQ(step_through(1), hooked::expected() ? 2 : -ENOSYS);
  EXPECT_EQ(lost, 0);
  EXPECT_GT(handled, hooked::expected() ? 50 : 5);
  EXPECT_EQ(seen_stub, hooked::expected() && hooked::mode() != "sud") << "a near call goes through a stub";
}

// Cancelled in a call that came through a jump: destructors run.
TEST(Cancel, RunsDestructors) {
  SKIP_UNLESS_HOOKED();
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  static std::atomic<bool> destroyed, sleeping;
  static long (*volatile call)(long, void*, long) = sleeps;  // a call that may throw, as far as the compiler knows
  destroyed = sleeping = false;
  pthread_t thread;
  ASSERT_EQ(pthread_create(
                &thread, nullptr,
                [](void* opaque) -> void* {
                  struct Guard {
                    ~Guard() { destroyed = true; }
                  } guard;
                  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
                  char byte;
                  sleeping = true;
                  call(*static_cast<int*>(opaque), &byte, 1);
                  return nullptr;
                },
                pipes),
            0);
  while (!sleeping) sched_yield();
  pthread_cancel(thread);
  void* result = nullptr;
  pthread_join(thread, &result);
  EXPECT_EQ(result, PTHREAD_CANCELED);
  EXPECT_TRUE(destroyed);
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace
