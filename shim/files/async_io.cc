// Which event is worth which signal, and whom it goes to.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/async_io.h"

#include <fcntl.h>

#include <csignal>
#include <utility>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

File* socket_file_at(int fd) noexcept {
  File* const file = file_at(fd);
  return file != nullptr && file->kind != FileKind::epoll ? file : nullptr;
}

// The notice of the socket under `fd`, made if there is none; nullptr if it is no socket of ours any more.
AsyncNotice* notice_of(int fd, long* error) noexcept {
  File* const file = socket_file_at(fd);
  *error = 0;
  if (file == nullptr) return nullptr;
  if (file->notice == nullptr) {
    file->notice = files().notices.allocate(file);
    if (file->notice == nullptr) *error = -ENOMEM;
    attach_notice(file);
  }
  return file->notice;
}

}  // namespace

// Several events of a turn are one, as SIGIO itself is when it is pending.
void AsyncNotice::queue(int reason) noexcept {
  if (queued_[reason] != 0 && family->signals.is_waiting(queued_[reason] - 1)) return;
  queued_[reason] = family->signals.push({owner, fd, reason}) + 1;
  family->wakes_due.store(true, std::memory_order_relaxed);
}

// SOCK_WAKE_WAITD: of a stream, a blocking read that waits takes what comes itself.
bool AsyncNotice::reader_takes_it() noexcept {
  return file->kind == FileKind::socket && std::exchange(static_cast<Socket*>(file)->reader_waits, false);
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
    if (!reader_takes_it()) queue(POLL_IN);
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
    const File* const file = socket_file_at(fd);
    if (file == nullptr || file->notice == nullptr) return 0;
  }
  long error;
  AsyncNotice* const notice = notice_of(fd, &error);
  if (notice == nullptr) return error;
  notice->enabled = enabled;
  notice->fd = fd;
  return 0;
}

void attach_notice(File* file) noexcept {
  if (file->notice == nullptr || file->notice->linked()) return;
  if (netstack::Pollable* source = file_pollable(file)) source->observers.push_back(file->notice);
}

void release_notice(File* file) noexcept {
  if (file->notice == nullptr) return;
  file->notice->unlink();
  files().notices.release(file->notice);
  file->notice = nullptr;
}

}  // namespace shim
