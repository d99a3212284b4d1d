// Calls of code that nobody can prove: they reach the hook by a trap, at start and late, and in every thread; no byte changes.
// SPDX-License-Identifier: BSD-3-Clause
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include "tests/zpoline/hooked.h"

struct Sites {
  long (*numbered)(long);
  long (*any)(long, long, long, long);
};
extern "C" const Sites start_sites;

namespace {

void expect_hooked(const Sites& sites) {
  EXPECT_EQ(sites.any(SYS_getpid, 0, 0, 0), getpid());
  EXPECT_EQ(sites.any(SYS_getppid, 0, 0, 0), getppid());
  EXPECT_EQ(sites.any(SYS_write, -1, hooked::word("x"), 1), -EBADF);
  const auto* code = reinterpret_cast<const uint8_t*>(sites.numbered);
  EXPECT_EQ(code[0], 0xb8);
  EXPECT_EQ(code[5], 0x0f);
  if (!hooked::expected()) return;
  EXPECT_EQ(sites.numbered(41), 42);
  for (const long nr : {kProbeGeneral, kProbeSse, kProbeFull}) EXPECT_EQ(sites.any(nr, 41, 0, 0), 42) << nr;
}

TEST(Untabled, AtStart) { expect_hooked(start_sites); }

TEST(Untabled, InOtherThreads) {
  std::thread([] { expect_hooked(start_sites); }).join();
}

TEST(Untabled, LateAndInAThreadThatWasThere) {
  std::atomic<const Sites*> late{nullptr};
  std::thread before([&] {
    while (late == nullptr) std::this_thread::yield();
    expect_hooked(*late);
  });
  void* library = dlopen(TEST_DIRECTORY "/libzpstack-test-untabled-sites-late.so", RTLD_NOW);
  ASSERT_NE(library, nullptr) << dlerror();
  late = static_cast<const Sites*>(dlsym(library, "late_sites"));
  expect_hooked(*late);
  before.join();
}

}  // namespace
