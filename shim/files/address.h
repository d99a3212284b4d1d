// Socket addresses between the program's sockaddr and the stack's.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/socket.h>

#include "shim/files/file.h"

namespace shim {

struct ParsedAddress {
  bool known = false;     // an address of IPv4 or IPv6
  bool wildcard = false;  // of either
  bool elsewhere = false;  // link-local (RFC 4007), and the scope does not name the wire
  netstack::SocketAddress address;
  uint32_t scope = 0;  // of a link-local one
};

// Whether the stack may have to do with such an address at all.
[[nodiscard]] inline bool is_stacks_kind(const ParsedAddress& to) noexcept { return to.known && !to.elsewhere; }
// A socket that is bound to a link-local address is of its link: addresses need no scope (sk_bound_dev_if).
inline void take_link_of(const netstack::IpAddress& bound, ParsedAddress* to) noexcept {
  if (to->scope == 0 && bound.is_link_local()) to->elsewhere = false;
}

// Reads what the program passed to bind or connect on a socket of `domain`. 0 or -EFAULT; an address the stack has no use for
// (another family, too short) is simply not `known`.
[[nodiscard]] long parse_address(int domain, const void* user, size_t bytes, ParsedAddress* out) noexcept;

// `address` as a socket of `domain` shows it: its size. `out` has room for a sockaddr_in6.
[[nodiscard]] socklen_t make_address(int domain, const netstack::SocketAddress& address, void* out) noexcept;
// Writes `address` as a socket of `domain` shows it, as getsockname does: cut to *user_bytes, which gets the full length.
// 0, -EFAULT or -EINVAL.
[[nodiscard]] long write_address(int domain, const netstack::SocketAddress& address, void* user, socklen_t* user_bytes) noexcept;

}  // namespace shim
