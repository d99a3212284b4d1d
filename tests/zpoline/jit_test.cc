// System calls of code that no proof covers: made at run time, mapped shared, changing itself.
//
// Threads are armed for it once and for ever, so each case runs in a child that begins unarmed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/rounds.h"

namespace {

// mov %rdi,%rax; mov %rsi,%rdi; nop; syscall; ret: a function (number, argument).
constexpr uint8_t kCode[] = {0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x90, 0x0f, 0x05, 0xc3};
constexpr uint8_t kHarmless[] = {0x48, 0x8d, 0x47, 0x05, 0xc3, 0x0f, 0x1f, 0x40, 0x00};  // lea 5(%rdi),%rax; ret; nop
constexpr size_t kCallAt = 7;
constexpr long kPage = 4096;
using Made = long (*)(long, long);

bool is_left_to_kernel() { return getenv("ZPS_JIT") != nullptr; }
long probed(long argument) { return hooked::expected() && !is_left_to_kernel() ? argument + 1 : -ENOSYS; }

void expect_calls(const void* code) {
  const auto function = reinterpret_cast<Made>(reinterpret_cast<uintptr_t>(code));
  for (const long nr : {kProbeGeneral, kProbeSse, kProbeFull}) EXPECT_EQ(function(nr, 6), probed(6));
  EXPECT_EQ(function(SYS_getpid, 0), getpid());
  EXPECT_EQ(memcmp(code, kCode, sizeof kCode), 0) << "code of the program's own making was changed";
}

// The engine answers this only while it uses what is asked for.
bool is_armed() { return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0) != 0; }

uint8_t* new_pages(int protection, long pages = 1) {
  void* made = mmap(nullptr, static_cast<size_t>(pages * kPage), protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(made, MAP_FAILED);
  return static_cast<uint8_t*>(made);
}

uint8_t* changing_code() {
  uint8_t* page = new_pages(PROT_READ | PROT_WRITE | PROT_EXEC);
  memcpy(page, kCode, sizeof kCode);
  return page;
}

template <class Body>
void in_child(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

TEST(MadeCode, WithoutCallsArmsNobody) {
  if (hooked::mode() == "sud") GTEST_SKIP() << "armed from the start";
  in_child([] {
    EXPECT_FALSE(is_armed());
    uint8_t* pages = new_pages(PROT_READ | PROT_WRITE, 5);
    memset(pages, 0xcd, 5 * kPage - 1);  // the first byte of a call; the byte behind the last page is not ours to choose
    memcpy(pages, kHarmless, sizeof kHarmless);
    ASSERT_EQ(mprotect(pages, 5 * kPage, PROT_READ | PROT_EXEC), 0);
    EXPECT_EQ(reinterpret_cast<Made>(pages)(1, 0), 6);
    (void)new_pages(PROT_READ | PROT_EXEC);
    EXPECT_FALSE(is_armed());
    (void)changing_code();
    EXPECT_EQ(is_armed(), hooked::expected());
  });
}

TEST(MadeCode, WrittenThenExecutable) {
  in_child([] {
    uint8_t* page = new_pages(PROT_READ | PROT_WRITE);
    memcpy(page, kCode, sizeof kCode);
    ASSERT_EQ(mprotect(page, kPage, PROT_READ | PROT_EXEC), 0);
    for (int i = 0; i < 100; i++) expect_calls(page);
    munmap(page, kPage);
  });
}

// The call at places that a search by pieces could miss: across words, pieces and pages, the very first and the very last.
TEST(MadeCode, IsFoundWhereverItIs) {
  for (const size_t call_at : {7ul, 8ul, 1015ul, 1023ul, 1024ul, 2047ul, 4094ul, 4095ul, 4096ul, 8189ul}) {
    in_child([call_at] {
      uint8_t* pages = new_pages(PROT_READ | PROT_WRITE, 2);
      memcpy(pages + call_at - kCallAt, kCode, sizeof kCode);
      ASSERT_EQ(mprotect(pages, 2 * kPage, PROT_READ | PROT_EXEC), 0);
      expect_calls(pages + call_at - kCallAt);
    });
  }
}

TEST(MadeCode, HalfOfItInAPageOfItsOwn) {
  for (const int first : {0, 1}) {
    in_child([first] {
      uint8_t* pages = new_pages(PROT_READ | PROT_WRITE, 2);
      memcpy(pages + kPage - 1 - kCallAt, kCode, sizeof kCode);
      ASSERT_EQ(mprotect(pages + first * kPage, kPage, PROT_READ | PROT_EXEC), 0);
      ASSERT_EQ(mprotect(pages + (1 - first) * kPage, kPage, PROT_READ | PROT_EXEC), 0);
      expect_calls(pages + kPage - 1 - kCallAt);
    });
  }
}

TEST(MadeCode, ChangingItself) {
  in_child([] {
    uint8_t* page = changing_code();
    for (int i = 0; i < 100; i++) {
      memcpy(page, kCode, sizeof kCode);
      expect_calls(page);
      memset(page, 0x90, sizeof kCode);
      page[sizeof kCode - 1] = 0xc3;
      (void)reinterpret_cast<Made>(page)(0, 0);
    }
    munmap(page, kPage);
  });
}

TEST(MadeCode, MappedTwice) {
  in_child([] {
    const int fd = memfd_create("code", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd, kPage), 0);
    void* writable = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void* executable = mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    ASSERT_NE(executable, MAP_FAILED);
    memcpy(writable, kCode, sizeof kCode);
    expect_calls(executable);
  });
}

// Nothing is in it when it becomes executable, and what comes then comes through another mapping.
TEST(MadeCode, MappedTwiceAndProtected) {
  in_child([] {
    const int fd = memfd_create("code", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd, kPage), 0);
    void* writable = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void* executable = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_EQ(mprotect(executable, kPage, PROT_READ | PROT_EXEC), 0);
    memcpy(writable, kCode, sizeof kCode);
    expect_calls(executable);
  });
}

TEST(MadeCode, ProtectedWithAKeyOrMoved) {
  in_child([] {
    uint8_t* page = new_pages(PROT_READ | PROT_WRITE, 2);
    memcpy(page, kCode, sizeof kCode);
    ASSERT_EQ(syscall(SYS_pkey_mprotect, page, kPage, PROT_READ | PROT_EXEC, -1), 0);
    expect_calls(page);
  });
  in_child([] {
    void* high = reinterpret_cast<void*>(0x7ffff0000000 - 64 * kPage * 16);
    uint8_t* page = changing_code();
    void* moved = mremap(page, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, high);
    if (moved != MAP_FAILED) expect_calls(moved);
    (void)changing_code();
  });
}

TEST(SharedText, IsHookedAndStaysAsItsFile) {
  in_child([] {
    char path[] = "/tmp/zps_text_XXXXXX";
    const int fd = mkstemp(path);
    ASSERT_GE(fd, 0);
    unlink(path);
    ASSERT_EQ(write(fd, kCode, sizeof kCode), static_cast<ssize_t>(sizeof kCode));
    void* text = mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    ASSERT_NE(text, MAP_FAILED);
    expect_calls(text);
    void* private_text = mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    ASSERT_NE(private_text, MAP_FAILED);
    expect_calls(private_text);
    uint8_t now[sizeof kCode];
    ASSERT_EQ(pread(fd, now, sizeof now, 0), static_cast<ssize_t>(sizeof now));
    EXPECT_EQ(memcmp(now, kCode, sizeof now), 0);
  });
}

TEST(PrivateText, MappedByTheProgramItself) {
  in_child([] {
    char path[] = "/tmp/zps_text_XXXXXX";
    const int fd = mkstemp(path);
    ASSERT_GE(fd, 0);
    unlink(path);
    ASSERT_EQ(write(fd, kCode, sizeof kCode), static_cast<ssize_t>(sizeof kCode));
    void* text = mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    ASSERT_NE(text, MAP_FAILED);
    expect_calls(text);
  });
}

// What is mapped where made code was traps without need, and works.
TEST(MadeCode, AddressIsUsedAgain) {
  in_child([] {
    for (int i = 0; i < 50; i++) {
      uint8_t* page = changing_code();
      expect_calls(page);
      munmap(page, kPage);
      uint8_t* again = new_pages(PROT_READ | PROT_WRITE);
      memcpy(again, kHarmless, sizeof kHarmless);
      ASSERT_EQ(mprotect(again, kPage, PROT_READ | PROT_EXEC), 0);
      EXPECT_EQ(reinterpret_cast<Made>(again)(1, 0), 6);
      munmap(again, kPage);
    }
  });
}

// Code below and above everything that was loaded: the free range becomes narrower at both ends.
TEST(MadeCode, LowAndHigh) {
  in_child([] {
    for (const uintptr_t wanted : {uintptr_t{0x20000000}, uintptr_t{0x30000000}, uintptr_t{0x7ffff7000000}}) {
      void* page = mmap(reinterpret_cast<void*>(wanted), kPage, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
      if (page == MAP_FAILED) continue;
      memcpy(page, kCode, sizeof kCode);
      expect_calls(page);
    }
    EXPECT_EQ(hooked::call(kProbeGeneral, 6), hooked::expected() ? 7 : -ENOSYS);
    EXPECT_EQ(hooked::call(SYS_getppid), getppid());
  });
}

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
        while (result == -EINTR) result = hooked::expected() ? hooked::call(kProbeSleep, to_hook[0], hooked::word(&byte), 1) : read(to_hook[0], &byte, 1);
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
      while (!over) (void)tgkill(getpid(), self, SIGSEGV);
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

// What arming takes may be a kill there.
TEST(Boxed, BySeccompNothingIsArmed) {
  if (hooked::mode() == "sud") GTEST_SKIP() << "armed from the start";
  in_child([] {
    sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 1, 0),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_tgsigqueueinfo, 0, 1),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog program{sizeof filter / sizeof filter[0], filter};
    ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ASSERT_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), 0);
    EXPECT_EQ(reinterpret_cast<Made>(changing_code())(kProbeGeneral, 6), -ENOSYS);
  });
}

TEST(LeftToKernel, IfTheSettingSaysSo) {
  in_child([] {
    uint8_t* page = changing_code();
    expect_calls(page);
    if (hooked::mode() != "sud") EXPECT_EQ(is_armed(), hooked::expected() && !is_left_to_kernel());
  });
}

}  // namespace
