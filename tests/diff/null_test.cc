// NULL, and addresses just above it, are no buffers: for files, pipes, the kernel's sockets and the stack's alike.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Null : public BothWays {};
ZPS_BOTH_WAYS(Null);

// Nothing that a compiler could know.
char* at(uintptr_t address) {
  volatile uintptr_t hidden = address;
  return reinterpret_cast<char*>(hidden);
}

#define EXPECT_EFAULT(call)          \
  {                                  \
    errno = 0;                       \
    EXPECT_EQ((call), -1) << #call;  \
    EXPECT_EQ(errno, EFAULT) << #call; \
  }

void expect_no_buffers(int out, int in) {
  for (const uintptr_t address : {0, 16, 4000}) {
    SCOPED_TRACE(address);
    EXPECT_EFAULT(write(out, at(address), 16));
    EXPECT_EFAULT(read(in, at(address), 4));
    iovec parts[] = {{at(address), 16}, {at(address), 0}};
    EXPECT_EFAULT(writev(out, parts, 2));
    EXPECT_EFAULT(readv(in, parts, 2));
  }
  EXPECT_EQ(write(out, at(0), 0), 0);
  EXPECT_EFAULT(readv(in, reinterpret_cast<iovec*>(at(0)), 1));
}

TEST_P(Null, InFilesAndPipes) {
  const int file = memfd_create("null", 0);
  ASSERT_EQ(write(file, "data", 4), 4);
  ASSERT_EQ(lseek(file, 0, SEEK_SET), 0);
  expect_no_buffers(file, file);
  struct stat status;
  ASSERT_EQ(fstat(file, &status), 0);
  EXPECT_EQ(status.st_size, 4) << "nothing was written";
  close(file);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "data", 4), 4);
  expect_no_buffers(ends[1], ends[0]);
  close(ends[0]);
  close(ends[1]);
}

void expect_no_messages(int out) {
  for (const uintptr_t address : {0, 16}) {
    EXPECT_EFAULT(send(out, at(address), 16, 0));
    iovec part{at(address), 16};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    EXPECT_EFAULT(sendmsg(out, &message, 0));
    EXPECT_EFAULT(sendmsg(out, reinterpret_cast<msghdr*>(at(address)), 0));
    EXPECT_EFAULT(setsockopt(out, SOL_SOCKET, SO_KEEPALIVE, at(address), 4));
  }
  int value = -1;
  socklen_t size = sizeof value;
  ASSERT_EQ(getsockopt(out, SOL_SOCKET, SO_KEEPALIVE, &value, &size), 0);
  EXPECT_EQ(value, 0) << "nothing was set";
  EXPECT_EFAULT(getsockopt(out, SOL_SOCKET, SO_KEEPALIVE, &value, reinterpret_cast<socklen_t*>(at(0))));
}

TEST_P(Null, InSockets) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  expect_no_messages(ends[0]);
  ASSERT_EQ(write(ends[1], "data", 4), 4);
  expect_no_buffers(ends[0], ends[0]);
  close(ends[0]);
  close(ends[1]);
  const int fresh = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EFAULT(setsockopt(fresh, SOL_SOCKET, SO_KEEPALIVE, at(0), 4));
  EXPECT_EFAULT(bind(fresh, reinterpret_cast<sockaddr*>(at(0)), sizeof(sockaddr)));
  EXPECT_EFAULT(connect(fresh, reinterpret_cast<sockaddr*>(at(16)), sizeof(sockaddr)));
  close(fresh);
  Connection c = connect_pair();
  expect_no_messages(c.mine);
  peer.send(c.theirs, "data");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  expect_no_buffers(c.mine, c.mine);
  EXPECT_EQ(read_all(c.mine, 4), "data") << "nothing was lost";
}

TEST_P(Null, WhereItMeansNone) {
  const int set = epoll_create1(0);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  epoll_event event{EPOLLIN, {.u64 = 1}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event), 0);
  EXPECT_EFAULT(epoll_ctl(set, EPOLL_CTL_MOD, ends[0], reinterpret_cast<epoll_event*>(at(16))));
  EXPECT_EQ(epoll_ctl(set, EPOLL_CTL_DEL, ends[0], reinterpret_cast<epoll_event*>(at(0))), 0);
  EXPECT_EQ(fcntl(ends[0], F_DUPFD, 16) & ~15, 16) << "a number";
  EXPECT_EQ(poll(reinterpret_cast<pollfd*>(at(0)), 0, 0), 0);
  EXPECT_EFAULT(poll(reinterpret_cast<pollfd*>(at(0)), 1, 0));
  ASSERT_EQ(write(ends[1], "data", 4), 4);
  const int file = memfd_create("none", 0);
  EXPECT_EQ(splice(ends[0], reinterpret_cast<off_t*>(at(0)), file, nullptr, 4, SPLICE_F_NONBLOCK), 4);
  for (const int fd : {set, ends[0], ends[1], file}) close(fd);
}

}  // namespace
