// Whether page 0 is the trampoline's, and parts of an iovec array that lie in it.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/page_zero_pointers.h"

#include <sys/uio.h>

#include "shim/files/user_memory.h"

namespace shim {

namespace {

bool noted = false;

}  // namespace

void note_page_zero() noexcept { noted = true; }

bool page_zero_is_hooks() noexcept { return noted; }

bool has_part_in_page_zero(int64_t parts, int64_t count) noexcept {
  constexpr int64_t kAtOnce = 8;
  iovec some[kAtOnce];
  const auto* user = reinterpret_cast<const iovec*>(parts);
  for (int64_t done = 0; done < count && done < 1024; done += kAtOnce) {
    const int64_t left = count - done < kAtOnce ? count - done : kAtOnce;
    if (!plausible(user + done, static_cast<size_t>(left) * sizeof *user) ||
        copy_in(some, user + done, static_cast<size_t>(left) * sizeof *user) != 0)
      return false;
    for (int64_t i = 0; i < left; i++) {
      if (some[i].iov_len != 0 && reinterpret_cast<uint64_t>(some[i].iov_base) < kPageZeroEnd) return true;
    }
  }
  return false;
}

}  // namespace shim
