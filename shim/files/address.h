// Socket addresses between the program's sockaddr and the stack's.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/socket.h>

#include "shim/files/file.h"

namespace shim {

struct ParsedAddress {
  bool known = false;     // an address of IPv4 or IPv6
  bool wildcard = false;  // of either
  netstack::SocketAddress address;
};

// Reads what the program passed to bind or connect on a socket of `domain`. 0 or -EFAULT; an address the stack has no use for
// (another family, too short) is simply not `known`.
[[nodiscard]] long parse_address(int domain, const void* user, size_t bytes, ParsedAddress* out) noexcept;

// `address` as a socket of `domain` shows it: its size. `out` has room for a sockaddr_in6.
[[nodiscard]] socklen_t make_address(int domain, const netstack::SocketAddress& address, void* out) noexcept;
// Writes `address` as a socket of `domain` shows it, as getsockname does: cut to *user_bytes, which gets the full length.
// 0, -EFAULT or -EINVAL.
[[nodiscard]] long write_address(int domain, const netstack::SocketAddress& address, void* user, socklen_t* user_bytes) noexcept;

}  // namespace shim
