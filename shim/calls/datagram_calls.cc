// Names, options and states of datagram sockets.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/datagram_calls.h"

#include <asm/ioctls.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/process.h"
#include "shim/files/address.h"
#include "shim/files/async_io.h"
#include "shim/files/datagram_options.h"
#include "shim/files/datagram_sides.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim/files/multicast.h"
#include "shim/files/options.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::SocketAddress;

int domain_of(const zps_call& call) noexcept {
  const File* const file = peek(call.arg[0]);
  return is_datagram(file) ? static_cast<const DatagramSocket*>(file)->domain : AF_INET;
}

// What only IPv6's own addresses are for (IPV6_V6ONLY) is the kernel's to refuse.
bool serves(int fd, const ParsedAddress& to) noexcept {
  const bool mapped = to.address.address.is_v4() && !to.wildcard;
  const File* const file = peek(fd);
  const bool v6 = is_datagram(file) && static_cast<const DatagramSocket*>(file)->domain == AF_INET6;
  return is_stacks_kind(to) && !(v6 && mapped && placeholder_is_v6_only(fd, AF_INET6));
}

// It is bound to an address of the stack's, so that the kernel does not know of its name.
bool has_name_here(int fd) noexcept {
  Guard guard;
  const DatagramSocket* const socket = datagram_at(fd);
  return socket != nullptr && socket->bound_here && socket->endpoint->local().port_be != 0;
}

long or_pass(long result) noexcept { return result == kServedByKernel ? kPass : result; }

// The value as getsockopt() writes it: cut to the room there is.
long put_value(const zps_call& call, const void* value, socklen_t bytes) noexcept {
  int room;
  if (long error = copy_in(&room, reinterpret_cast<void*>(call.arg[4]), sizeof room); error != 0) return error;
  if (room < 0) return -EINVAL;
  if (static_cast<socklen_t>(room) < bytes) bytes = static_cast<socklen_t>(room);
  if (long error = copy_out(reinterpret_cast<void*>(call.arg[3]), value, bytes); error != 0) return error;
  return copy_out(reinterpret_cast<void*>(call.arg[4]), &bytes, sizeof bytes);
}

// SO_MEMINFO: what waits to be read and what was thrown away are the endpoint's.
long put_memory(const zps_call& call, const netstack::UdpFigures& figures) noexcept {
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t bytes = sizeof memory;
  (void)kernel_call(SYS_getsockopt, call.arg[0], SOL_SOCKET, SO_MEMINFO, as_arg(memory), as_arg(&bytes));
  memory[SK_MEMINFO_RMEM_ALLOC] += figures.held;
  memory[SK_MEMINFO_DROPS] += figures.drops;
  return put_value(call, memory, sizeof memory);
}

}  // namespace

long make_datagram_socket(const zps_call& call) noexcept {
  const long fd = kernel_call(SYS_socket, call.arg[0], call.arg[1], call.arg[2]);
  if (fd < 0) return fd;
  Guard guard;
  DatagramSocket* const socket = files().datagrams.allocate(static_cast<int>(call.arg[0]));
  if (socket == nullptr) return fd;  // no room: a kernel socket it stays
  socket->nonblocking = (call.arg[1] & SOCK_NONBLOCK) != 0;
  if (table_set(static_cast<int>(fd), socket) != 0) files().datagrams.release(socket);
  return fd;
}

long datagram_bind(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  ParsedAddress to;
  const auto bytes = static_cast<socklen_t>(call.arg[2]);
  if (long error = parse_address(domain_of(call), reinterpret_cast<void*>(call.arg[1]), bytes, &to); error != 0) return error;
  if (has_name_here(fd) && !owned_by_stack(to)) return refuse_bind(fd, domain_of(call), call);
  bool is_kernels = false;
  long result = serves(fd, to) ? bind_datagram(fd, to, &is_kernels) : kServedByKernel;
  if (result != kServedByKernel || !is_kernels) return or_pass(result);
  result = kernel_call(SYS_bind, call.arg[0], call.arg[1], call.arg[2]);
  Guard guard;
  if (DatagramSocket* const socket = datagram_at(fd); socket != nullptr && result == 0) socket->kernel_only = true;
  return result;
}

long datagram_connect(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  sa_family_t address_family;
  const int bytes = static_cast<int>(call.arg[2]);
  if (bytes < static_cast<int>(sizeof address_family)) return kPass;  // EINVAL
  if (long error = copy_in(&address_family, reinterpret_cast<void*>(call.arg[1]), sizeof address_family); error != 0) return error;
  if (address_family == AF_UNSPEC) return or_pass(disconnect_datagram(fd));
  ParsedAddress to;
  const int domain = address_family == AF_INET ? AF_INET : domain_of(call);  // __ip6_datagram_connect() takes IPv4's as they are
  const auto* const named = reinterpret_cast<const void*>(call.arg[1]);
  if (long error = parse_address(domain, named, static_cast<size_t>(bytes), &to); error != 0) return error;
  {
    Guard guard;
    const DatagramSocket* const socket = datagram_at(fd);
    if (socket != nullptr && socket->endpoint != nullptr) take_link_of(socket->endpoint->local().address, &to);
  }
  // An address of another link is the kernel's, and so is the socket then.
  const bool elsewhere = to.known && !is_stacks_kind(to);
  if (serves(fd, to) || elsewhere) return or_pass(connect_datagram(fd, to, named, static_cast<size_t>(bytes)));
  const long error = kernel_call(SYS_connect, fd, as_arg(named), bytes);
  if (error != 0) join_unnamed(fd);
  return error;
}

// inet_shutdown(): one that is not connected is shut as well, and hears that it is not.
long datagram_shutdown(const zps_call& call) noexcept {
  const int how = static_cast<int>(call.arg[1]);
  Guard guard;
  DatagramSocket* const socket = datagram_at(call.arg[0]);
  if (socket == nullptr) return kPass;
  if (how >= SHUT_RD && how <= SHUT_RDWR) socket->shut |= static_cast<uint8_t>(how + 1);
  if (socket->endpoint == nullptr) return kPass;
  if (how < SHUT_RD || how > SHUT_RDWR) return -EINVAL;
  {
    const MutedNotice muted(socket);
    socket->endpoint->shutdown(how);
  }
  if (!socket->bound_here) (void)kernel_call(SYS_shutdown, call.arg[0], how);
  return socket->endpoint->connected() ? 0 : -ENOTCONN;
}

long datagram_name(const zps_call& call, bool peer) noexcept {
  SocketAddress name;
  {
    Guard guard;
    const DatagramSocket* const socket = datagram_at(call.arg[0]);
    if (socket == nullptr || socket->endpoint == nullptr) return kPass;
    const bool connected = socket->endpoint->connected();
    if (peer && (!connected || socket->endpoint->peer().port_be == 0)) return -ENOTCONN;  // inet_getname()
    if (!connected && !socket->bound_here) return kPass;
    name = peer ? socket->endpoint->peer() : socket->endpoint->local();
  }
  return write_address(domain_of(call), name, reinterpret_cast<void*>(call.arg[1]), reinterpret_cast<socklen_t*>(call.arg[2]));
}

// FIONREAD and SIOCOUTQ: nothing waits here to be sent.
long datagram_figure(const zps_call& call) noexcept {
  int value = 0;
  {
    Guard guard;
    const DatagramSocket* const socket = datagram_at(call.arg[0]);
    if (socket == nullptr || socket->endpoint == nullptr) return kPass;
    const unsigned request = static_cast<unsigned>(call.arg[1]);
    if (request != FIONREAD && request != SIOCOUTQ) return kPass;
    const bool elsewhere = socket->both && !socket->endpoint->readable();
    if (elsewhere || (request == SIOCOUTQ && socket->both)) return kPass;
    if (request == FIONREAD) value = static_cast<int>(socket->endpoint->next_bytes());
  }
  return copy_out(reinterpret_cast<void*>(call.arg[2]), &value, sizeof value);
}

long datagram_setsockopt(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]), level = static_cast<int>(call.arg[1]), name = static_cast<int>(call.arg[2]);
  if (is_group_option(level, name)) {
    const auto bytes = static_cast<int>(call.arg[4]) > 0 ? static_cast<socklen_t>(call.arg[4]) : 0;
    return or_pass(set_group_option(fd, level, name, reinterpret_cast<const void*>(call.arg[3]), bytes));
  }
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && domain_of(call) == AF_INET6 && has_name_here(fd)) return -EINVAL;
  const long result = kernel_call(SYS_setsockopt, fd, level, name, call.arg[3], call.arg[4]);
  if (result == 0) follow_datagram_option(fd, level, name);
  return result;
}

long datagram_getsockopt(const zps_call& call) noexcept {
  const int level = static_cast<int>(call.arg[1]), name = static_cast<int>(call.arg[2]);
  if (is_group_filter(level, name)) [[unlikely]] {
    return or_pass(get_group_filter(static_cast<int>(call.arg[0]), level, name, reinterpret_cast<void*>(call.arg[3]),
                                    reinterpret_cast<socklen_t*>(call.arg[4])));
  }
  int value = 0;
  {
    Guard guard;
    DatagramSocket* const socket = datagram_at(call.arg[0]);
    if (socket == nullptr) return kPass;
    if (level == IPPROTO_IP && name == IP_MULTICAST_IF && socket->group_source_be != 0) {
      const uint32_t address_be = socket->group_source_be;
      guard.drop();
      const long result = put_value(call, &address_be, sizeof address_be);
      guard.take();
      return result;
    }
    if (socket->endpoint == nullptr) return kPass;
    if (level == SOL_SOCKET && name == SO_MEMINFO) {
      const netstack::UdpFigures figures = socket->endpoint->figures();
      guard.drop();
      const long result = put_memory(call, figures);
      guard.take();
      return result;
    }
    const bool is_mtu6 = level == IPPROTO_IPV6 && name == IPV6_MTU && socket->domain == AF_INET6;
    if (level == SOL_SOCKET && name == SO_ERROR) {
      value = socket->endpoint->take_error();
      if (value == 0) return kPass;
    } else if (level == SOL_SOCKET && name == SO_PEEK_OFF) {
      value = socket->peek_offset;
    } else if ((level == IPPROTO_IP && name == IP_MTU) || is_mtu6) {
      if (socket->endpoint->get_option(netstack::UdpOption::path_mtu, &value) != 0) return kPass;
    } else {
      return kPass;
    }
  }
  return put_value(call, &value, sizeof value);
}

}  // namespace shim
