// connect: the decision, the handshake, and what a second connect says.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

#include "base/permitted.h"
#include "base/syscall.h"
#include "shim/files/address.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/family/family.h"
#include "shim/files/async_io.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/options.h"
#include "shim/files/ports.h"
#include "shim/files/routing.h"
#include "shim/files/socket_states.h"
#include "shim/files/user_memory.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::SocketAddress;

constexpr int kTries = 4;  // how often the kernel may choose a port that is in use in the stack

// With the lock held. A connection to itself of a socket that had shut down its stream ends with the FIN behind the handshake: on Linux,
// whose loopback delivers at once, before connect() looks again.
bool is_under_way(const Socket& socket) noexcept {
  const netstack::TcpStream* stream = socket.stream;
  return stream->connecting() || (stream->connected() && (socket.shut & 2) != 0 && stream->local() == stream->peer());
}

// What has become of an attempt, with the lock held. -EAGAIN: nothing yet.
long connect_result(Socket* socket) noexcept {
  netstack::TcpStream* stream = socket->stream;
  if (stream == nullptr) return -ECONNABORTED;  // another thread's connect() has told it
  if (is_under_way(*socket)) return -EAGAIN;
  if (stream->connected()) {
    socket->ss_state = SsState::connected;
    return 0;
  }
  const int error = stream->take_error();
  return error != 0 ? -error : -ECONNABORTED;
}

class ConnectCondition final : public Condition {
 public:
  explicit ConnectCondition(Socket* socket) noexcept : socket_(socket) {}
  long check() noexcept override { return connect_result(socket_); }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, socket_->stream); }

 private:
  Socket* socket_;
};

struct Attempt {
  netstack::Stack* stack;
  const SocketAddress& peer;
  const StreamOptions& options;
  uint16_t held_be;  // the port that the placeholder has for it, or 0
};

// Starts the handshake, with the lock held. 0 or a negative errno.
long start(Socket* socket, const Attempt& attempt) noexcept {
  netstack::Stack* const stack = attempt.stack;
  netstack::TcpStream* stream = stack->make_stream();
  if (stream == nullptr) return -ENOBUFS;
  apply_options(stream, attempt.options);
  (void)stream->set_option(netstack::TcpOption::owner_uid, static_cast<int>(socket->sharing.uid));
  const int held = ntohs(attempt.held_be);
  if (held != 0) (void)stream->set_option(netstack::TcpOption::port_range, held << 16 | held);
  if (socket->shut != 0) (void)stream->shutdown(socket->shut - 1);
  const SocketAddress local = socket->place();
  long error = local.port_be != 0 || !local.address.is_any() ? stack->bind_stream(stream, local) : 0;
  if (error == 0) error = stream->connect(attempt.peer);
  if (error != 0) {
    stream->release();
    if (error != -ENETUNREACH) forget_chosen_port(socket);  // as in a failure of tcp_v4_connect() behind the route
    return error;
  }
  pass_port_on(socket);
  socket->stream = stream;
  socket->home = 0;  // it was another flow's
  socket->state = SocketState::stream;
  socket->ss_state = SsState::connecting;
  socket->old_port_be = 0;
  registrations_follow(socket, false);
  attach_notice(socket);
  stack->flush();
  return 0;
}

// What this call says of the attempt that it has begun (`busy`: EINPROGRESS), or another one before it (EALREADY): __inet_stream_connect()
// from SS_CONNECTING on.
long await_connection(int fd, Socket* socket, long busy) noexcept {
  WaitOptions options;
  {
    Guard guard;
    if (file_at(fd) != socket) return -EBADF;
    const bool waits = !socket->nonblocking && socket->send_timeout_ns != 0;
    // A handshake that this call has begun is under way, however fast it was: __inet_stream_connect() holds the socket's lock till here.
    if (busy == -EINPROGRESS && !waits) return busy;
    if (socket->stream != nullptr && is_under_way(*socket)) {
      if (!waits) return busy;
      if (!begin_wait(socket)) return -ENOMEM;
      options.deadline_ns = deadline_after(socket->send_timeout_ns);
      options.restartable = socket->send_timeout_ns == kForever;
    } else {
      const long result = connect_result(socket);
      if (result < 0 && socket->stream != nullptr) disconnect_stream(fd, socket);
      return result;
    }
  }
  ConnectCondition condition(socket);
  const long result = wait_for(condition, options);
  if (result == -EAGAIN) return busy;
  if (result < 0 && result != -EINTR && result != kRestart) {
    Guard guard;
    if (file_at(fd) == socket && socket->stream != nullptr && !socket->stream->connecting()) disconnect_stream(fd, socket);
  }
  return result;
}

// The family of an address that is one at all, which is looked at before the socket's state (move_addr_to_kernel(), inet_stream_connect()).
long load_family(const zps_call& call, sa_family_t* family) noexcept {
  sockaddr_storage raw;
  const int bytes = static_cast<int>(call.arg[2]);
  if (bytes < 0 || static_cast<size_t>(bytes) > sizeof raw) return -EINVAL;
  if (long error = copy_in(&raw, reinterpret_cast<void*>(call.arg[1]), static_cast<size_t>(bytes)); error != 0) return error;
  if (static_cast<size_t>(bytes) < sizeof *family) return -EINVAL;
  *family = raw.ss_family;
  return 0;
}

// No address at all (tcp_v4_connect()): nothing has happened.
bool is_too_short(int domain, size_t bytes) noexcept {
  return bytes < (domain == AF_INET6 ? offsetof(sockaddr_in6, sin6_scope_id) : sizeof(sockaddr_in));
}

// A socket with an address of the stack's can go nowhere else; but first what is no address at all.
long unreachable(int domain, sa_family_t family, size_t bytes, const ParsedAddress& to, bool of_link) noexcept {
  if (is_too_short(domain, bytes) || (to.elsewhere && (to.scope == 0 || of_link))) return -EINVAL;
  return family == domain ? -ENETUNREACH : -EAFNOSUPPORT;
}

// Whether the kernel knows no way to this address. A socket that is bound, marked or transparent may have one all the same.
bool has_no_way(int domain, const zps_call& call) noexcept {
  const long probe = base::may_call(SYS_socket) ? kernel_call(SYS_socket, domain, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
  if (probe < 0) return false;
  const long error = kernel_call(SYS_connect, probe, call.arg[1], call.arg[2]);
  (void)kernel_call(SYS_close, probe);
  return error == -ENETUNREACH;
}

// The kernel's connection or attempt, for good; but if there is no way, nothing has happened (tcp_v4_connect()).
long connect_by_kernel(int fd, int domain, sa_family_t family, const ParsedAddress& peer, const zps_call& call) noexcept {
  long result = kPass;
  if (peer.known && !peer.wildcard && !is_loopback(peer.address.address) && has_no_way(domain, call)) {
    result = kernel_call(SYS_connect, fd, call.arg[1], call.arg[2]);
    if (result == -ENETUNREACH) return result;
  }
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return result;
  if (socket->stream != nullptr && family == domain) return_to_placeholder(fd, socket);
  if (peer.known) give_to_kernel(fd, socket);
  return result;
}

// connect() to no address.
long disconnect(int fd) noexcept {
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return kPass;
  const bool by_kernel = socket->state == SocketState::undecided || socket->dual;
  if (socket->stream != nullptr) disconnect_stream(fd, socket);
  if (socket->listener != nullptr) end_listening(fd, socket);
  if (by_kernel) socket->shut = 0;
  if (netstack::Stack* stack = guard.stack()) stack->flush();
  return by_kernel ? kPass : 0;
}

// Whether the socket's states let it begin an attempt: 0, -EALREADY if one is under way, or why not.
long may_connect(const Socket* socket) noexcept {
  switch (socket->ss_state) {
    case SsState::connecting: return -EALREADY;
    case SsState::connected: return -EISCONN;
    case SsState::disconnecting: return -EINVAL;
    default: return socket->state == SocketState::listening ? -EISCONN : 0;
  }
}

// The port that the kernel keeps for an attempt from an address that it has as well; 0: the socket has one, or there is none to be had.
uint16_t port_to_hold(int fd, const netstack::Stack& stack, const netstack::IpAddress& peer) noexcept {
  int domain;
  netstack::IpAddress from;
  {
    Guard guard;
    Socket* const socket = socket_at(fd);
    if (socket == nullptr || may_connect(socket) != 0) return 0;
    if (socket->stream != nullptr) return_to_placeholder(fd, socket);
    if (socket->has_port) return 0;
    domain = socket->domain;
    from = stack.source_for(peer);
  }
  return hold_port(fd, domain, from);
}

// Begins an attempt, if the socket's states allow it. 0, -EINPROGRESS if the program does not wait for it, or a negative errno;
// *gives_back: the placeholder's port is another's to choose.
long begin(int fd, const Attempt& attempt, bool* gives_back) noexcept {
  Guard guard;
  Socket* const socket = socket_at(fd);
  if (socket == nullptr) return -EBADF;
  if (const long error = may_connect(socket); error != 0) return error;
  if (socket->stream != nullptr) return_to_placeholder(fd, socket);  // its attempt was ended
  const bool kernel_chose = socket->kernel_bound && socket->port_chosen;
  const long error = start(socket, attempt);
  if (kernel_chose && error == 0 && attempt.stack->wire().facts().shared) socket->holds_port = true;
  *gives_back = kernel_chose && error != -ENETUNREACH && !socket->holds_port;
  if (*gives_back) socket->kernel_bound = socket->bound_to_all = false;
  if (error != 0) let_port_go(fd, socket);
  return error == 0 && (socket->nonblocking || socket->send_timeout_ns == 0) ? -EINPROGRESS : error;
}

}  // namespace

long shim_connect(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr || engine->thread()->vfork_child != 0) return kPass;
  if (is_datagram(peek(fd))) return datagram_connect(call);
  sa_family_t address_family;
  if (long error = load_family(call, &address_family); error != 0) return error;
  if (address_family == AF_UNSPEC) return disconnect(fd);
  int domain;
  bool stack_bound, bound_to_v4, bound_to_link, kernel_bound, to_all;
  uint16_t port_be;
  Socket* socket;
  long refusal;
  {
    Guard guard;
    socket = socket_at(fd);
    if (socket == nullptr) return kPass;
    refusal = may_connect(socket);
    domain = socket->domain;
    stack_bound = socket->stack_bound;
    bound_to_v4 = stack_bound && socket->bound.address.is_v4();
    bound_to_link = stack_bound && socket->bound.address.is_link_local();
    kernel_bound = socket->kernel_bound;
    to_all = socket->bound_to_all;
    port_be = socket->place().port_be;
  }
  if (refusal == -EALREADY) return await_connection(fd, socket, -EALREADY);
  if (refusal != 0) return refusal;
  ParsedAddress parsed;
  const auto bytes = static_cast<socklen_t>(call.arg[2]);
  if (long error = parse_address(domain, reinterpret_cast<void*>(call.arg[1]), bytes, &parsed); error != 0) return error;
  if (address_family == domain && is_too_short(domain, bytes)) return -EINVAL;
  const bool to_v4 = parsed.known && parsed.address.address.is_v4();
  if (to_v4 && !parsed.wildcard && placeholder_is_v6_only(fd, domain)) return -ENETUNREACH;
  if (parsed.scope == 0 && bound_to_link) parsed.elsewhere = false;
  netstack::Stack* stack = is_stacks_kind(parsed) ? stack_towards(IPPROTO_TCP, port_be, parsed.address.address) : nullptr;
  if (stack != nullptr && kernel_bound && !to_all) {  // from an address of the kernel's: its connection, on its way to the stack
    service_ensure();
    stack = nullptr;
  }
  if (stack != nullptr && bound_to_v4 && !to_v4) return -EAFNOSUPPORT;  // ip6_dst_lookup_tail()
  if (stack == nullptr) {
    if (stack_bound) return unreachable(domain, address_family, bytes, parsed, bound_to_link);
    return connect_by_kernel(fd, domain, address_family, parsed, call);
  }
  service_ensure();
  const OptionSet set = options_set_of(fd);
  say_refused_of(set);
  const StreamOptions options = read_placeholder_options(fd, set);
  long error = -EADDRNOTAVAIL;
  bool gives_back = false;
  for (int left = stack->wire().facts().shared ? kTries : 0; left >= 0 && error == -EADDRNOTAVAIL; left--) {
    const uint16_t held_be = left > 0 ? port_to_hold(fd, *stack, parsed.address.address) : static_cast<uint16_t>(0);
    error = begin(fd, {stack, parsed.address, options, held_be}, &gives_back);
    if (held_be == 0) break;
  }
  if (gives_back) give_kernel_port_back(fd);
  if (error != 0) return error;
  return await_connection(fd, socket, -EINPROGRESS);
}

}  // namespace shim
