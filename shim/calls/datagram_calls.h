// What the handlers of the syscall table do for datagram sockets.
// SPDX-License-Identifier: BSD-3-Clause
//
// Each takes the call as the program made it, and returns kPass for whatever is no datagram socket, or is the kernel's.
#pragma once

#include "shim/calls/calls.h"
#include "shim/files/datagram_socket.h"

namespace shim {

[[nodiscard]] long make_datagram_socket(const zps_call& call) noexcept;
// What bind() says about a socket that has a name already: __inet_bind() looks at the address first, __inet6_bind() behind that.
[[nodiscard]] long refuse_bind(int fd, int domain, const zps_call& call) noexcept;
[[nodiscard]] long datagram_bind(const zps_call& call) noexcept;
[[nodiscard]] long datagram_connect(const zps_call& call) noexcept;
[[nodiscard]] long datagram_shutdown(const zps_call& call) noexcept;
[[nodiscard]] long datagram_name(const zps_call& call, bool peer) noexcept;
[[nodiscard]] long datagram_figure(const zps_call& call) noexcept;
[[nodiscard]] long datagram_setsockopt(const zps_call& call) noexcept;
[[nodiscard]] long datagram_getsockopt(const zps_call& call) noexcept;

// read, readv and their kin; write and its.
[[nodiscard]] long datagram_read(int fd, const iovec* parts, int count, int flags) noexcept;
[[nodiscard]] long datagram_write(int fd, const iovec* parts, int count, int flags) noexcept;
[[nodiscard]] long datagram_recvfrom(const zps_call& call) noexcept;
[[nodiscard]] long datagram_sendto(const zps_call& call) noexcept;
[[nodiscard]] long datagram_recvmsg(const zps_call& call) noexcept;
[[nodiscard]] long datagram_sendmsg(const zps_call& call) noexcept;
[[nodiscard]] long datagram_recvmmsg(const zps_call& call) noexcept;
[[nodiscard]] long datagram_sendmmsg(const zps_call& call) noexcept;

}  // namespace shim
