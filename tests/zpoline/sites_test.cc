// System calls in every place and form: prefixes, ends of pages and cache lines, entries beside the first byte, odd stacks.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "tests/zpoline/hooked.h"

extern "C" {
using SiteFunction = long(long nr, long a, long b, long c);
SiteFunction site_rex_w, site_rex, site_operand_size, site_repeat, site_repeat_not, site_segment, site_many, site_two_entries, site_odd,
    site_across_eight, site_across_line, site_at_page_end, site_across_page, site_known, site_known_across_eight, site_known_across_line,
    site_known_split_in_call, site_known_across_page, site_known_split_in_page, site_twice, site_entered_late, site_in_a_loop,
    site_unaligned_stack, site_any_stack_known, site_any_stack;
long edited_by_handler(uint64_t* vector);
void exit_with_stack(long stack);
}

namespace {

long probe_of(long argument) { return hooked::expected() ? argument + 1 : -ENOSYS; }

struct Place {
  const char* name;
  SiteFunction* call;
};
void PrintTo(const Place& place, std::ostream* out) { *out << place.name; }

class Prefixed : public ::testing::TestWithParam<Place> {};

TEST_P(Prefixed, BehavesAsTheKernels) {
  SiteFunction* const call = GetParam().call;
  char buffer[4] = "";
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  EXPECT_EQ(call(SYS_getpid, 0, 0, 0), getpid());
  EXPECT_EQ(call(SYS_write, pipes[1], hooked::word("abc"), 3), 3);
  EXPECT_EQ(call(SYS_read, pipes[0], hooked::word(buffer), 3), 3);
  EXPECT_STREQ(buffer, "abc");
  EXPECT_EQ(call(SYS_read, -1, hooked::word(buffer), 3), -EBADF);
  EXPECT_EQ(call(600, 0, 0, 0), -ENOSYS);
  close(pipes[0]);
  close(pipes[1]);
}

INSTANTIATE_TEST_SUITE_P(Forms, Prefixed,
                         ::testing::Values(Place{"48", site_rex_w}, Place{"40", site_rex}, Place{"66", site_operand_size},
                                           Place{"f3", site_repeat}, Place{"f2", site_repeat_not}, Place{"2e", site_segment},
                                           Place{"66 f3 48", site_many}, Place{"48, entered beside it", site_two_entries}));

class Placed : public ::testing::TestWithParam<Place> {};

TEST_P(Placed, IsHooked) {
  for (long i = 0; i < 10; i++) {
    EXPECT_EQ(GetParam().call(500, i, 0, 0), probe_of(i));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Places, Placed,
    ::testing::Values(Place{"at an odd address", site_odd}, Place{"across eight bytes", site_across_eight},
                      Place{"across a cache line", site_across_line}, Place{"at the end of a page", site_at_page_end},
                      Place{"across a page", site_across_page}, Place{"number known", site_known},
                      Place{"number known, across eight bytes", site_known_across_eight},
                      Place{"number known, across a cache line", site_known_across_line},
                      Place{"number known, the call across a cache line", site_known_split_in_call},
                      Place{"number known, across a page", site_known_across_page},
                      Place{"number known, the call across a page", site_known_split_in_page}, Place{"entered late", site_entered_late}));

TEST(Sites, OneBehindTheOther) {
  // The first is getpid; its result is the number of the second, which Linux may have or not: 0..511 in no namespace of this test.
  EXPECT_EQ(site_twice(SYS_setuid, -1, 0, 0), -ENOSYS) << "setuid(-1) gives -EINVAL, and no call has that number";
}

TEST(Sites, NumberIsThatOfTheBranch) {
  EXPECT_EQ(site_entered_late(SYS_getpid, 1, 0, 0), getpid());
  EXPECT_EQ(site_entered_late(SYS_getpid, 0, 0, 0), probe_of(0));
}

TEST(Sites, InALoop) { EXPECT_EQ(site_in_a_loop(0, 5, 0, 0), hooked::expected() ? 8 : -ENOSYS); }

TEST(Stack, MayBeUnaligned) {
  for (long lower = 0; lower < 72; lower++) {
    EXPECT_EQ(site_unaligned_stack(SYS_getpid, lower, 0, 0), getpid());
    for (long nr = kProbeGeneral; nr <= kProbeFull; nr++) EXPECT_EQ(site_unaligned_stack(nr, lower, 7, 0), probe_of(7)) << lower;
    EXPECT_EQ(site_unaligned_stack(SYS_close, lower, -1, 0), -EBADF);
  }
}

// A page with nothing below it: what a call may take is what is there.
class StackEnd : public ::testing::Test {
 protected:
  void SetUp() override {
    guard_ = static_cast<char*>(mmap(nullptr, 4 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_EQ(mprotect(guard_ + 4096, 2 * 4096, PROT_READ | PROT_WRITE), 0);
  }
  void TearDown() override { munmap(guard_, 4 * 4096); }
  [[nodiscard]] long with_left(long bytes) const { return hooked::word(guard_ + 4096) + bytes; }
  char* guard_ = nullptr;
};

TEST_F(StackEnd, SixtyFourBytesAreEnoughForTheKernelsCalls) {
  if (hooked::mode() == "nopage0" || hooked::mode() == "sud") GTEST_SKIP() << "a trap takes room for a signal frame (docs/hook.md)";
  for (const long nr : {SYS_getppid, SYS_gettid, SYS_sched_yield}) {
    EXPECT_GE(site_any_stack(nr, with_left(64), 0, 0), 0);
    EXPECT_GE(site_any_stack(nr, with_left(8), 0, 0), 0);
  }
  EXPECT_EQ(site_any_stack(SYS_dup, with_left(64), -1, 0), -EBADF);
}

TEST_F(StackEnd, OnePageIsEnoughForHookedCalls) {
  for (long nr = kProbeGeneral; nr <= kProbeFull; nr++) EXPECT_EQ(site_any_stack(nr, with_left(2 * 4096), 9, 0), probe_of(9));
}

// The number is visible and nobody wants it: such a site stays the kernel's, whatever rsp is.
TEST_F(StackEnd, AnyStackPointerWithANumberNobodyWants) {
  if (hooked::mode() == "sud") GTEST_SKIP() << "a trap takes room for a signal frame (docs/hook.md)";
  for (const long stack : {with_left(0), 0L, 8L, 0x1000L, -8L, 0x7fffffffffffL}) EXPECT_EQ(site_any_stack_known(0, stack, 0, 0), getppid());
}

// Many at once, so that they meet on the way out.
TEST_F(StackEnd, ThreadsEndWithoutAStack) {
  if (hooked::mode() == "sud") GTEST_SKIP() << "a trap takes room for a signal frame (docs/hook.md)";
  for (const long stack : {0L, 8L, -8L, with_left(0), with_left(64), 0x7fffffffffffL}) {
    for (int turn = 0; turn < 10; turn++) {
      pthread_t threads[8];
      for (pthread_t& thread : threads) {
        ASSERT_EQ(pthread_create(
                      &thread, nullptr,
                      [](void* opaque) -> void* {
                        exit_with_stack(reinterpret_cast<long>(opaque));
                        return nullptr;
                      },
                      reinterpret_cast<void*>(stack)),
                  0);
      }
      for (const pthread_t thread : threads) ASSERT_EQ(pthread_join(thread, nullptr), 0);
    }
  }
}

void edit(int, siginfo_t*, void* opaque) {
  auto* context = static_cast<ucontext_t*>(opaque);
  context->uc_mcontext.gregs[REG_RIP] += 2;
  context->uc_mcontext.gregs[REG_RAX] = 77;
  context->uc_mcontext.gregs[REG_EFL] |= 1;
  memset(context->uc_mcontext.fpregs->_xmm[0].element, 0x5a, 16);
  sigaddset(&context->uc_sigmask, SIGUSR2);
}

TEST(Sigreturn, WithAnEditedContext) {
  struct sigaction action {
  }, old{};
  action.sa_sigaction = edit;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(sigaction(SIGILL, &action, &old), 0);
  uint64_t vector[2] = {};
  EXPECT_EQ(edited_by_handler(vector), 78);
  EXPECT_EQ(vector[0], 0x5a5a5a5a5a5a5a5aul);
  EXPECT_EQ(vector[1], 0x5a5a5a5a5a5a5a5aul);
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_TRUE(sigismember(&mask, SIGUSR2));
  sigdelset(&mask, SIGUSR2);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  sigaction(SIGILL, &old, nullptr);
}

}  // namespace
