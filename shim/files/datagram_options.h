// Options of datagram sockets: kept by the placeholder, brought to the stack's endpoint.
// SPDX-License-Identifier: BSD-3-Clause
//
// As for streams (options.h) the kernel judges and keeps every value. The rows here are what an endpoint has to know, and what recvmsg()
// tells.
#pragma once

#include "shim/files/datagram_socket.h"

namespace shim {

// Everything that counts, read from a placeholder. Without the lock.
struct DatagramOptions {
  static constexpr int kMost = 24;
  int values[kMost];
  DatagramControl control;
  int peek_offset;
};
[[nodiscard]] DatagramOptions read_datagram_options(int fd) noexcept;
// With the lock held.
void apply_datagram_options(DatagramSocket* socket, netstack::UdpEndpoint* endpoint, const DatagramOptions& options) noexcept;

// The program's setsockopt() has been taken by the placeholder: the endpoint follows. Without the lock.
void follow_datagram_option(int fd, int level, int name) noexcept;

}  // namespace shim
