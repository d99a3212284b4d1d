// A look at descriptor 2, and a datagram to /dev/log.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/unseen_stderr.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <syslog.h>

#include "base/permitted.h"
#include "base/syscall.h"

namespace base {
namespace {

static_assert((LOG_DAEMON | LOG_ERR) == 27);
constexpr char kPriority[] = "<27>";

}  // namespace

bool stderr_is_unseen() noexcept {
  struct stat status;
  if (!may_call(SYS_fstat)) return false;
  if (kernel_call(SYS_fstat, 2, as_arg(&status)) != 0) return true;
  return S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
}

void send_to_syslog(const char* line, size_t length) noexcept {
  if (!may_call(SYS_socket) || !may_call(SYS_sendmsg) || !may_call(SYS_close)) return;
  const long socket = kernel_call(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket < 0) return;
  sockaddr_un place{AF_UNIX, "/dev/log"};
  iovec parts[] = {{const_cast<char*>(kPriority), sizeof kPriority - 1}, {const_cast<char*>(line), length}};
  msghdr message{};
  message.msg_name = &place;
  message.msg_namelen = sizeof place;
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  (void)kernel_call(SYS_sendmsg, socket, as_arg(&message), MSG_NOSIGNAL);
  (void)kernel_call(SYS_close, socket);
}

}  // namespace base
