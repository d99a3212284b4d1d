// How a datagram socket comes to be on one side or both.
// SPDX-License-Identifier: BSD-3-Clause
//
// Without the lock, as all that asks the kernel. Results are 0 or a negative errno, or kServedByKernel: the call is the kernel's, as it was
// made.
#pragma once

#include "shim/files/address.h"
#include "shim/files/datagram_socket.h"

namespace shim {

inline constexpr long kServedByKernel = INT64_MIN + 1;

// Whether this is one of the stack's addresses. May make the stack.
[[nodiscard]] bool owned_by_stack(const ParsedAddress& to) noexcept;
// The socket gets an endpoint if it has none, with the placeholder's port or one that is free on both sides.
[[nodiscard]] long join_stack(int fd, netstack::Stack* stack) noexcept;
// The same, where there is a stack, for one that has no name and no peer: with the port that the kernel has given it, or is about to give.
void join_unnamed(int fd) noexcept;
// The stack is new: what has such a port has it there as well.
void join_all_unnamed() noexcept;
// `is_kernels`: an address of the kernel's, whose the socket is for good when it has it.
[[nodiscard]] long bind_datagram(int fd, const ParsedAddress& to, bool* is_kernels) noexcept;
// `to` is what `named`, of so many bytes, says: the kernel gets it as it is, with the scope of a link-local address.
[[nodiscard]] long connect_datagram(int fd, const ParsedAddress& to, const void* named, size_t bytes) noexcept;
[[nodiscard]] long disconnect_datagram(int fd) noexcept;

// With the lock held: nothing is left of what the placeholder had received before it became deaf.
void forget_kernel_side(DatagramSocket* socket) noexcept;
// With the lock held: whether datagrams to this address are the stack's to send, for a socket that has an endpoint.
[[nodiscard]] bool goes_by_stack(const DatagramSocket& socket, netstack::Stack* stack, const netstack::SocketAddress& to) noexcept;
// The stack, if it sends what this socket sends to a group, or to 255.255.255.255.
[[nodiscard]] netstack::Stack* stack_for_group(int fd, const netstack::IpAddress& group) noexcept;
// The stack, if a socket without an endpoint should get one to send there.
[[nodiscard]] netstack::Stack* stack_for_datagram(const ParsedAddress& to) noexcept;

}  // namespace shim
