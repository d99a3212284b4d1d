// Groups that datagram sockets join: on which side, and by which side goes what is sent to one.
// SPDX-License-Identifier: BSD-3-Clause
//
// Linux decides by an interface. The wire is none of the kernel's; it is meant by the stack's address (IP_ADD_MEMBERSHIP, IP_MULTICAST_IF),
// by the index that a datagram from the wire tells (IP_PKTINFO), and by the loopback's. Where no interface is named a socket joins on
// both sides, and what it sends goes by the kernel, unless the stack has a default route or the socket has the stack's address. Any other
// interface is the kernel's alone. Where the stack's addresses are the kernel's as well, groups are the kernel's.
//
// A socket may join before it has a port. Its endpoint, which holds the memberships, is made then and waits (DatagramSocket::reserve).
#pragma once

#include "shim/files/datagram_socket.h"

namespace shim {

[[nodiscard]] bool is_group_option(int level, int name) noexcept;
// setsockopt() with one: 0, a negative errno, or kServedByKernel. Without the lock.
[[nodiscard]] long set_group_option(int fd, int level, int name, const void* user, socklen_t bytes) noexcept;

[[nodiscard]] bool is_group_filter(int level, int name) noexcept;
// getsockopt() with one: from whom the socket wants what is sent to a group. As set_group_option().
[[nodiscard]] long get_group_filter(int fd, int level, int name, void* user, socklen_t* user_bytes) noexcept;

// With the lock held: whether what this socket sends to a group goes by the stack.
[[nodiscard]] bool sends_to_groups(const DatagramSocket& socket, const netstack::Stack& stack, const netstack::IpAddress& group) noexcept;

}  // namespace shim
