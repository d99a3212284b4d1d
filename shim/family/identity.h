// Who a thread is for the kernel: each has credentials of its own.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace shim {

struct Identity {
  uint32_t users[3], groups[3];  // real, effective, saved
  uint64_t permitted;            // capabilities that may be put into effect

  // Whether a thread that still is `other` has something that this one cannot take back: capabilities, or an id other than its one.
  [[nodiscard]] bool has_lost(const Identity& other) const noexcept;
};

// The calling thread's.
[[nodiscard]] Identity own_identity() noexcept;

// The capabilities that process may put into effect; none if it is gone.
[[nodiscard]] uint64_t permitted_of(int32_t pid) noexcept;
// Whether its users are the same as this process's, as far as the tables say; `proc_fd` is /proc.
[[nodiscard]] bool is_in_own_user_namespace(int proc_fd, int32_t pid) noexcept;

}  // namespace shim
