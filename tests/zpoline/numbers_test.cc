// Numbers that no system call has, and calls and jumps through NULL pointers.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>

#include "tests/zpoline/hooked.h"

namespace {

class OddNumber : public ::testing::TestWithParam<long> {};

// The kernel looks at the lower half of rax only: with that zero it is read().
TEST_P(OddNumber, GivesWhatTheKernelGives) {
  const long expected = static_cast<int>(GetParam()) == 0 ? -EBADF : -ENOSYS;
  for (int i = 0; i < 3; i++) EXPECT_EQ(hooked::call(GetParam(), -1, 2, 3), expected) << GetParam();
}

INSTANTIATE_TEST_SUITE_P(Kernel, OddNumber,
                         ::testing::Values(-1L, -2L, -38L, 337L, 338L, 339L, 341L, 342L, 345L, 346L, 400L, 417L, 418L, 422L,
                                           423L, 480L, 511L, 512L, 513L, 514L, 517L, 518L, 519L, 520L, 521L, 522L, 523L, 547L, 600L, 614L,
                                           620L, 1000L, 4095L, 4096L, 5000L, 65536L, 0x7fffffffL, INT64_MAX, INT64_MIN, 0x123456789abcdef0L,
                                           -0x1000000000000L, 0x800000000000L));

sigjmp_buf back;
volatile uint64_t fault_address;
volatile int fault_code;
volatile uint64_t fault_rip;

void on_fault(int, siginfo_t* info, void* context) {
  fault_address = reinterpret_cast<uint64_t>(info->si_addr);
  fault_code = info->si_code;
  fault_rip = static_cast<uint64_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
  siglongjmp(back, 1);
}

class NullPointer : public ::testing::Test {
 protected:
  void SetUp() override {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    ASSERT_EQ(sigaction(SIGSEGV, &action, &old_), 0);
    fault_address = 1;
  }
  void TearDown() override { sigaction(SIGSEGV, &old_, nullptr); }
  struct sigaction old_ {};
};

[[gnu::noinline]] void call_through_rdx(uint64_t target, uint64_t rax) {
  asm volatile("call *%0" : : "d"(target), "a"(rax) : "memory", "rcx", "r11");
}
[[gnu::noinline]] void call_through_rax(uint64_t target) { asm volatile("call *%%rax" : : "a"(target) : "memory", "rcx", "r11"); }
[[gnu::noinline]] void jump_through_rdx(uint64_t target, uint64_t rax) {
  asm volatile("sub $8, %%rsp\n jmp *%0" : : "d"(target), "a"(rax) : "memory");
}

TEST_F(NullPointer, CalledThroughAnyRegister) {
  for (uint64_t target = 0; target < 512; target += target < 8 || target >= 504 ? 1 : 31) {
    for (const uint64_t rax :
         {uint64_t{0}, uint64_t{1}, uint64_t{39}, uint64_t{231}, uint64_t{511}, uint64_t{600}, uint64_t{0x7f0012345678}, ~uint64_t{0}}) {
      if (sigsetjmp(back, 1) == 0) {
        call_through_rdx(target, rax);
        FAIL() << "came back";
      }
      EXPECT_EQ(fault_address, target) << "rax " << rax;
      EXPECT_EQ(fault_rip, target);
      EXPECT_EQ(fault_code, SEGV_MAPERR);
    }
  }
}

TEST_F(NullPointer, CalledThroughRax) {
  for (const uint64_t target : {0, 1, 39, 60, 231}) {
    if (sigsetjmp(back, 1) == 0) {
      call_through_rax(target);
      FAIL() << "came back";
    }
    EXPECT_EQ(fault_address, target);
  }
}

TEST_F(NullPointer, JumpedThrough) {
  if (sigsetjmp(back, 1) == 0) {
    jump_through_rdx(0, 39);
    FAIL() << "came back";
  }
  EXPECT_EQ(fault_address, 0u);
  EXPECT_EQ(fault_rip, 0u);
}

// Natively for every number of the sled; hooked, what the CPU does not record is reported as 0.
TEST_F(NullPointer, JumpedThroughToAnyAddress) {
  for (uint64_t target = 0; target < 512; target++) {
    for (const uint64_t rax : {uint64_t{0}, uint64_t{44}, uint64_t{0x7f0012345678}}) {
      if (sigsetjmp(back, 1) == 0) {
        jump_through_rdx(target, rax);
        FAIL() << "came back";
      }
      ASSERT_TRUE(fault_address == target || (hooked::expected() && fault_address == 0)) << target << " gave " << fault_address;
    }
  }
}

bool page_zero_is_mapped() {
  FILE* maps = fopen("/proc/self/maps", "r");
  unsigned long begin = 1;
  const bool read = fscanf(maps, "%lx", &begin) == 1;
  fclose(maps);
  return read && begin == 0;
}

TEST_F(NullPointer, Read) {
  if (page_zero_is_mapped()) GTEST_SKIP() << "page 0 is executable, so it can be read here: docs/hook.md";
  volatile int* pointer = nullptr;
  asm("" : "+r"(pointer));
  if (sigsetjmp(back, 1) == 0) {
    (void)*pointer;
    FAIL() << "read page 0";
  }
  EXPECT_EQ(fault_address, 0u);
}

TEST_F(NullPointer, Written) {
  volatile int* pointer = nullptr;
  asm("" : "+r"(pointer));
  if (sigsetjmp(back, 1) == 0) {
    *pointer = 1;
    FAIL() << "wrote to page 0";
  }
  EXPECT_EQ(fault_address, 0u);
}

TEST(NullPointerByDefault, KillsWithSegv) {
  const pid_t child = fork();
  if (child == 0) {
    call_through_rdx(0, 1);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}

TEST(PageZero, IsNotTheProgramsToChange) {
  if (hooked::mode() != "zpoline") GTEST_SKIP() << "page 0 is the program's own";
  EXPECT_EQ(hooked::call(SYS_munmap, 0, 4096), 0);
  EXPECT_EQ(hooked::call(SYS_mprotect, 0, 4096, PROT_READ), -ENOMEM);
  EXPECT_EQ(hooked::call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), -EPERM);
  EXPECT_EQ(hooked::call(SYS_getpid), getpid());
}

}  // namespace
