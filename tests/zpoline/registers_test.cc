// What a system call may change and what not: every general register, flag and vector register around calls of each claim.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <random>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/snapshot.h"

namespace {

using tests::State;
using tests::widest;

// Calls whose number stands before the system call: near jumps, if somebody wants them.
#define EACH_NEAR(visit)                                                                                                              \
  visit(0) visit(1) visit(7) visit(11) visit(19) visit(20) visit(39) visit(44) visit(45) visit(46) visit(47) visit(102) visit(232) \
      visit(281) visit(441) visit(500) visit(501) visit(502)
#define DECLARE(number) extern "C" tests::Snapshot snapshot_call_##number;
EACH_NEAR(DECLARE)
struct Near {
  long number;
  tests::Snapshot* snapshot;
};
#define ENTRY(number) Near{number, snapshot_call_##number},
constexpr Near kNear[] = {EACH_NEAR(ENTRY)};

constexpr uint64_t kIf = 0x202;
constexpr uint64_t kFlagSets[] = {kIf,           kIf | 0x8d5, kIf | 0x801, kIf | 0x0d4, kIf | 0x400,   kIf | 0x400 | 0x8d5,
                                  kIf | 0x40000, kIf | 0x001, kIf | 0x040, kIf | 0x080, kIf | 0x200000};

class Registers : public ::testing::TestWithParam<int> {};

// Around `snapshot` with number nr; `whole_words`: of the red zone's 16.
void check_call(tests::Snapshot* snapshot, long nr, int whole_words) {
  std::mt19937_64 random(42);
  for (const uint64_t flags : kFlagSets) {
    for (int width = tests::kXmm; width <= widest(); width++) {
      SCOPED_TRACE(::testing::Message() << "number " << nr << " flags " << std::hex << flags << " width " << width);
      State in = tests::random_state(random, nr);
      in.flags = flags;
      in.general[7] = nr == SYS_munmap ? 1 : 0xffff'ff00;  // rdi: no such descriptor; munmap: not aligned
      static State out;
      snapshot(&in, &out, width);
      tests::expect_kept(in, out, width, whole_words);
      if (nr >= kProbeGeneral && nr <= kProbeFull) {
        EXPECT_EQ(out.general[0], in.general[7] + 1);
      }
      if (nr == SYS_munmap) {
        EXPECT_EQ(static_cast<int64_t>(out.general[0]), -22);
      }
    }
  }
}

TEST_P(Registers, OnlyThreeChange) {
  const long nr = GetParam();
  if (nr >= kProbeGeneral && nr <= kProbeInside) SKIP_UNLESS_HOOKED();
  check_call(tests::snapshot_call, nr, 15);
}

TEST(RegistersNear, OnlyThreeChange) {
  for (const Near& near : kNear) {
    if (near.number >= kProbeGeneral && !hooked::expected()) continue;
    check_call(near.snapshot, near.number, 16);
  }
}

// The tests above mean what they say only if the sites are of the form that they speak of.
TEST(RegistersNear, AreJumps) {
  SKIP_UNLESS_HOOKED();
  if (hooked::mode() == "sud") GTEST_SKIP() << "nothing is rewritten";
  const uint8_t behind[2] = {static_cast<uint8_t>(hooked::mode() == "zpoline" ? 0xff : 0x0f),
                             static_cast<uint8_t>(hooked::mode() == "zpoline" ? 0xd0 : 0x05)};
  for (const Near& near : kNear) {
    if (near.number == SYS_getuid) continue;  // nobody claims it
    const auto* code = reinterpret_cast<const uint8_t*>(near.snapshot);
    int jumps = 0;
    for (int i = 0; i < 2000; i++) jumps += code[i] == 0xe9 && code[i + 5] == behind[0] && code[i + 6] == behind[1] ? 1 : 0;
    EXPECT_GE(jumps, 1) << near.number;
  }
}

// A program that allows no rt_sigreturn makes none: what traps comes back without.
TEST(RegistersInABox, OnlyThreeChangeWhereSigreturnIsDeath) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 0, 1),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog program{sizeof filter / sizeof filter[0], filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(2);
    for (const long nr : std::initializer_list<long>{SYS_getpid, SYS_read, SYS_getuid, SYS_munmap, SYS_recvfrom, 512})
      check_call(tests::snapshot_call, nr, 15);
    for (const Near& near : kNear) {
      if (near.number < kProbeGeneral || hooked::expected()) check_call(near.snapshot, near.number, 16);
    }
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

// getpid: claimed general and passed on; read: claimed sse and passed on; getuid: unclaimed; munmap: the engine's; 600, 513: no such call.
INSTANTIATE_TEST_SUITE_P(EachClaim, Registers,
                         ::testing::Values(SYS_getpid, SYS_read, SYS_getuid, SYS_munmap, SYS_recvfrom, kProbeGeneral, kProbeSse, kProbeFull,
                                           512, 517));

}  // namespace
