// Waiting for many descriptors at once, of the stack and of the kernel: what poll and select share.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <poll.h>

#include <cstdint>

namespace shim {

struct PollRequest {
  pollfd* fds;        // as poll() takes them; revents are written
  int count;
  pollfd* copies;     // room for count + kOwnFds: what the kernel is asked
  uint64_t deadline_ns;
  const void* signal_mask;
  long signal_mask_bytes;
};

// True if one of the descriptors may be the stack's business; if none is, the kernel serves the call alone.
[[nodiscard]] bool any_ours(const pollfd* fds, int count) noexcept;

// The number of entries with revents, 0 when the deadline passed, or a negative errno.
[[nodiscard]] long poll_files(const PollRequest& request) noexcept;

}  // namespace shim
