// CHECK: our own broken invariants end the process at once, in every build type.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace base {

// Writes one line to stderr with raw calls and raises SIGABRT. Async-signal-safe.
[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace base

#define CHECK(condition) (__builtin_expect(!!(condition), 1) ? (void)0 : ::base::check_failed(#condition, __FILE_NAME__, __LINE__))
