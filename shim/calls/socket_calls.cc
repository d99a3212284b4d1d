// socket, listen, accept and the names of sockets.
// SPDX-License-Identifier: BSD-3-Clause
//
// A socket is undecided until connect() or listen(): until then its placeholder answers everything.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/files/address.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/family/family.h"
#include "shim/files/async_io.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim/files/options.h"
#include "shim/files/placeholders.h"
#include "shim/files/ports.h"
#include "shim/family/process.h"
#include "shim/files/routing.h"
#include "shim/files/socket_states.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::SocketAddress;

// A connection that accept() has taken from the stack.
struct Accepted {
  SocketAddress peer;
  int domain = AF_INET;
  OptionSet inherited;  // what the placeholder lacks
  bool shares = false;  // its port by SO_REUSEPORT, with sockets of one user
};

// Gives the oldest connection to the placeholder, which is `made`, with the lock held. 0, -EAGAIN if there is none (any more), -EINVAL,
// -ENFILE.
long take_connection(Socket* listening, Placeholder& placeholder, int made, int flags, Accepted* out) noexcept {
  if (listening->listener == nullptr) return -EINVAL;
  Socket* socket = files().sockets.allocate(listening->domain);
  if (socket == nullptr) return -ENFILE;
  long error = -EAGAIN;
  netstack::TcpStream* stream = listening->listener->accept(&out->peer, &error);
  if (stream == nullptr) {
    files().sockets.release(socket);
    return error;
  }
  socket->state = SocketState::stream;
  socket->stream = stream;
  socket->ss_state = SsState::connected;
  socket->bound.address = listening->bound.address;  // SOCK_BINDADDR_LOCK
  socket->nonblocking = (flags & SOCK_NONBLOCK) != 0;
  socket->receive_timeout_ns = listening->receive_timeout_ns;
  socket->send_timeout_ns = listening->send_timeout_ns;
  socket->options_set = listening->options_set;
  if (!placeholder.give_to(socket, made, *listening)) out->inherited = listening->options_set;
  socket->sharing = listening->sharing;
  out->shares = socket->sharing.reuse_port;
  socket->receive_low_water = listening->receive_low_water;
  socket->arrival = listening->arrival;
  socket->peek_offset = listening->peek_offset;
  out->domain = listening->domain;
  error = table_set(made, socket);
  if (error != 0) {
    socket->refs = 1;
    drop_reference(socket);
  }
  return error;
}

// Waits for a connection of either side and takes it. Like every wait it sticks to the listener, whatever becomes of the number meanwhile.
class AcceptCondition final : public Condition {
 public:
  AcceptCondition(Socket* socket, const zps_call& call) noexcept
      : socket_(socket), call_(call), fd_(static_cast<int>(call.arg[0])), flags_(static_cast<int>(call.arg[3])), dual_(socket->dual) {}

  long check() noexcept override {
    if (socket_->listener == nullptr) return -EINVAL;
    if ((socket_->listener->ready() & EPOLLIN) == 0) return -EAGAIN;
    Placeholder placeholder;
    placeholder.choose(*socket_);
    const long made = placeholder.make(flags_);
    const long error = made < 0 ? made : take_connection(socket_, placeholder, static_cast<int>(made), flags_, &accepted_);
    if (error == 0) return made;
    placeholder.put_back();
    if (made >= 0) (void)kernel_call(SYS_close, made);
    return error;
  }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, socket_->listener); }
  bool has_kernel_side() const noexcept override { return dual_; }
  long check_kernel() noexcept override {
    if (peek(fd_) != socket_) {  // closed or replaced: the kernel's listener went with the number
      dual_ = false;
      kernel_fds_[0].fd = -1;
      return -EAGAIN;
    }
    const long made = kernel_call(SYS_accept4, fd_, call_.arg[1], call_.arg[2], flags_);
    by_kernel_ = made >= 0;
    return made;
  }

  [[nodiscard]] pollfd* kernel_fds() noexcept { return kernel_fds_; }
  [[nodiscard]] bool by_kernel() const noexcept { return by_kernel_; }
  [[nodiscard]] const Accepted& accepted() const noexcept { return accepted_; }

 private:
  Socket* socket_;
  const zps_call& call_;
  int fd_, flags_;
  bool dual_;
  bool by_kernel_ = false;
  Accepted accepted_;
  pollfd kernel_fds_[1 + kOwnFds] = {{fd_, POLLIN, 0}};
};

bool is_dual(int fd) noexcept {
  Guard guard;
  const Socket* socket = socket_at(fd);
  return socket != nullptr && socket->dual;
}

// Takes a connection of the stack: its descriptor, or -EAGAIN if there is none.
long accept_from_stack(int fd, int flags, Accepted* out) noexcept {
  Placeholder placeholder;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr || socket->listener == nullptr) return -EINVAL;
    if ((socket->listener->ready() & EPOLLIN) == 0) (void)guard.stack()->poll(base::monotonic_ns());
    if ((socket->listener->ready() & EPOLLIN) == 0) return -EAGAIN;
    placeholder.choose(*socket);
  }
  const long made = placeholder.make(flags);
  long error = made;
  {
    Guard guard;
    Socket* listening = socket_at(fd);
    if (made >= 0) error = listening == nullptr ? -EBADF : take_connection(listening, placeholder, static_cast<int>(made), flags, out);
    if (error == 0) return made;
    placeholder.put_back();
  }
  if (made >= 0) (void)kernel_call(SYS_close, made);
  return error;
}

// What accept() does with a connection of the stack last: options, and the peer's address.
long finish_accept(const zps_call& call, long made, const Accepted& accepted) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (!accepted.inherited.empty()) inherit_options(fd, static_cast<int>(made), accepted.inherited);
  if (accepted.shares) note_owner(static_cast<int>(made));  // sock_graft(): it is the acceptor's
  if (call.arg[1] == 0) return made;
  auto* const bytes = reinterpret_cast<socklen_t*>(call.arg[2]);
  const long error = write_address(accepted.domain, accepted.peer, reinterpret_cast<void*>(call.arg[1]), bytes);
  if (error == 0) return made;
  Guard guard;
  table_clear(static_cast<int>(made));
  (void)kernel_call(SYS_close, made);
  return error;
}

long do_accept(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  const int flags = static_cast<int>(call.arg[3]);
  if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) return -EINVAL;
  service_ensure();
  Accepted accepted;
  const long at_once = accept_from_stack(fd, flags, &accepted);
  if (at_once >= 0) return finish_accept(call, at_once, accepted);
  if (at_once != -EAGAIN) return at_once;
  if (is_dual(fd)) {
    const long kernel = kernel_call(SYS_accept4, fd, call.arg[1], call.arg[2], flags);
    if (kernel != -EAGAIN) return kernel;
  }
  Socket* socket;
  WaitOptions options;
  {
    Guard guard;
    socket = socket_at(fd);
    if (socket == nullptr || socket->listener == nullptr) return -EINVAL;
    if (socket->nonblocking || socket->receive_timeout_ns == 0) return -EAGAIN;
    options.deadline_ns = deadline_after(socket->receive_timeout_ns);
    options.restartable = socket->receive_timeout_ns == kForever;
    if (!begin_wait(socket)) return -ENOMEM;
  }
  AcceptCondition condition(socket, call);
  if (condition.has_kernel_side()) {
    options.kernel_fds = condition.kernel_fds();
    options.kernel_fd_count = 1;
  }
  const long made = wait_for(condition, options);
  return made < 0 || condition.by_kernel() ? made : finish_accept(call, made, condition.accepted());
}

// What the kernel makes of a backlog (__sys_listen()).
int clamp_backlog(int backlog) noexcept {
  constexpr int kUsual = 4096;
  int most = kUsual;
  char text[16] = {};
  const long fd = kernel_call(SYS_openat, AT_FDCWD, as_arg("/proc/sys/net/core/somaxconn"), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    if (kernel_call(SYS_read, fd, as_arg(text), sizeof text - 1) > 0) most = atoi(text);
    (void)kernel_call(SYS_close, fd);
  }
  return static_cast<unsigned>(backlog) > static_cast<unsigned>(most) ? most : backlog;
}

// The stack's part of listen(), with its address known. 0 or a negative errno.
long listen_on_stack(int fd, netstack::Stack* stack, const SocketAddress& local, bool v6_only, int backlog, bool dual) noexcept {
  const PortOptions port_options = read_port_options(fd);
  const OptionSet set = options_set_of(fd);
  say_refused_of(set);
  const StreamOptions options = read_placeholder_options(fd, set);
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket != nullptr && socket->state == SocketState::listening) {  // another thread or process was quicker
    socket->listener->set_backlog(backlog);
    return 0;
  }
  if (socket == nullptr || socket->state != SocketState::undecided) return -EINVAL;
  long error = 0;
  netstack::TcpListener* listener =
      stack->listen({local, socket->sharing, port_options.range, false, false, v6_only}, socket->binding, backlog, &error);
  if (listener == nullptr) return error;
  apply_options(listener, options);
  if (socket->shut != 0) (void)listener->set_option(netstack::TcpOption::shut, socket->shut);
  socket->listener = listener;
  socket->state = SocketState::listening;
  socket->dual = dual;
  socket->old_port_be = 0;
  if (!socket->has_port) socket->has_port = socket->port_chosen = true;
  socket->bound = listener->local();
  pass_port_on(socket);
  registrations_follow(socket, dual);
  attach_notice(socket);
  return 0;
}

constexpr int kTries = 64;  // how often the kernel may choose a port that the stack does not want

// What the placeholder's address says: on both sides, or on the kernel's alone. `has_port`: it is not for the kernel to choose one.
long listen_on_both(int fd, int domain, int backlog, int most, bool has_port) noexcept {
  ParsedAddress name;
  const bool v6_only = placeholder_is_v6_only(fd, domain);
  long result = -EADDRINUSE;
  for (int i = 0; i < kTries; i++) {
    result = kernel_call(SYS_listen, fd, backlog);
    if (result != 0) return result;
    netstack::Stack* stack = nullptr;
    const bool served = placeholder_name(fd, &name) == 0 && name.known && !(v6_only && name.address.address.is_v4()) &&
                        side_of(IPPROTO_TCP, name.address.port_be, nullptr) == base::Side::stack;
    if (served) stack = name.wildcard ? ensure_stack() : shared_stack_at(name.address.address);
    if (stack == nullptr) {
      Guard guard;
      if (Socket* socket = socket_at(fd)) give_to_kernel(fd, socket);
      return 0;
    }
    result = listen_on_stack(fd, stack, name.address, v6_only, most, true);
    if (result == 0) {
      set_placeholder_nonblocking(fd);
      return 0;
    }
    end_kernel_listener(fd);
    if (result != -EADDRINUSE || has_port) break;
  }
  return result;
}

}  // namespace

long shim_socket(const zps_call& call) noexcept {
  const int domain = static_cast<int>(call.arg[0]);
  const int type = static_cast<int>(call.arg[1]);
  const int protocol = static_cast<int>(call.arg[2]);
  const int flags = type & (SOCK_NONBLOCK | SOCK_CLOEXEC);
  const bool is_udp = (domain == AF_INET || domain == AF_INET6) && (type & ~flags) == SOCK_DGRAM &&
                      (protocol == 0 || protocol == IPPROTO_UDP) && serves_datagrams();
  if (is_udp && !kernel_only() && engine->thread()->vfork_child == 0) {
    enter_network();
    return make_datagram_socket(call);
  }
  if ((domain != AF_INET && domain != AF_INET6) || (type & ~flags) != SOCK_STREAM || (protocol != 0 && protocol != IPPROTO_TCP))
    return kPass;
  if (kernel_only() || engine->thread()->vfork_child != 0) return kPass;
  enter_network();
  const long fd = kernel_call(SYS_socket, domain, type, protocol);
  if (fd < 0) return fd;
  Guard guard;
  Socket* socket = files().sockets.allocate(domain);
  if (socket == nullptr) return fd;  // no room: a kernel socket it stays
  socket->nonblocking = (flags & SOCK_NONBLOCK) != 0;
  if (table_set(static_cast<int>(fd), socket) != 0) files().sockets.release(socket);
  return fd;
}

long shim_listen(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  const int backlog = static_cast<int>(call.arg[1]);
  if (peek(fd) == nullptr || engine->thread()->vfork_child != 0) return kPass;
  const int most = clamp_backlog(backlog);
  bool stack_bound;
  int domain;
  SocketAddress local;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr) return kPass;
    domain = socket->domain;
    if (socket->ss_state != SsState::unconnected) return -EINVAL;
    if (socket->state == SocketState::stream) {  // its attempt was ended: the error stays, and is the listener's
      socket->error = socket->stream->take_error();
      return_to_placeholder(fd, socket);
    }
    if (socket->state == SocketState::listening) {
      socket->listener->set_backlog(most);
      return socket->dual ? kPass : 0;
    }
    stack_bound = socket->stack_bound;
    local = socket->place();
  }
  return stack_bound ? listen_on_stack(fd, ensure_stack(), local, false, most, false)
                     : listen_on_both(fd, domain, backlog, most, local.port_be != 0);
}

long shim_accept4(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr) return kPass;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr || socket->state == SocketState::undecided) return kPass;
    if (socket->state != SocketState::listening) return -EINVAL;
  }
  return do_accept(call);
}

long shim_accept(const zps_call& call) noexcept {
  zps_call with_flags = call;
  with_flags.arg[3] = 0;
  return shim_accept4(with_flags);
}

long shim_getsockname(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr) return kPass;
  if (is_datagram(peek(fd))) return datagram_name(call, false);
  SocketAddress local;
  int domain;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr) return kPass;
    domain = socket->domain;
    if (socket->has_connection()) {
      local = socket->stream->local();
    } else if (socket->stack_bound) {
      local = socket->bound;
    } else if (socket->old_port_be != 0) {
      local = {socket->bound.address, socket->old_port_be};
    } else {
      return kPass;
    }
  }
  return write_address(domain, local, reinterpret_cast<void*>(call.arg[1]), reinterpret_cast<socklen_t*>(call.arg[2]));
}

long shim_getpeername(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr) return kPass;
  if (is_datagram(peek(fd))) return datagram_name(call, true);
  SocketAddress peer;
  int domain;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr || socket->state != SocketState::stream) return kPass;
    if (!socket->stream->connected()) return -ENOTCONN;  // one that is shut down still has its peer
    domain = socket->domain;
    peer = socket->stream->peer();
  }
  return write_address(domain, peer, reinterpret_cast<void*>(call.arg[1]), reinterpret_cast<socklen_t*>(call.arg[2]));
}

}  // namespace shim
