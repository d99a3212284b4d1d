// How long tests with many rounds run: what they say themselves, or ZPS_TEST_ROUNDS.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdlib>

namespace tests {

inline long rounds(long by_default) {
  const char* wanted = getenv("ZPS_TEST_ROUNDS");
  return wanted != nullptr ? atol(wanted) : by_default;
}

}  // namespace tests
