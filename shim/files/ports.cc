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

namespace {

void end_listener(int fd, int shut) noexcept {
  (void)kernel_call(SYS_shutdown, fd, SHUT_RD);
  if (shut != 0) (void)kernel_call(SYS_shutdown, fd, shut - 1);
}

}  // namespace

void end_kernel_listener(int fd) noexcept {
  int shut = 0;
  {
    Guard guard;
    if (const Socket* socket = socket_at(fd)) shut = socket->shut;
  }
  end_listener(fd, shut);
}

// tcp_disconnect() puts a port that nobody asked for. A listener is the one socket that can be disconnected without a peer.
void give_kernel_port_back(int fd) noexcept {
  if (kernel_call(SYS_listen, fd, 0) == 0) end_kernel_listener(fd);
}

void give_kernel_port_back(int fd, const Socket& socket) noexcept {
  if (kernel_call(SYS_listen, fd, 0) == 0) end_listener(fd, socket.shut);
}

uint16_t hold_port(int fd, int domain, const netstack::IpAddress& address) noexcept {
  sockaddr_in6 name;
  const socklen_t bytes = make_address(domain, {address, 0}, &name);
  ParsedAddress held;
  if (kernel_call(SYS_bind, fd, as_arg(&name), bytes) != 0 || placeholder_name(fd, &held) != 0) return 0;
  Guard guard;
  Socket* const socket = socket_at(fd);
  if (socket == nullptr) return 0;
  socket->holds_port = held.address.port_be != 0;
  return held.address.port_be;
}

// The address that bind() has not given goes as well, which tcp_disconnect() leaves: bind() to all, without a port this time.
void let_port_go(int fd, Socket* socket) noexcept {
  if (!socket->holds_port) return;
  socket->holds_port = false;
  give_kernel_port_back(fd, *socket);
  if (socket->kernel_bound) return forget_chosen_port(socket);
  sockaddr_in6 any;
  const bool v4 = socket->domain == AF_INET;
  const socklen_t bytes = make_address(socket->domain, v4 ? netstack::SocketAddress{0, 0} : netstack::SocketAddress{}, &any);
  const int before = placeholder_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), on = 1;
  (void)kernel_call(SYS_setsockopt, fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, as_arg(&on), sizeof on);
  (void)kernel_call(SYS_bind, fd, as_arg(&any), bytes);
  (void)kernel_call(SYS_setsockopt, fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, as_arg(&before), sizeof before);
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

namespace {

bool is_bound_to_all(const Socket& socket) noexcept {
  return socket.state == SocketState::undecided && socket.kernel_bound && socket.bound_to_all && socket.has_port;
}

}  // namespace

bool has_bound_socket() noexcept {
  if (my_slot->chunks == 0) return false;
  bool found = false;
  const Guard guard;
  for_each_entry(my_slot, [&](int, Counted* entry) {
    if (static_cast<const File*>(entry)->kind != FileKind::socket) return;
    const auto* socket = static_cast<const Socket*>(entry);
    found = found || (is_bound_to_all(*socket) && !socket->port_chosen);
  });
  return found;
}

void adopt_bound_sockets(netstack::Stack* stack) noexcept {
  files().sockets.for_each([&](Socket* socket) {
    if (socket->binding != nullptr || !is_bound_to_all(*socket)) return;
    long error = 0;
    socket->binding = stack->bind({socket->bound, socket->sharing, 0, true, false, socket->v6_only}, &error);
  });
}

}  // namespace shim
