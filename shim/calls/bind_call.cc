// bind: the port is taken where the address is (shim/files/ports.h).
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/options.h"
#include "shim/files/ports.h"
#include "shim/files/routing.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::SocketAddress;

constexpr int kTries = 64;  // how often the stack may choose a port that the kernel has given to somebody

// What the kernel says of this name to a socket that has none; `any_address`: whether or not the address is one of its own.
long ask_kernel(int domain, const void* name, size_t bytes, bool any_address) noexcept {
  const long probe = kernel_call(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return 0;
  const int on = 1;
  if (any_address) (void)kernel_call(SYS_setsockopt, probe, IPPROTO_IP, IP_FREEBIND, as_arg(&on), sizeof on);
  const long error = kernel_call(SYS_bind, probe, reinterpret_cast<long>(name), static_cast<long>(bytes));
  (void)kernel_call(SYS_close, probe);
  return error;
}

// Whether the program may have this port at all; another program's socket is no hindrance.
long may_bind(const SocketAddress& local) noexcept {
  if (local.port_be == 0) return 0;
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = local.port_be;
  name.sin_addr.s_addr = local.address.v4_be();
  return ask_kernel(AF_INET, &name, sizeof name, true) == -EACCES ? -EACCES : 0;
}

// Takes `local` in the stack for a socket that may share it as it says. 0 or a negative errno.
long take_port(int fd, netstack::Stack* stack, const SocketAddress& local, const PortOptions& options, bool port_chosen) noexcept {
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return -EBADF;
  if (socket->has_name()) return -EINVAL;
  long error = 0;
  const bool chosen_by_kernel = port_chosen && local.port_be != 0;
  socket->binding = stack->bind({local, socket->sharing, options.range, false, chosen_by_kernel, options.v6_only}, &error);
  if (socket->binding == nullptr) return error;
  socket->has_port = true;
  socket->port_chosen = port_chosen;
  socket->bound = socket->binding->local();
  return 0;
}

long bind_to_stack(int fd, const SocketAddress& local) noexcept {
  const PortOptions options = read_port_options(fd);
  if (local.port_be != 0 || !options.no_port) {
    const long error = take_port(fd, the_stack(), local, options, local.port_be == 0);
    if (error != 0) return error;
  }
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return -EBADF;
  if (!socket->has_port) socket->bound = local;
  socket->stack_bound = true;
  socket->old_port_be = 0;
  guard.drop();
  if (!local.address.is_v4()) end_v4(fd);
  guard.take();
  return 0;
}

void note_kernel_name(int fd, const ParsedAddress& name, bool to_all, bool v6_only, bool port_chosen) noexcept {
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return;
  socket->kernel_bound = true;
  socket->stack_bound = false;
  socket->old_port_be = 0;
  socket->bound_to_all = to_all;
  if (!to_all) return;
  socket->bound = name.address;
  socket->v6_only = v6_only;
  socket->has_port = name.address.port_be != 0;
  socket->port_chosen = port_chosen;
}

void drop_binding(int fd) noexcept {
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr || socket->binding == nullptr) return;
  socket->binding->release();
  socket->binding = nullptr;
  socket->has_port = false;
}

// A port that is free in the stack, for a socket that shall have it in the kernel as well. The name becomes the socket's.
long choose_by_stack(int fd, netstack::Stack* stack, const zps_call& call, bool v6_only, ParsedAddress* name) noexcept {
  sockaddr_in6 wanted{};
  const long bytes = call.arg[2] < static_cast<long>(sizeof wanted) ? call.arg[2] : static_cast<long>(sizeof wanted);
  if (long error = copy_in(&wanted, reinterpret_cast<void*>(call.arg[1]), static_cast<size_t>(bytes)); error != 0) return error;
  PortOptions options = read_port_options(fd);
  options.v6_only = v6_only;
  if (long error = take_port(fd, stack, {name->address.address, 0}, options, true); error != 0) return error;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr) return -EBADF;
    name->address = socket->bound;
  }
  wanted.sin6_port = name->address.port_be;  // where that of AF_INET is
  const long error = kernel_call(SYS_bind, fd, as_arg(&wanted), bytes);
  if (error != 0) drop_binding(fd);
  return error;
}

// To all addresses, or to one that both have: in the kernel, and in the stack if there is one.
long bind_to_all(int fd, const zps_call& call, const ParsedAddress& wanted, bool v6_only) noexcept {
  netstack::Stack* const stack = the_stack();
  const uint16_t port_be = wanted.address.port_be;
  if (stack != nullptr && port_be != 0) {
    if (const long error = take_port(fd, stack, wanted.address, {.v6_only = v6_only}, false); error != 0) return error;
    const long error = kernel_call(SYS_bind, fd, call.arg[1], call.arg[2]);
    if (error != 0) {
      drop_binding(fd);
    } else {
      note_kernel_name(fd, wanted, true, v6_only, false);
    }
    return error;
  }
  long error = kernel_call(SYS_bind, fd, call.arg[1], call.arg[2]);
  if (error != 0) return error;
  ParsedAddress name;
  if (error = placeholder_name(fd, &name); error != 0) return error;
  if (stack != nullptr && name.address.port_be != 0) {
    error = take_port(fd, stack, name.address, {.v6_only = v6_only}, true);
    if (error == -EADDRINUSE) give_kernel_port_back(fd);  // it might choose this one again
    for (int i = 0; i < kTries && error == -EADDRINUSE; i++) error = choose_by_stack(fd, stack, call, v6_only, &name);
  }
  if (error == 0) note_kernel_name(fd, name, true, v6_only, port_be == 0);
  return error;
}

// The kernel has given a name before: it says whether there still is one. A port that it chose goes with a refused connect().
long bind_again(int fd, const zps_call& call, bool to_all, bool v6_only, bool port_chosen) noexcept {
  const long error = kernel_call(SYS_bind, fd, call.arg[1], call.arg[2]);
  if (error != 0) return error;
  drop_binding(fd);
  ParsedAddress name;
  const bool known = placeholder_name(fd, &name) == 0;
  note_kernel_name(fd, name, known && to_all, v6_only, port_chosen);
  Guard guard;
  if (netstack::Stack* stack = guard.stack()) adopt_bound_sockets(stack);
  return 0;
}

}  // namespace

long refuse_bind(int fd, int domain, const zps_call& call) noexcept {
  const bool any_address =
      domain == AF_INET6 || placeholder_int(fd, IPPROTO_IP, IP_FREEBIND) != 0 || placeholder_int(fd, IPPROTO_IP, IP_TRANSPARENT) != 0;
  const long error = ask_kernel(domain, reinterpret_cast<const void*>(call.arg[1]), static_cast<size_t>(call.arg[2]), any_address);
  return error == 0 || error == -EADDRINUSE ? -EINVAL : error;
}

long shim_bind(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr || engine->thread()->vfork_child != 0) return kPass;
  if (is_datagram(peek(fd))) return datagram_bind(call);
  int domain;
  bool has_name, shares, again;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr) return kPass;
    domain = socket->domain;
    has_name = socket->has_name();
    shares = socket->sharing.reuse_port;
    again = socket->kernel_bound;
  }
  ParsedAddress parsed;
  if (long error = parse_address(domain, reinterpret_cast<void*>(call.arg[1]), static_cast<socklen_t>(call.arg[2]), &parsed); error != 0)
    return error;
  const bool v6_only = placeholder_is_v6_only(fd, domain);
  const bool served =
      is_stacks_kind(parsed) && !(v6_only && parsed.address.address.is_v4()) && may_be_stacks(IPPROTO_TCP, parsed.address.port_be);
  const netstack::Stack* const at = served && !parsed.wildcard ? stack_at(parsed.address.address) : nullptr;
  const bool shared = at != nullptr && at->wire().facts().shared;
  const bool to_stack = at != nullptr && !shared;
  if (to_stack) {
    if (const long error = may_bind(parsed.address); error != 0) return error;
    if (has_name || again) return -EINVAL;
  } else if (has_name) {
    return refuse_bind(fd, domain, call);
  }
  if (shares) note_owner(fd);
  if (to_stack) return bind_to_stack(fd, parsed.address);
  const bool to_all = served && (parsed.wildcard || shared);
  if (again) return bind_again(fd, call, to_all, v6_only, parsed.address.port_be == 0);
  if (to_all) return bind_to_all(fd, call, parsed, v6_only);
  const long error = kernel_call(SYS_bind, fd, call.arg[1], call.arg[2]);
  if (error == 0) note_kernel_name(fd, {}, false, false, false);
  return error;
}

}  // namespace shim
