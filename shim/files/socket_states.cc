// Streams and listeners that a socket gives up.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/socket_states.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/async_io.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/placeholders.h"
#include "shim/files/ports.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// A stream without a connection stands for the placeholder.
void stand_in(Socket* socket) noexcept {
  netstack::TcpStream* stream = the_stack()->make_stream();
  if (stream == nullptr) return;
  stream->set_error(socket->take_error());
  socket->stream = stream;
  socket->state = SocketState::stream;
  registrations_follow(socket, false);
}

}  // namespace

void return_to_placeholder(int fd, Socket* socket) noexcept {
  while (socket->stream->observers.pop_front() != nullptr) {
  }
  socket->old_port_be = socket->stream->local().port_be;
  restore_held_options(fd, socket);
  socket->stream->release();
  socket->stream = nullptr;
  socket->state = SocketState::undecided;
  let_port_go(fd, socket);
  if (socket->shut != 0) (void)kernel_call(SYS_shutdown, fd, socket->shut - 1);  // ENOTCONN, and noted
  (void)registrations_return(socket);
}

void give_to_kernel(int fd, Socket* socket) noexcept {
  registrations_go(socket);
  drop_registrations(socket);
  socket->state = SocketState::kernel;
  table_clear(fd);
}

void forget_shutdown(int fd, Socket* socket) noexcept {
  if (socket->shut == 0) return;
  const sockaddr nowhere{AF_UNSPEC, {}};
  (void)kernel_call(SYS_connect, fd, as_arg(&nowhere), sizeof nowhere);
  socket->shut = 0;
}

void disconnect_stream(int fd, Socket* socket) noexcept {
  spoil_placeholder(socket);
  socket->stream->disconnect();
  if (socket->has_connection()) {
    socket->old_port_be = socket->stream->local().port_be;
    let_port_go(fd, socket);
    forget_chosen_port(socket);
  }
  socket->ss_state = SsState::unconnected;
  forget_shutdown(fd, socket);
}

void end_listening(int fd, Socket* socket) noexcept {
  const MutedNotice muted(socket);
  while (netstack::Observer* observer = socket->listener->observers.front()) {
    observer->on_ready(*socket->listener, EPOLLIN | EPOLLHUP);
    observer->unlink();
  }
  socket->listener->release();
  socket->listener = nullptr;
  socket->state = SocketState::undecided;
  forget_chosen_port(socket);
  const bool dual = socket->dual;
  if (dual) socket->shut = 0;
  else forget_shutdown(fd, socket);
  socket->dual = false;
  // The placeholder cannot have an error, and does not tell who has registered a number that is closed.
  if (!registrations_return(socket) || socket->error != 0) stand_in(socket);
  if (!dual || socket->nonblocking) return;
  const long flags = kernel_call(SYS_fcntl, fd, F_GETFL);
  if (flags >= 0) (void)kernel_call(SYS_fcntl, fd, F_SETFL, flags & ~static_cast<long>(O_NONBLOCK));
}

}  // namespace shim
