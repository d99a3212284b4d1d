// Code that a test makes for itself, whose system calls are probes, and a child to make it in.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tests/zpoline/hooked.h"

namespace made {

// mov %rdi,%rax; mov %rsi,%rdi; nop; syscall; ret: a function (number, argument).
inline constexpr uint8_t kCode[] = {0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x90, 0x0f, 0x05, 0xc3};
inline constexpr uint8_t kHarmless[] = {0x48, 0x8d, 0x47, 0x05, 0xc3, 0x0f, 0x1f, 0x40, 0x00};  // lea 5(%rdi),%rax; ret; nop
inline constexpr size_t kCallAt = 7;
inline constexpr long kPage = 4096;
using Made = long (*)(long, long);

inline bool is_left_to_kernel() { return getenv("ZPS_JIT") != nullptr; }
inline long probed(long argument) { return hooked::expected() && !is_left_to_kernel() ? argument + 1 : -ENOSYS; }

inline void expect_calls(const void* code) {
  const auto function = reinterpret_cast<Made>(reinterpret_cast<uintptr_t>(code));
  for (const long nr : {kProbeGeneral, kProbeSse, kProbeFull}) EXPECT_EQ(function(nr, 6), probed(6));
  EXPECT_EQ(function(SYS_getpid, 0), getpid());
  EXPECT_EQ(memcmp(code, kCode, sizeof kCode), 0) << "code of the program's own making was changed";
}

// The engine answers this only while it uses what is asked for.
inline bool is_armed() { return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0) != 0; }

inline uint8_t* new_pages(int protection, long pages = 1) {
  void* made = mmap(nullptr, static_cast<size_t>(pages * kPage), protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(made, MAP_FAILED);
  return static_cast<uint8_t*>(made);
}

inline uint8_t* changing_code() {
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

}  // namespace made
