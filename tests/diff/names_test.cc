// Descriptors: duplicates, closing order, flags, close_range, and what fstat and fcntl say of a socket.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Names : public BothWays {};
ZPS_BOTH_WAYS(Names);

TEST_P(Names, DuplicatesShareTheConnection) {
  Connection c = connect_pair();
  int second = dup(c.mine);
  int third = fcntl(c.mine, F_DUPFD, 200);
  EXPECT_GE(third, 200);
  peer.send(c.theirs, "abc");
  EXPECT_EQ(read_all(c.mine, 1), "a");
  EXPECT_EQ(read_all(second, 1), "b");
  EXPECT_EQ(read_all(third, 1), "c");
  ASSERT_EQ(close(c.mine), 0);
  ASSERT_EQ(write(second, "2", 1), 1);
  ASSERT_EQ(close(second), 0);
  ASSERT_EQ(write(third, "3", 1), 1);
  EXPECT_EQ(peer.recv_all(c.theirs, 2), "23");
  Reply open = peer.recv(c.theirs, 1, MSG_DONTWAIT);
  EXPECT_EQ(open.error, EAGAIN) << "open as long as one duplicate is";
  ASSERT_EQ(close(third), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  char byte;
  EXPECT_EQ(read(third, &byte, 1), -1);
  EXPECT_EQ(errno, EBADF);
}

TEST_P(Names, DuplicatesShareStatusFlagsButNotCloexec) {
  Connection c = connect_pair();
  int second = fcntl(c.mine, F_DUPFD_CLOEXEC, 0);
  EXPECT_EQ(fcntl(second, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(c.mine, F_GETFD), 0);
  ASSERT_EQ(fcntl(second, F_SETFL, O_NONBLOCK), 0);
  EXPECT_TRUE(fcntl(c.mine, F_GETFL) & O_NONBLOCK);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  int off = 0;
  ASSERT_EQ(ioctl(c.mine, FIONBIO, &off), 0);
  EXPECT_FALSE(fcntl(second, F_GETFL) & O_NONBLOCK);
  EXPECT_EQ(fcntl(c.mine, F_GETFL) & O_ACCMODE, O_RDWR);
  ASSERT_EQ(ioctl(c.mine, FIOCLEX), 0);
  EXPECT_EQ(fcntl(c.mine, F_GETFD), FD_CLOEXEC);
  ASSERT_EQ(ioctl(c.mine, FIONCLEX), 0);
  EXPECT_EQ(fcntl(c.mine, F_GETFD), 0);
}

TEST_P(Names, Dup2ReplacesWhatWasThere) {
  Connection a = connect_pair(), b = connect_pair();
  ASSERT_EQ(dup2(a.mine, b.mine), b.mine);
  EXPECT_EQ(peer.recv(b.theirs, 1).result, 0) << "the replaced connection is closed";
  ASSERT_EQ(write(b.mine, "via b", 5), 5);
  EXPECT_EQ(peer.recv_all(a.theirs, 5), "via b");
  EXPECT_EQ(dup2(a.mine, a.mine), a.mine);
  EXPECT_EQ(dup3(a.mine, a.mine, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  ASSERT_EQ(dup3(a.mine, 250, O_CLOEXEC), 250);
  EXPECT_EQ(fcntl(250, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(dup2(a.mine, -1), -1);
  EXPECT_EQ(errno, EBADF);
}

// A pipe over a socket's number, and a socket over a pipe's.
TEST_P(Names, Dup2BetweenKernelAndStack) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(dup2(ends[1], 300), 300);
  ASSERT_EQ(write(300, "pipe", 4), 4);
  EXPECT_EQ(read_all(ends[0], 4), "pipe");
  ASSERT_EQ(dup2(c.mine, 300), 300);
  ASSERT_EQ(write(300, "sock", 4), 4);
  EXPECT_EQ(peer.recv_all(c.theirs, 4), "sock");
  ASSERT_EQ(dup2(ends[1], c.mine), c.mine);
  ASSERT_EQ(write(c.mine, "pipe", 4), 4);
  EXPECT_EQ(read_all(ends[0], 4), "pipe");
  ASSERT_EQ(close(300), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
}

TEST_P(Names, LowestNumberIsReused) {
  Connection c = connect_pair();
  int first = c.mine;
  ASSERT_EQ(close(first), 0);
  int next = socket(AF_INET, SOCK_STREAM, 0);
  int lowest = next < first ? next : first;
  EXPECT_EQ(next, lowest);
  char byte;
  EXPECT_EQ(read(next, &byte, 1), -1);
  EXPECT_EQ(errno, ENOTCONN) << "a new socket, not the old one";
}

TEST_P(Names, CloseRangeClosesSockets) {
  Connection a = connect_pair(), b = connect_pair();
  int keep = fcntl(a.mine, F_DUPFD, 400);
  ASSERT_EQ(close_range(3, 399, 0), 0);
  EXPECT_EQ(peer.recv(b.theirs, 1).result, 0);
  ASSERT_EQ(write(keep, "kept", 4), 4);
  EXPECT_EQ(peer.recv_all(a.theirs, 4), "kept");
  EXPECT_EQ(close(a.mine), -1);
  EXPECT_EQ(errno, EBADF);
  ASSERT_EQ(close_range(400, 400, CLOSE_RANGE_CLOEXEC), 0);
  EXPECT_EQ(fcntl(400, F_GETFD), FD_CLOEXEC);
}

// What daemons do: close everything, and go on working.
TEST_P(Names, EverythingClosedAndOnwards) {
  connect_pair();
  ASSERT_EQ(close_range(3, 899, 0), 0);
  ASSERT_EQ(close_range(901, ~0u, 0), 0);
  Connection c = connect_pair();
  peer.send(c.theirs, "works");
  EXPECT_EQ(read_all(c.mine, 5), "works");
  for (int fd = 3; fd < 900; fd++) close(fd);
  for (int fd = 901; fd < 5000; fd++) close(fd);
  c = connect_pair();
  peer.send(c.theirs, "still");
  EXPECT_EQ(read_all(c.mine, 5), "still");
}

TEST_P(Names, LooksLikeASocket) {
  Connection c = connect_pair();
  struct stat about {};
  ASSERT_EQ(fstat(c.mine, &about), 0);
  EXPECT_TRUE(S_ISSOCK(about.st_mode));
  char path[64], target[64] = {};
  snprintf(path, sizeof path, "/proc/self/fd/%d", c.mine);
  ASSERT_GT(readlink(path, target, sizeof target - 1), 0);
  EXPECT_EQ(std::string(target).substr(0, 8), "socket:[");
  EXPECT_EQ(isatty(c.mine), 0);
  EXPECT_EQ(ftruncate(c.mine, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(fsync(c.mine), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_P(Names, NamesOfBothEnds) {
  Connection c = connect_pair();
  sockaddr_in name{};
  socklen_t size = sizeof name;
  ASSERT_EQ(getsockname(c.mine, reinterpret_cast<sockaddr*>(&name), &size), 0);
  EXPECT_EQ(size, sizeof name);
  EXPECT_EQ(to_text(name), to_text(peer.call(PeerOp::peer_name, c.theirs).name));
  ASSERT_EQ(getpeername(c.mine, reinterpret_cast<sockaddr*>(&name), &size), 0);
  EXPECT_EQ(to_text(name), to_text(peer.call(PeerOp::local_name, c.theirs).name));
  size = 2;
  memset(&name, 0, sizeof name);
  EXPECT_EQ(getpeername(c.mine, reinterpret_cast<sockaddr*>(&name), &size), 0);
  EXPECT_EQ(size, sizeof name);
  EXPECT_EQ(name.sin_port, 0) << "cut to the buffer";
  EXPECT_EQ(getsockname(-1, reinterpret_cast<sockaddr*>(&name), &size), -1);
  EXPECT_EQ(errno, EBADF);
  peer.close(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  size = sizeof name;
  EXPECT_EQ(getpeername(c.mine, reinterpret_cast<sockaddr*>(&name), &size), 0) << "half closed is still connected";
}

}  // namespace
