// What a system call may change and what not: every general register, flag and vector register around calls of each claim.
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cstdint>
#include <random>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/snapshot.h"

namespace {

using tests::State;
using tests::widest;

constexpr uint64_t kIf = 0x202;
constexpr uint64_t kFlagSets[] = {kIf,           kIf | 0x8d5, kIf | 0x801, kIf | 0x0d4, kIf | 0x400,   kIf | 0x400 | 0x8d5,
                                  kIf | 0x40000, kIf | 0x001, kIf | 0x040, kIf | 0x080, kIf | 0x200000};

class Registers : public ::testing::TestWithParam<int> {};

TEST_P(Registers, OnlyThreeChange) {
  const long nr = GetParam();
  if (nr >= kProbeGeneral && nr <= kProbeInside) SKIP_UNLESS_HOOKED();
  std::mt19937_64 random(42);
  for (const uint64_t flags : kFlagSets) {
    for (int width = tests::kXmm; width <= widest(); width++) {
      SCOPED_TRACE(::testing::Message() << "flags " << std::hex << flags << " width " << width);
      State in = tests::random_state(random, nr);
      in.flags = flags;
      in.general[7] = nr == SYS_munmap ? 1 : 0xffff'ff00;  // rdi: no such descriptor; munmap: not aligned
      static State out;
      tests::snapshot_call(&in, &out, width);
      tests::expect_kept(in, out, width);
      if (nr >= kProbeGeneral && nr <= kProbeFull) {
        EXPECT_EQ(out.general[0], in.general[7] + 1);
      }
      if (nr == SYS_munmap) {
        EXPECT_EQ(static_cast<int64_t>(out.general[0]), -22);
      }
    }
  }
}

// getpid: claimed general and passed on; read: claimed sse and passed on; getuid: unclaimed; munmap: the engine's; 600, 513: no such call.
INSTANTIATE_TEST_SUITE_P(EachClaim, Registers,
                         ::testing::Values(SYS_getpid, SYS_read, SYS_getuid, SYS_munmap, SYS_recvfrom, kProbeGeneral, kProbeSse, kProbeFull,
                                           512, 517));

}  // namespace
