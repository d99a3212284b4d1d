// The control messages of a receive, as tcp_recv_timestamp(), tcp_inq_hint() and put_cmsg() have them.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/arrival_messages.h"

#include <netinet/in.h>
#include <linux/tcp.h>
#include <sys/epoll.h>

#include <cstdint>

#include "shim/family/family.h"
#include "shim/files/control_writer.h"
#include "shim/files/fd_table.h"

namespace shim {
namespace {

// What is asked for, and the facts about the connection.
struct Arrival {
  ArrivalControl wanted;
  uint64_t came_ns = 0;  // base::monotonic_ns()
  int inq = 0;
};

// Without the lock for those who ask for nothing: they pay for two loads.
bool look(int fd, Arrival* out) noexcept {
  const File* const file = peek(fd);
  if (file == nullptr || file->kind != FileKind::socket || !static_cast<const Socket*>(file)->arrival.any()) return false;
  Guard guard;
  const Socket* const socket = socket_at(fd);
  if (socket == nullptr || socket->stream == nullptr) return false;
  out->wanted = socket->arrival;
  out->came_ns = socket->stream->received_ns();
  out->inq = static_cast<int>(socket->stream->readable_bytes());
  if (out->inq == 0 && (socket->stream->ready() & EPOLLRDHUP) != 0) out->inq = 1;
  return true;
}

}  // namespace

long tell_arrival(int fd, long received, msghdr* header) noexcept {
  Arrival arrival;
  if (!look(fd, &arrival)) {
    header->msg_controllen = 0;
    return 0;
  }
  ControlWriter writer(header);
  if (received > 0 && arrival.came_ns != 0) {
    if (long error = writer.put_times(arrival.came_ns, arrival.wanted.timestamp_type, arrival.wanted.timestamping); error != 0)
      return error;
  }
  if (arrival.wanted.inq) {
    if (long error = writer.put(IPPROTO_TCP, TCP_CM_INQ, &arrival.inq, sizeof arrival.inq); error != 0) return error;
  }
  header->msg_controllen = writer.used();
  return 0;
}

}  // namespace shim
