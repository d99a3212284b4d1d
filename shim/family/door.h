// What is said at a family's door, by who wants to join and who answers, and over a connection to a network's name.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <sys/socket.h>

#include "base/build_id.h"

namespace shim {

inline constexpr int kMostPassed = 200;  // descriptors in a message

// At the door it comes with one descriptor, by which it is answered.
struct Visit {
  base::BuildId core;
  int32_t pid;  // as the visitor knows itself
  uint64_t library_base;
};

// The first answer comes with the ticket, and says how many descriptors follow, or why not.
struct Answer {
  char why[100];
  int32_t count;
  uint64_t elsewhere;  // where the visitor's code would have to lie, if that is all that stands against it; 0: it is not
};

// Each of those that follow.
struct Passed {
  int32_t count;
  int32_t numbers[kMostPassed];
};

// Sends or receives `bytes` of `data` and exactly `count` descriptors. How many bytes, or a negative errno.
[[nodiscard]] long send_with(int over, const void* data, unsigned long bytes, const int* fds, int count) noexcept;
[[nodiscard]] long receive_with(int over, void* data, unsigned long bytes, int* fds, int count, int flags, ucred* sender) noexcept;

}  // namespace shim
