// Ports: what bind(), listen() and connect() have in common.
// SPDX-License-Identifier: BSD-3-Clause
//
// There are two places where a port is taken. The stack knows what its own address has: sockets bound to it or to all addresses, listeners,
// connections (netstack/tcp/port_binding.h). The kernel knows the placeholders that are bound to all addresses or to one of its own. A
// socket bound to all addresses must have its port in both; one bound to the stack's address has it in the stack alone, and its placeholder
// is not bound: other programs' sockets are no concern of an address that is the stack's own. Where the kernel has the stack's addresses as
// well (WireFacts::shared), a socket bound to one of them has its port in both, like one bound to all, listens on both sides, and keeps the
// port in the kernel for as long as it is open: nobody else must get it.
//
// A port that bind() chose is given back when the connection or the listener ends, one that the program asked for only with the socket
// (Linux: SOCK_BINDPORT_LOCK). So the former passes to the connection or listener in the stack, and the socket has a binding only beside
// the latter; the placeholder's is given back at connect().
#pragma once

#include "shim/files/address.h"
#include "shim/files/file.h"

namespace shim {

// What the kernel says the placeholder is bound to. 0 or a negative errno. Without the lock, as all that asks the kernel.
[[nodiscard]] long placeholder_name(int fd, ParsedAddress* out) noexcept;
// The placeholder listens, and shall not have. What the program had shut down before is told again: tcp_disconnect() forgets it.
void end_kernel_listener(int fd) noexcept;
// The placeholder has a port that the kernel chose: it has none.
void give_kernel_port_back(int fd) noexcept;
// The same with the lock held.
void give_kernel_port_back(int fd, const Socket& socket) noexcept;

// What must be asked of the kernel before a port is asked for.
struct PortOptions {
  uint32_t range = 0;     // IP_LOCAL_PORT_RANGE
  bool no_port = false;   // IP_BIND_ADDRESS_NO_PORT
  bool v6_only = false;   // IPV6_V6ONLY
};
[[nodiscard]] PortOptions read_port_options(int fd) noexcept;
// For a socket without a port that is about to connect from `address`, which the kernel has as well: a port that the kernel keeps for it
// (Socket::holds_port), so that nobody else gets these four numbers. 0 if there is none to be had: the stack's own choice is as good but
// for that. Without the lock.
[[nodiscard]] uint16_t hold_port(int fd, int domain, const netstack::IpAddress& address) noexcept;
// With the lock held: the attempt or connection is over, and the port that was held for it is free.
void let_port_go(int fd, Socket* socket) noexcept;
// Notes whose the socket is: sockets of one user share a port by SO_REUSEPORT.
void note_owner(int fd) noexcept;

// With the lock held. reuse_address, reuse_port or owner_uid of a socket, wherever it counts.
void set_sharing(Socket* socket, netstack::TcpOption option, int value) noexcept;
// With the lock held. A connection or a listener has the port now: the socket's binding goes if bind() chose the port.
void pass_port_on(Socket* socket) noexcept;
// The connection or listener is gone, and what pass_port_on() gave to it: the socket has no port any more.
void forget_chosen_port(Socket* socket) noexcept;

// The stack learns of ports that sockets bound to all addresses have already. With the stack's lock, or the family's own while nobody else
// knows the stack.
void adopt_bound_sockets(netstack::Stack* stack) noexcept;
// Whether this process has a socket that is bound to all addresses and to a port of the program's choice, and nothing else.
[[nodiscard]] bool has_bound_socket() noexcept;

}  // namespace shim
