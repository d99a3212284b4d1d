// What program tests share: raw calls that are sites of their own, and whether this run is a hooked one.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "tests/zpoline/probe_calls.h"

namespace hooked {

// The mode that the test was registered for; empty: native.
inline std::string_view mode() {
  const char* name = getenv("ZPS_EXPECT_HOOK");
  return name != nullptr ? name : "";
}
inline bool expected() { return !mode().empty(); }

// A system call instruction whose number is not visible to the engine: always rewritten.
[[gnu::noinline]] inline long call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("nop\n syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
}

template <class T>
long word(T* pointer) {
  return reinterpret_cast<long>(pointer);
}

}  // namespace hooked

#define SKIP_UNLESS_HOOKED() \
  if (!hooked::expected()) GTEST_SKIP() << "asks the probe hook"
