// Counting and ending open file descriptions.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/file.h"

#include "base/clock.h"
#include "shim/files/async_io.h"
#include "shim/files/datagram_socket.h"
#include "shim/files/epoll_file.h"
#include "shim/family/family.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

void close_socket(Socket* socket) noexcept {
  release_notice(socket);
  // An acknowledgement that has come lets out what a reset would throw away: the kernel has looked at it when it came.
  if (socket->stream != nullptr && socket->stream->would_lose()) (void)the_stack()->poll(base::monotonic_ns());
  socket->leave_home();
  if (socket->stream != nullptr) {
    while (netstack::Observer* observer = socket->stream->observers.pop_front()) (void)observer;
    socket->stream->release();
  }
  if (socket->listener != nullptr) {
    while (netstack::Observer* observer = socket->listener->observers.pop_front()) (void)observer;
    socket->listener->release();
  }
  if (socket->binding != nullptr) socket->binding->release();
  // FIN or RST goes out with the next flush; nobody may be about to wait.
  if (netstack::Stack* stack = the_stack()) stack->flush();
  socket->state = SocketState::kernel;
  files().sockets.release(socket);
}

void close_epoll(EpollFile* set) noexcept {
  while (SetLink* link = set->items.front()) drop_item(static_cast<EpollItem*>(link));
  while (netstack::Observer* observer = set->observers.pop_front()) (void)observer;
  files().epolls.release(set);
}

}  // namespace

void Socket::move_home(uint8_t bell) noexcept {
  const netstack::WakeBells& bells = the_stack()->wire().bells();
  if (stream != nullptr && bells.exist()) {
    if (bell != 0) {
      bells.bring_home(stream->local(), stream->peer(), bell);
    } else {
      bells.leave_home(stream->local(), stream->peer(), home);
    }
  }
  home = bell;
}

void Socket::claim(ProcessSlot* by) noexcept {
  mover = by;
  mover_pid = by->pid;
}

bool Socket::is_claimed() noexcept {
  if (mover == nullptr) return false;
  if (mover->state.load(std::memory_order_relaxed) != SlotState::free && mover->pid == mover_pid) {
    turned_away = true;
    return true;
  }
  mover = nullptr;
  return false;
}

void drop_registrations(File* file) noexcept {
  while (FileLink* link = file->registrations.front()) drop_item(static_cast<EpollItem*>(link));
}

void File::end() noexcept {
  drop_registrations(this);
  if (kind == FileKind::socket) {
    close_socket(static_cast<Socket*>(this));
  } else if (kind == FileKind::datagram) {
    close_datagram(static_cast<DatagramSocket*>(this));
  } else {
    close_epoll(static_cast<EpollFile*>(this));
  }
}

}  // namespace shim
