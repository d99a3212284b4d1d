// What sendmsg()'s control messages say of a datagram.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/socket.h>

#include <cstddef>

#include "netstack/udp_endpoint.h"

namespace shim {

struct SendControl {
  netstack::SendRequest request;
  size_t segment = 0;  // of UDP_SEGMENT; 0: it is one datagram
};

// Reads them, for a socket of `domain` whose datagram goes by IPv4 or not. With the lock held. 0, -EINVAL, -EFAULT, -ENOBUFS, or
// -ENETUNREACH: it cannot come from such an address.
[[nodiscard]] long load_control(const msghdr& header, int domain, bool by_v4, const netstack::Stack& stack, SendControl* out) noexcept;

}  // namespace shim
