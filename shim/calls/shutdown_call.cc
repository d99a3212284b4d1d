// shutdown, as inet_shutdown() of Linux goes by both states of a socket.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/socket.h>

#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/family/family.h"
#include "shim/files/async_io.h"
#include "shim/files/fd_table.h"
#include "shim/files/socket_states.h"

namespace shim {
namespace {

// SS_CONNECTING becomes what the attempt has come to, though no connect() has told it. One under way (TCP_SYN_SENT) is ended by
// tcp_disconnect(), as if it had never been; of one that has failed (TCP_CLOSE) the socket never recovers by itself.
long shut_stream(int fd, Socket* socket, int how) noexcept {
  netstack::TcpStream* const stream = socket->stream;
  const MutedNotice muted(socket);
  if (stream->connecting()) {
    disconnect_stream(fd, socket);
    return 0;
  }
  if (socket->ss_state == SsState::connecting) socket->ss_state = stream->connected() ? SsState::connected : SsState::disconnecting;
  if (socket->ss_state == SsState::unconnected) socket->shut |= static_cast<uint8_t>(how + 1);
  return stream->shutdown(how);
}

// Nothing is new at a listener, but whoever is told of edges is told again of what there is.
void announce_anew(netstack::TcpListener* listener) noexcept {
  for (netstack::Observer* observer = listener->observers.front(); observer != nullptr; observer = listener->observers.after(observer)) {
    observer->on_ready(*listener, listener->ready());
  }
}

}  // namespace

long shim_shutdown(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  const int how = static_cast<int>(call.arg[1]);
  if (peek(fd) == nullptr) return kPass;
  if (is_datagram(peek(fd))) return datagram_shutdown(call);
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return kPass;
  if (how < SHUT_RD || how > SHUT_RDWR) return -EINVAL;
  if (socket->state == SocketState::stream) {
    const long result = shut_stream(fd, socket, how);
    guard.stack()->flush();
    return result;
  }
  if (socket->state != SocketState::listening) {
    socket->shut |= static_cast<uint8_t>(how + 1);  // the kernel notes it as well, and says ENOTCONN
    return kPass;
  }
  if (how == SHUT_WR) {  // changes nothing, but inet_shutdown() calls sk_state_change(): an edge
    announce_anew(socket->listener);
    return socket->dual ? kPass : 0;
  }
  // A listener that is shut down stops listening and can listen again.
  const bool dual = socket->dual;
  end_listening(fd, socket);
  return dual ? kPass : 0;
}

}  // namespace shim
