// Descriptors in messages of Unix sockets (SCM_RIGHTS): sending and receiving them.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vector>

namespace testing_lib {

// What came with a message.
struct Received {
  ssize_t bytes = -1;
  int error = 0;
  int flags = 0;
  size_t control = 0;  // msg_controllen
  std::vector<int> fds;
  pid_t sender = 0;    // of SCM_CREDENTIALS
};

inline msghdr message_with(std::vector<char>& control, iovec& part, const std::vector<int>& fds, bool credentials = false) {
  const size_t bytes = fds.size() * sizeof(int);
  control.assign(CMSG_SPACE(bytes) + (credentials ? CMSG_SPACE(sizeof(ucred)) : 0), 0);
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (credentials) {
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_CREDENTIALS;
    header->cmsg_len = CMSG_LEN(sizeof(ucred));
    const ucred own{getpid(), getuid(), getgid()};
    memcpy(CMSG_DATA(header), &own, sizeof own);
    header = CMSG_NXTHDR(&message, header);
  }
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(header), fds.data(), bytes);
  return message;
}
inline ssize_t pass(int over, const std::vector<int>& fds, int flags = 0, bool credentials = false) {
  char byte = 'p';
  iovec part{&byte, 1};
  std::vector<char> control;
  const msghdr message = message_with(control, part, fds, credentials);
  return sendmsg(over, &message, flags);
}
inline Received parse(const msghdr& message, ssize_t bytes) {
  Received out;
  out.bytes = bytes;
  out.error = bytes < 0 ? errno : 0;
  if (bytes < 0) return out;
  out.flags = message.msg_flags;
  out.control = message.msg_controllen;
  msghdr copy = message;
  for (cmsghdr* header = CMSG_FIRSTHDR(&copy); header != nullptr; header = CMSG_NXTHDR(&copy, header)) {
    if (header->cmsg_level != SOL_SOCKET) continue;
    if (header->cmsg_type == SCM_CREDENTIALS) memcpy(&out.sender, CMSG_DATA(header), sizeof out.sender);
    if (header->cmsg_type != SCM_RIGHTS) continue;
    out.fds.resize((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(out.fds.data(), CMSG_DATA(header), out.fds.size() * sizeof(int));
  }
  return out;
}
inline Received receive(int over, int flags = 0, size_t room = 512) {
  char byte = 0;
  iovec part{&byte, 1};
  std::vector<char> control(room);
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  return parse(message, recvmsg(over, &message, flags));
}
// The one descriptor of a message.
inline int receive_one(int over, int flags = 0) {
  const Received got = receive(over, flags);
  return got.fds.size() == 1 ? got.fds[0] : -1;
}

}  // namespace testing_lib
