// connect: the decision, the handshake, and what a second connect says.
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

#include "base/syscall.h"
#include "shim/files/address.h"
#include "shim/calls/calls.h"
#include "shim/family/family.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/options.h"
#include "shim/files/routing.h"
#include "shim/files/user_memory.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::SocketAddress;

// The state of a connection in the making, with the lock held. -EAGAIN: not decided yet.
long connect_result(Socket* socket) noexcept {
  netstack::TcpStream* stream = socket->stream;
  if (stream->connecting()) return -EAGAIN;
  if (const int error = stream->take_error(); error != 0) return -error;
  if (stream->connected()) {
    socket->connect_reported = true;
    return 0;
  }
  return -ECONNABORTED;
}

class ConnectCondition final : public Condition {
 public:
  explicit ConnectCondition(Socket* socket) noexcept : socket_(socket) {}
  long check() noexcept override { return socket_->stream == nullptr ? -EINVAL : connect_result(socket_); }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, socket_->stream); }

 private:
  Socket* socket_;
};

// A connect() that told of the failure leaves a socket that never tried: the placeholder answers for it again.
void forget_failed_stream(Socket* socket) noexcept {
  while (socket->stream->observers.pop_front() != nullptr) {
  }
  socket->stream->release();
  socket->stream = nullptr;
  socket->state = SocketState::undecided;
  registrations_return(socket);
}

// Another connect() on a socket of the stack. kPass: start anew; -EALREADY: under way.
long connect_again(Socket* socket) noexcept {
  if (socket->stream->connecting()) return -EALREADY;
  if (socket->connect_reported) return -EISCONN;  // whatever has become of the connection since
  if (socket->attempt_ended) {  // by the program itself: nothing is to be told
    forget_failed_stream(socket);
    return kPass;
  }
  const long result = connect_result(socket);
  if (socket->stream->connected()) return result;
  forget_failed_stream(socket);
  return result;
}

// Starts the handshake, with the lock held. 0 or a negative errno.
long start(Socket* socket, netstack::Stack* stack, const SocketAddress& local, const SocketAddress& peer, const StreamOptions& options) noexcept {
  netstack::TcpStream* stream = stack->make_stream();
  if (stream == nullptr) return -ENOBUFS;
  apply_options(stream, options);
  long error = local.port_be != 0 || local.address_be != 0 ? stack->bind_stream(stream, local) : 0;
  if (error == 0) error = stream->connect(peer);
  if (error != 0) {
    stream->release();
    return error;
  }
  socket->stream = stream;
  socket->state = SocketState::stream;
  socket->connect_reported = socket->attempt_ended = false;
  registrations_follow(socket, false);
  stack->flush();
  return 0;
}

// The result of a connection that this call has started, or another one before it. `busy`: what to say while it is not decided.
long await_connection(int fd, Socket* socket, long busy) noexcept {
  WaitOptions options;
  {
    Guard guard;
    if (file_at(fd) != socket) return -EBADF;
    if (socket->stream == nullptr) return busy;  // another thread has ended the attempt
    if (socket->nonblocking || socket->send_timeout_ns == 0) {
      if (socket->stream->connecting()) return busy;
      const long result = connect_result(socket);
      if (result < 0) forget_failed_stream(socket);
      return result;
    }
    if (!begin_wait(socket)) return -ENOMEM;
    options.deadline_ns = deadline_after(socket->send_timeout_ns);
    options.restartable = socket->send_timeout_ns == kForever;
  }
  ConnectCondition condition(socket);
  const long result = wait_for(condition, options);
  if (result == -EAGAIN) return busy;
  if (result < 0 && result != -EINTR && result != kRestart) {
    Guard guard;
    if (file_at(fd) == socket && socket->stream != nullptr && !socket->stream->connecting()) forget_failed_stream(socket);
  }
  return result;
}

// What the placeholder was bound to by the program, as far as it matters on the stack: the port.
SocketAddress placeholder_port(int fd) noexcept {
  sockaddr_in6 name{};
  socklen_t bytes = sizeof name;
  if (kernel_call(SYS_getsockname, fd, as_arg(&name), as_arg(&bytes)) != 0) return {};
  return {0, name.sin6_port};
}

// A socket with an address of the stack's can go nowhere else; but first what is no address at all.
long unreachable(int domain, const void* address, size_t bytes) noexcept {
  sa_family_t family = AF_UNSPEC;
  if (bytes < sizeof family || copy_in(&family, address, sizeof family) != 0) return bytes < sizeof family ? -EINVAL : -EFAULT;
  if (bytes < (domain == AF_INET6 ? offsetof(sockaddr_in6, sin6_scope_id) : sizeof(sockaddr_in))) return -EINVAL;
  return family == domain ? -ENETUNREACH : -EAFNOSUPPORT;
}

}  // namespace

long shim_connect(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr || engine->thread()->vfork_child != 0) return kPass;
  int domain;
  bool stack_bound;
  SocketAddress local;
  Socket* socket;
  bool under_way = false;
  {
    Guard guard;
    socket = socket_at(fd);
    if (socket == nullptr) return kPass;
    if (socket->state == SocketState::listening) return -EISCONN;
    if (socket->state == SocketState::stream && socket->stream != nullptr) {
      const long result = connect_again(socket);
      under_way = result == -EALREADY;
      if (result != kPass && !under_way) return result;
    }
    domain = socket->domain;
    stack_bound = socket->stack_bound;
    local = socket->bound;
  }
  if (under_way) return await_connection(fd, socket, -EALREADY);
  ParsedAddress parsed;
  if (long error = parse_address(domain, reinterpret_cast<void*>(call.arg[1]), static_cast<socklen_t>(call.arg[2]), &parsed); error != 0) return error;
  netstack::Stack* stack = parsed.ipv4 ? stack_towards(parsed.address.address_be) : nullptr;
  if (stack == nullptr) {
    if (stack_bound) return unreachable(domain, reinterpret_cast<void*>(call.arg[1]), static_cast<socklen_t>(call.arg[2]));
    Guard guard;
    socket = socket_at(fd);
    if (socket != nullptr && parsed.ipv4) {
      socket->state = SocketState::kernel;
      table_clear(fd);
    }
    return kPass;
  }
  service_ensure();
  if (!stack_bound) local = placeholder_port(fd);
  const StreamOptions options = read_placeholder_options(fd, options_set_of(fd));
  {
    Guard guard;
    socket = socket_at(fd);
    if (socket == nullptr) return -EBADF;
    if (socket->stream != nullptr) return -EALREADY;
    if (long error = start(socket, stack, local, parsed.address, options); error != 0) return error;
  }
  return await_connection(fd, socket, -EINPROGRESS);
}

}  // namespace shim
