// Time: monotonic nanoseconds and the cycle counter.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <ctime>

#include <cstdint>

namespace base {

// CLOCK_MONOTONIC in nanoseconds, through the vDSO (22 ns on a TSC clocksource).
inline uint64_t monotonic_ns() noexcept {
  timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

// The time stamp counter; only differences taken on one machine mean something.
inline uint64_t cycles() noexcept { return __builtin_ia32_rdtsc(); }

}  // namespace base
