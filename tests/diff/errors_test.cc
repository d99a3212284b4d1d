// Wrong descriptors, addresses and arguments: the errno of the kernel, on fresh, connected and listening sockets.
// SPDX-License-Identifier: BSD-3-Clause

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Errors : public BothWays {};
ZPS_BOTH_WAYS(Errors);

char* const kNowhere = reinterpret_cast<char*>(0x1000);

#define EXPECT_ERRNO(call, expected)            \
  {                                             \
    errno = 0;                                  \
    EXPECT_EQ((call), -1) << #call;             \
    EXPECT_EQ(errno, expected) << #call;        \
  }

TEST_P(Errors, BadBuffers) {
  Connection c = connect_pair();
  peer.send(c.theirs, "data");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_ERRNO(read(c.mine, kNowhere, 4), EFAULT);
  EXPECT_ERRNO(recv(c.mine, kNowhere, 4, 0), EFAULT);
  EXPECT_ERRNO(write(c.mine, kNowhere, 4), EFAULT);
  EXPECT_ERRNO(send(c.mine, kNowhere, 4, 0), EFAULT);
  EXPECT_ERRNO(readv(c.mine, reinterpret_cast<iovec*>(kNowhere), 2), EFAULT);
  EXPECT_ERRNO(recvmsg(c.mine, reinterpret_cast<msghdr*>(kNowhere), 0), EFAULT);
  EXPECT_ERRNO(sendmsg(c.mine, reinterpret_cast<msghdr*>(kNowhere), 0), EFAULT);
  EXPECT_EQ(read_all(c.mine, 4), "data") << "nothing was lost";
  iovec part{kNowhere, 1};
  volatile int negative = -1, too_many = 2000;
  EXPECT_ERRNO(readv(c.mine, &part, negative), EINVAL);
  EXPECT_ERRNO(readv(c.mine, &part, too_many), EINVAL);
  EXPECT_ERRNO(ioctl(c.mine, FIONREAD, kNowhere), EFAULT);
  EXPECT_ERRNO(ioctl(c.mine, 0xdead, 0), ENOTTY);
}

TEST_P(Errors, BadNamesAndOptions) {
  Connection c = connect_pair();
  sockaddr_in name{};
  socklen_t size = sizeof name;
  int value = 0;
  EXPECT_ERRNO(getsockname(c.mine, reinterpret_cast<sockaddr*>(kNowhere), &size), EFAULT);
  EXPECT_ERRNO(getpeername(c.mine, reinterpret_cast<sockaddr*>(&name), reinterpret_cast<socklen_t*>(kNowhere)), EFAULT);
  size = static_cast<socklen_t>(-1);
  EXPECT_ERRNO(getsockname(c.mine, reinterpret_cast<sockaddr*>(&name), &size), EINVAL);
  size = sizeof value;
  EXPECT_ERRNO(getsockopt(c.mine, SOL_SOCKET, 9999, &value, &size), ENOPROTOOPT);
  EXPECT_ERRNO(setsockopt(c.mine, SOL_SOCKET, 9999, &value, sizeof value), ENOPROTOOPT);
  EXPECT_ERRNO(setsockopt(c.mine, IPPROTO_TCP, 9999, &value, sizeof value), ENOPROTOOPT);
  EXPECT_ERRNO(getsockopt(c.mine, IPPROTO_TCP, 9999, &value, &size), ENOPROTOOPT);
  EXPECT_ERRNO(setsockopt(c.mine, 12345, 1, &value, sizeof value), ENOPROTOOPT);
  EXPECT_ERRNO(setsockopt(c.mine, SOL_SOCKET, SO_KEEPALIVE, &value, 1), EINVAL);
  EXPECT_ERRNO(setsockopt(c.mine, SOL_SOCKET, SO_KEEPALIVE, kNowhere, sizeof value), EFAULT);
  EXPECT_ERRNO(getsockopt(c.mine, SOL_SOCKET, SO_KEEPALIVE, kNowhere, &size), EFAULT);
  EXPECT_ERRNO(setsockopt(c.mine, SOL_SOCKET, SO_TYPE, &value, sizeof value), ENOPROTOOPT);
  size = 1;
  value = -1;
  EXPECT_EQ(getsockopt(c.mine, SOL_SOCKET, SO_TYPE, &value, &size), 0);
  EXPECT_EQ(size, 1u) << "cut to the buffer";
  EXPECT_EQ(value & 0xff, SOCK_STREAM);
}

TEST_P(Errors, FreshSockets) {
  connect_pair();
  int fresh = socket(AF_INET, SOCK_STREAM, 0);
  char byte = 0;
  EXPECT_ERRNO(read(fresh, &byte, 1), ENOTCONN);
  EXPECT_ERRNO(send(fresh, &byte, 1, MSG_NOSIGNAL), EPIPE);
  EXPECT_ERRNO(shutdown(fresh, SHUT_WR), ENOTCONN);
  EXPECT_ERRNO(accept(fresh, nullptr, nullptr), EINVAL);
  sockaddr_in name{};
  socklen_t size = sizeof name;
  EXPECT_ERRNO(getpeername(fresh, reinterpret_cast<sockaddr*>(&name), &size), ENOTCONN);
  EXPECT_EQ(getsockname(fresh, reinterpret_cast<sockaddr*>(&name), &size), 0);
  EXPECT_EQ(to_text(name), "0.0.0.0:0");
}

TEST_P(Errors, ConnectedSockets) {
  Connection c = connect_pair();
  sockaddr_in any{};
  any.sin_family = AF_INET;
  EXPECT_ERRNO(bind(c.mine, reinterpret_cast<sockaddr*>(&any), sizeof any), EINVAL);
  EXPECT_ERRNO(accept(c.mine, nullptr, nullptr), EINVAL);
  EXPECT_ERRNO(listen(c.mine, 4), EINVAL);
  EXPECT_ERRNO(shutdown(c.mine, 7), EINVAL);
  EXPECT_EQ(shutdown(c.mine, SHUT_RDWR), 0);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), 0);
}

TEST_P(Errors, Binding) {
  connect_pair();
  int fresh = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in odd{};
  odd.sin_family = AF_INET;
  odd.sin_addr.s_addr = inet_addr("203.0.113.9");
  EXPECT_ERRNO(bind(fresh, reinterpret_cast<sockaddr*>(&odd), sizeof odd), EADDRNOTAVAIL);
  EXPECT_ERRNO(bind(fresh, reinterpret_cast<sockaddr*>(&odd), 4), EINVAL);
  EXPECT_ERRNO(bind(fresh, reinterpret_cast<sockaddr*>(kNowhere), sizeof odd), EFAULT);
  odd.sin_family = AF_UNIX;
  EXPECT_ERRNO(bind(fresh, reinterpret_cast<sockaddr*>(&odd), sizeof odd), EAFNOSUPPORT);
  sockaddr_in mine = self_address(0);
  EXPECT_EQ(bind(fresh, reinterpret_cast<sockaddr*>(&mine), sizeof mine), 0) << strerror(errno);
  socklen_t size = sizeof mine;
  EXPECT_EQ(getsockname(fresh, reinterpret_cast<sockaddr*>(&mine), &size), 0);
  EXPECT_EQ(mine.sin_addr.s_addr, self_address().sin_addr.s_addr);
  EXPECT_NE(mine.sin_port, 0) << "bind() to port 0 chooses one at once";
  EXPECT_ERRNO(bind(fresh, reinterpret_cast<sockaddr*>(&mine), sizeof mine), EINVAL);
}

TEST_P(Errors, ClosedAndForeignDescriptors) {
  connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  char byte = 0;
  int value;
  socklen_t size = sizeof value;
  for (int fd : {-1, 700, 1 << 28}) {
    EXPECT_ERRNO(read(fd, &byte, 1), EBADF);
    EXPECT_ERRNO(send(fd, &byte, 1, 0), EBADF);
    EXPECT_ERRNO(listen(fd, 1), EBADF);
    EXPECT_ERRNO(shutdown(fd, SHUT_RD), EBADF);
    EXPECT_ERRNO(close(fd), EBADF);
    EXPECT_ERRNO(fcntl(fd, F_GETFL), EBADF);
    EXPECT_ERRNO(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size), EBADF);
    EXPECT_ERRNO(dup(fd), EBADF);
  }
  EXPECT_ERRNO(send(ends[1], &byte, 1, 0), ENOTSOCK);
  EXPECT_ERRNO(getsockopt(ends[0], SOL_SOCKET, SO_TYPE, &value, &size), ENOTSOCK);
  EXPECT_ERRNO(socket(AF_INET, 77, 0), EINVAL);
  EXPECT_ERRNO(socket(12345, SOCK_STREAM, 0), EAFNOSUPPORT);
  EXPECT_ERRNO(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
}

}  // namespace
