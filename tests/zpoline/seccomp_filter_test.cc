// What the engine makes of a filter: the filters are libseccomp's, the verdicts are known.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>

#include "zpoline/life/seccomp_filter.h"

namespace {

bool is_deadly(int nr) { return (zpoline::deadly_calls[nr / 64] >> nr % 64 & 1) != 0; }

// Gives the filter to the engine as a program would give it to the kernel.
void judge(scmp_filter_ctx filter) {
  const int file = memfd_create("filter", 0);
  ASSERT_EQ(seccomp_export_bpf(filter, file), 0);
  seccomp_release(filter);
  const off_t bytes = lseek(file, 0, SEEK_END);
  void* code = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_PRIVATE, file, 0);
  ASSERT_NE(code, MAP_FAILED);
  const sock_fprog program{static_cast<unsigned short>(static_cast<size_t>(bytes) / sizeof(sock_filter)), static_cast<sock_filter*>(code)};
  zpoline::judge_filter(reinterpret_cast<uint64_t>(&program));
  munmap(code, static_cast<size_t>(bytes));
  close(file);
}

class SeccompFilter : public testing::Test {
 protected:
  void SetUp() override {
    for (volatile uint64_t& word : zpoline::deadly_calls) word = 0;
  }
};

TEST_F(SeccompFilter, WhatAListDoesNotAllowIsDeadly) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  for (const int call : {SCMP_SYS(read), SCMP_SYS(futex), SCMP_SYS(exit_group)})
    ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0), 0);
  judge(filter);
  EXPECT_FALSE(is_deadly(SYS_read));
  EXPECT_FALSE(is_deadly(SYS_futex));
  for (const int call : {SYS_openat, SYS_clone, SYS_ptrace, SYS_kill, SYS_sched_yield}) EXPECT_TRUE(is_deadly(call)) << call;
}

TEST_F(SeccompFilter, AnErrorIsNotDeadlyATrapIs) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_ERRNO(1), SCMP_SYS(ptrace), 0), 0);
  ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_TRAP, SCMP_SYS(kill), 0), 0);
  ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_KILL, SCMP_SYS(openat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, 1, 0)), 0);
  judge(filter);
  EXPECT_FALSE(is_deadly(SYS_ptrace));
  EXPECT_FALSE(is_deadly(SYS_clone));
  EXPECT_TRUE(is_deadly(SYS_kill));
  EXPECT_TRUE(is_deadly(SYS_openat));
}

TEST_F(SeccompFilter, FiltersAddUp) {
  for (const int call : {SCMP_SYS(clone), SCMP_SYS(kill)}) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    ASSERT_EQ(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2), 0);  // a binary tree: comparisons
    ASSERT_EQ(seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, call, 0), 0);
    judge(filter);
  }
  EXPECT_TRUE(is_deadly(SYS_clone));
  EXPECT_TRUE(is_deadly(SYS_kill));
  EXPECT_FALSE(is_deadly(SYS_futex));
}

TEST_F(SeccompFilter, StrictModeLeavesReading) {
  zpoline::judge_strict_mode();
  EXPECT_FALSE(is_deadly(SYS_read));
  EXPECT_TRUE(is_deadly(SYS_futex));
}

TEST_F(SeccompFilter, WhatAllowsEverythingMarksNothing) {
  judge(seccomp_init(SCMP_ACT_ALLOW));
  for (const uint64_t word : zpoline::deadly_calls) EXPECT_EQ(word, 0u);
}

}  // namespace
