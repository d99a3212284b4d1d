// Moving datagrams between the program and its socket's sides.
// SPDX-License-Identifier: BSD-3-Clause
//
// Every call that moves datagrams comes here as a message: `header` lies in our memory and so do its parts, checked (Parts); name and
// control messages are the program's. Flags are those of recv(2) and send(2). ZPS_PASS: the call is the kernel's, as it was made; kRestart:
// it is to be made again.
#pragma once

#include <sys/socket.h>

#include "shim/files/datagram_socket.h"

namespace shim {

// Fills in msg_namelen, msg_controllen and msg_flags as recvmsg() does.
[[nodiscard]] long receive_datagram(int fd, msghdr* header, int flags) noexcept;
// A message of more than UDP_SEGMENT bytes is as many datagrams as that makes.
[[nodiscard]] long send_datagram(int fd, const msghdr& header, int flags) noexcept;

// One message of many, with the lock held, without waiting and by the stack alone: -EAGAIN, or ZPS_PASS for what the calls above are for.
[[nodiscard]] long receive_one(DatagramSocket* socket, msghdr* header, int flags) noexcept;
[[nodiscard]] long send_one(DatagramSocket* socket, netstack::Stack* stack, const msghdr& header, int flags) noexcept;

// ---------------------------------------------------------------- for both directions

[[nodiscard]] inline int part_count(const msghdr& header) noexcept { return static_cast<int>(header.msg_iovlen); }
[[nodiscard]] size_t capacity_of(const msghdr& header) noexcept;
[[nodiscard]] WaitOptions datagram_wait(uint64_t timeout_ns) noexcept;
// Nothing goes without waiting: begins a wait if the socket and the flags want one. -EAGAIN if not.
[[nodiscard]] long begin_if_blocking(DatagramSocket* socket, int flags, uint64_t timeout_ns) noexcept;

}  // namespace shim
