// Sends and receives vhost-user messages.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/vhost/vhost_channel.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>

#include "base/syscall.h"

namespace netstack {

using base::as_arg;
using base::kernel_call;

bool VhostChannel::begin(int socket, Control::Callback callback, void* argument) noexcept {
  const int fd = control_->adopt_fd(socket);
  if (fd < 0) return false;
  if (control_->add_callback(nullptr, fd, callback, argument) != 0) {
    (void)control_->drop_fd(fd);
    return false;
  }
  fd_ = fd;
  return true;
}

void VhostChannel::end() noexcept {
  if (fd_ >= 0) control_->end_fd(fd_);
  fd_ = -1;
}

VhostChannel::Got VhostChannel::receive(VhostMessage* message, int (&fds)[VhostMessage::kMostFds], int* count) noexcept {
  *count = 0;
  iovec part{message, VhostMessage::kHeadBytes};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof fds)];
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = room;
  header.msg_controllen = sizeof room;
  const long length = kernel_call(SYS_recvmsg, fd_, as_arg(&header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length == -EAGAIN || length == -EINTR) return Got::nothing;
  for (cmsghdr* rights = CMSG_FIRSTHDR(&header); length > 0 && rights != nullptr; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    *count = static_cast<int>((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(rights), static_cast<size_t>(*count) * sizeof(int));
  }
  const bool sound =
      length == VhostMessage::kHeadBytes && (header.msg_flags & MSG_CTRUNC) == 0 && message->size <= VhostMessage::kMostBytes;
  const long left = sound ? static_cast<long>(message->size) : 0;
  if (sound && (left == 0 || kernel_call(SYS_recvfrom, fd_, as_arg(message->payload), left, MSG_DONTWAIT, 0, 0) == left))
    return Got::message;
  for (int i = 0; i < *count; i++) (void)kernel_call(SYS_close, fds[i]);
  *count = 0;
  return Got::end;
}

bool VhostChannel::send(const VhostMessage& message, int fd) noexcept {
  iovec part{const_cast<VhostMessage*>(&message), VhostMessage::kHeadBytes + message.size};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof fd)] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = room;
    header.msg_controllen = sizeof room;
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  }
  return kernel_call(SYS_sendmsg, fd_, as_arg(&header), MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<long>(part.iov_len);
}

}  // namespace netstack
