// Ports on both sides.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/ports.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim/files/options.h"

namespace shim {

using base::as_arg;
using base::kernel_call;

long placeholder_name(int fd, ParsedAddress* out) noexcept {
  sockaddr_in6 name{};
  socklen_t bytes = sizeof name;
  const long result = kernel_call(SYS_getsockname, fd, as_arg(&name), as_arg(&bytes));
  if (result != 0) return result;
  return parse_address(name.sin6_family, &name, bytes, out);
}

void end_kernel_listener(int fd) noexcept {
  (void)kernel_call(SYS_shutdown, fd, SHUT_RD);
  int shut = 0;
  {
    Guard guard;
    if (const Socket* socket = socket_at(fd)) shut = socket->shut;
  }
  if (shut != 0) (void)kernel_call(SYS_shutdown, fd, shut - 1);
}

// tcp_disconnect() puts a port that nobody asked for. A listener is the one socket that can be disconnected without a peer.
void give_kernel_port_back(int fd) noexcept {
  if (kernel_call(SYS_listen, fd, 0) == 0) end_kernel_listener(fd);
}

PortOptions read_port_options(int fd) noexcept {
  return {static_cast<uint32_t>(placeholder_int(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE)),
          placeholder_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) != 0, false};
}

void note_owner(int fd) noexcept {
  struct stat about{};
  if (kernel_call(SYS_fstat, fd, as_arg(&about)) != 0) return;
  Guard guard;
  if (Socket* socket = socket_at(fd)) set_sharing(socket, netstack::TcpOption::owner_uid, static_cast<int>(about.st_uid));
}

void set_sharing(Socket* socket, netstack::TcpOption option, int value) noexcept {
  switch (option) {
    case netstack::TcpOption::reuse_address: socket->sharing.reuse_address = value != 0; break;
    case netstack::TcpOption::reuse_port: socket->sharing.reuse_port = value != 0; break;
    case netstack::TcpOption::owner_uid: socket->sharing.uid = static_cast<uint32_t>(value); break;
    default: return;
  }
  if (socket->binding != nullptr) (void)socket->binding->set_option(option, value);
  if (option != netstack::TcpOption::owner_uid) return;  // the rest goes to connections and listeners as any option does
  if (socket->stream != nullptr) (void)socket->stream->set_option(option, value);
  if (socket->listener != nullptr) (void)socket->listener->set_option(option, value);
}

void pass_port_on(Socket* socket) noexcept {
  if (!socket->port_chosen || socket->binding == nullptr) return;
  socket->binding->release();
  socket->binding = nullptr;
}

void forget_chosen_port(Socket* socket) noexcept {
  if (!socket->port_chosen) return;
  pass_port_on(socket);
  socket->has_port = socket->port_chosen = false;
  if (socket->bound_to_all) socket->kernel_bound = socket->bound_to_all = false;
}

void adopt_bound_sockets(netstack::Stack* stack) noexcept {
  files().sockets.for_each([&](Socket* socket) {
    if (socket->binding != nullptr || socket->state != SocketState::undecided || !socket->kernel_bound || !socket->bound_to_all ||
        !socket->has_port)
      return;
    long error = 0;
    socket->binding = stack->bind({socket->bound, socket->sharing, 0, true, false, socket->v6_only}, &error);
  });
}

}  // namespace shim
