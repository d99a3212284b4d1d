// Which event is worth which signal, and whom it goes to.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/async_io.h"

#include <fcntl.h>

#include <csignal>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// The notice of the socket under `fd`, made if there is none; nullptr if it is no socket of ours any more.
AsyncNotice* notice_of(int fd, long* error) noexcept {
  Socket* socket = socket_at(fd);
  *error = 0;
  if (socket == nullptr) return nullptr;
  if (socket->notice == nullptr) {
    socket->notice = files().notices.allocate(socket);
    if (socket->notice == nullptr) *error = -ENOMEM;
    attach_notice(socket);
  }
  return socket->notice;
}

}  // namespace

// Several events of a turn are one, as SIGIO itself is when it is pending.
void AsyncNotice::queue(int reason) noexcept {
  if (queued_[reason] != 0 && family->signals.is_waiting(queued_[reason] - 1)) return;
  queued_[reason] = family->signals.push({owner, fd, reason}) + 1;
  family->wakes_due.store(true, std::memory_order_relaxed);
}

void AsyncNotice::on_ready(netstack::Pollable&, uint32_t events) noexcept {
  if (muted || owner.id == 0) return;
  if ((events & netstack::kUrgentAnnounced) != 0) {  // sk_send_sigurg(), and kill_fasync_rcu()
    queue(AsyncSignal::kUrgent);
    if (enabled && owner.signum != 0) queue(POLL_PRI);
    return;
  }
  if (!enabled) return;
  if ((events & EPOLLERR) != 0) {
    queue(POLL_ERR);
  } else if ((events & (EPOLLHUP | EPOLLRDHUP)) == (EPOLLHUP | EPOLLRDHUP)) {
    queue(POLL_HUP);
  } else if ((events & (EPOLLIN | EPOLLRDHUP)) != 0) {
    if (socket->reader_waits) {  // SOCK_WAKE_WAITD: he takes it himself
      socket->reader_waits = false;
    } else {
      queue(POLL_IN);
    }
  } else if ((events & EPOLLOUT) != 0) {
    queue(POLL_OUT);
  }
}

long follow_owner(int fd) noexcept {
  f_owner_ex owner{};
  if (kernel_call(SYS_fcntl, fd, F_GETOWN_EX, as_arg(&owner)) != 0) return 0;
  const long signum = kernel_call(SYS_fcntl, fd, F_GETSIG, 0);
  const auto uid = static_cast<uint32_t>(kernel_call(SYS_getuid)), euid = static_cast<uint32_t>(kernel_call(SYS_geteuid));
  Guard guard;
  long error;
  AsyncNotice* const notice = notice_of(fd, &error);
  if (notice == nullptr) return error;
  const bool same = notice->owner.type == owner.type && notice->owner.id == owner.pid;  // F_SETSIG leaves who has set the owner
  notice->owner = {owner.type, owner.pid, static_cast<int32_t>(signum), same ? notice->owner.uid : uid, same ? notice->owner.euid : euid};
  return 0;
}

long follow_async_flag(int fd, bool enabled) noexcept {
  Guard guard;
  if (!enabled) {
    const Socket* socket = socket_at(fd);
    if (socket == nullptr || socket->notice == nullptr) return 0;
  }
  long error;
  AsyncNotice* const notice = notice_of(fd, &error);
  if (notice == nullptr) return error;
  notice->enabled = enabled;
  notice->fd = fd;
  return 0;
}

void attach_notice(Socket* socket) noexcept {
  if (socket->notice == nullptr || socket->notice->linked()) return;
  if (netstack::Pollable* source = file_pollable(socket)) source->observers.push_back(socket->notice);
}

void release_notice(Socket* socket) noexcept {
  if (socket->notice == nullptr) return;
  socket->notice->unlink();
  files().notices.release(socket->notice);
  socket->notice = nullptr;
}

}  // namespace shim
