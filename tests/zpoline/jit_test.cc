// System calls of code that no proof covers: made at run time, mapped shared, changing itself. With threads, forks and signals:
// jit_threads_test.cc.
// SPDX-License-Identifier: BSD-3-Clause
//
// Threads are armed for it once and for ever, so each case runs in a child that begins unarmed.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/made.h"

namespace {

using namespace made;

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

// Small memory that the kernel puts into a hole among the libraries: if it stayed there, every call of libc would be a signal.
TEST(MadeCode, LeavesLibcFree) {
  SKIP_UNLESS_HOOKED();
  if (hooked::mode() == "sud") GTEST_SKIP() << "all of libc traps";
  uintptr_t engine = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; engine == 0 && std::getline(maps, line);) {
    if (line.find("/libzpstack.so") != std::string::npos) engine = std::stoul(line, nullptr, 16);
  }
  ASSERT_NE(engine, 0u);
  const auto libc = reinterpret_cast<uintptr_t>(dlsym(RTLD_DEFAULT, "getppid"));
  const auto is_between = [=](const void* memory) {
    const auto at = reinterpret_cast<uintptr_t>(memory);
    return (at > libc) != (at > engine);
  };
  void* hole = new_pages(PROT_READ);
  munmap(hole, kPage);
  if (!is_between(hole)) GTEST_SKIP() << "there is no hole";  // here, not in the child: its skip would look like a pass
  in_child([=] {
    for (int i = 0; i < 3; i++) {
      uint8_t* page = changing_code();
      EXPECT_FALSE(is_between(page)) << "at " << static_cast<void*>(page);
      expect_calls(page);
    }
    EXPECT_EQ(new_pages(PROT_READ), hole) << "what was there is free again";
  });
}

// Pages behind the end of their file cannot be searched: reading them is SIGBUS, which the thread may block or have a handler for.
TEST(PrivateText, LongerThanItsFile) {
  static std::atomic<int> ran{0};
  for (const bool blocks : {true, false}) {
    for (const bool protects : {true, false}) {
      in_child([=] {
        char path[] = "/tmp/zps_text_XXXXXX";
        const int fd = mkstemp(path);
        ASSERT_GE(fd, 0);
        unlink(path);
        ASSERT_EQ(write(fd, kHarmless, sizeof kHarmless), static_cast<ssize_t>(sizeof kHarmless));
        sigset_t bus;
        sigemptyset(&bus);
        sigaddset(&bus, SIGBUS);
        if (blocks) pthread_sigmask(SIG_BLOCK, &bus, nullptr);
        signal(SIGBUS, [](int) { ran++; });
        void* text = mmap(nullptr, 3 * kPage, protects ? PROT_READ : PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
        ASSERT_NE(text, MAP_FAILED);
        if (protects) ASSERT_EQ(mprotect(text, 3 * kPage, PROT_READ | PROT_EXEC), 0);
        EXPECT_EQ(reinterpret_cast<Made>(text)(1, 0), 6);
        EXPECT_EQ(ran, 0);
        expect_calls(changing_code());
      });
    }
  }
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
