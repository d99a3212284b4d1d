// SO_RCVLOWAT: from how many bytes on a socket is readable, and what a blocking read waits for.
// SPDX-License-Identifier: BSD-3-Clause

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

// On Linux who sleeps is not woken below the mark, even if he asks for less or has taken some already. What is there before, is there for
// sure.
void await_bytes(int fd, int count) {
  int there = 0;
  for (const uint64_t start = now_ms(); there < count && now_ms() - start < 20000;) {
    ASSERT_EQ(ioctl(fd, FIONREAD, &there), 0);
  }
  EXPECT_EQ(there, count);
}

class LowWater : public BothWays {};
ZPS_BOTH_WAYS(LowWater);

// A blocking read and readiness wait for so many bytes; a read that does not block takes what is there.
TEST_P(LowWater, OfReadsAndWaits) {
  Connection c = connect_pair();
  int low = 10, got = 0;
  socklen_t size = sizeof got;
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
  ASSERT_EQ(getsockopt(c.mine, SOL_SOCKET, SO_RCVLOWAT, &got, &size), 0);
  EXPECT_EQ(got, 10);
  const int set = epoll_create1(0);
  epoll_event event{EPOLLIN, {}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  peer.send(c.theirs, "12345");
  EXPECT_EQ(epoll_wait(set, &event, 1, 100), 0);
  EXPECT_EQ(wait_for(c.mine, POLLIN, 0), 0);
  await_bytes(c.mine, 5);
  char bytes[100];
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, MSG_DONTWAIT), 5);

  const int job = peer.start(PeerOp::send, c.theirs, 0, 0, 0, "0123456789abc");
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, 0), 13);
  peer.finish(job);
  peer.send(c.theirs, "more");
  await_bytes(c.mine, 4);
  EXPECT_EQ(recv(c.mine, bytes, 3, 0), 3) << "it never waits for more than it asks for";
  while (recv(c.mine, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
  }

  peer.send(c.theirs, "0123456789");
  EXPECT_EQ(epoll_wait(set, &event, 1, 30000), 1);
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, MSG_PEEK), 10);
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, 0), 10);
  peer.send(c.theirs, "12345");
  timeval limit{0, 50000};
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, MSG_PEEK), 5) << "the time is up";
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, 0), 5);
  peer.send(c.theirs, "12");
  await_bytes(c.mine, 2);
  EXPECT_EQ(epoll_wait(set, &event, 1, 50), 0);
  low = 0;
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
  EXPECT_EQ(epoll_wait(set, &event, 1, 30000), 1) << "a lower mark makes it readable";
  low = 100;
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(epoll_wait(set, &event, 1, 30000), 1) << "nothing more will come";
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, 0), 2);
  EXPECT_EQ(close(set), 0);
}

// Accepted sockets inherit it; a mark beyond what may be received is no trap.
TEST_P(LowWater, OfAListener) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  int low = 1 << 30;
  ASSERT_EQ(setsockopt(listener, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
  const int theirs = peer.socket();
  peer.connect(theirs, at);
  const int mine = accept(listener, nullptr, nullptr);
  ASSERT_GE(mine, 0);
  peer.send(theirs, "x");
  EXPECT_EQ(wait_for(mine, POLLIN, 100), 0);
  const int job = peer.start(PeerOp::send_pattern, theirs, 1, 20 << 20, 60000);
  EXPECT_EQ(wait_for(mine, POLLIN, 20000), POLLIN);
  int64_t seen = 0;
  std::vector<char> buffer(1 << 20);
  fcntl(mine, F_SETFL, O_NONBLOCK);
  while (seen < 1 + (20 << 20) && wait_for(mine, POLLIN, 20000) == POLLIN) {
    const ssize_t n = read(mine, buffer.data(), buffer.size());
    if (n > 0) seen += n;
    if (seen > 1 << 20) {
      low = 1;  // the tail is less
      ASSERT_EQ(setsockopt(mine, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
    }
  }
  EXPECT_EQ(seen, 1 + (20 << 20));
  EXPECT_EQ(peer.finish(job).result, 20 << 20);
  EXPECT_EQ(close(mine), 0);
  EXPECT_EQ(close(listener), 0);
}

// tcp_set_rcvlowat() calls sk_data_ready() if as much waits, or if a FIN has come: an edge, whatever has changed. The mark of a connection
// that a reset has ended tells nothing.
TEST_P(LowWater, SettingItIsAnEdgeWhereDataOrAFinHasCome) {
  const int low = 1;
  const auto edges_of = [&](const Connection& c, uint32_t events) {
    const int set = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{events | EPOLLET, {}};
    EXPECT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
    while (epoll_wait(set, &event, 1, 0) == 1) {
    }
    EXPECT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
    const int edges = epoll_wait(set, &event, 1, 0);
    EXPECT_EQ(close(set), 0);
    return edges;
  };
  Connection c = connect_pair();
  EXPECT_EQ(edges_of(c, EPOLLIN | EPOLLOUT), 0) << "nothing has come";
  peer.send(c.theirs, "x");
  await_bytes(c.mine, 1);
  EXPECT_EQ(edges_of(c, EPOLLIN | EPOLLOUT), 1);
  EXPECT_EQ(edges_of(c, EPOLLPRI | EPOLLOUT), 1) << "sock_def_readable() wakes these too";
  EXPECT_EQ(edges_of(c, EPOLLOUT | EPOLLRDHUP), 0) << "but not those";
  char byte;
  EXPECT_EQ(recv(c.mine, &byte, 1, 0), 1);
  EXPECT_EQ(shutdown(c.mine, SHUT_RD), 0);
  EXPECT_EQ(edges_of(c, EPOLLIN | EPOLLOUT), 0) << "its own shutdown is no FIN";
  Connection ended = connect_pair();
  peer.shutdown(ended.theirs, SHUT_WR);
  EXPECT_EQ(recv(ended.mine, &byte, 1, 0), 0);
  EXPECT_EQ(edges_of(ended, EPOLLIN | EPOLLOUT), 1);
  Connection reset = connect_pair();
  peer.reset(reset.theirs);
  EXPECT_EQ(wait_for(reset.mine, POLLIN, 10000) & POLLERR, POLLERR);
  EXPECT_EQ(edges_of(reset, EPOLLIN | EPOLLOUT), 0) << "dead";
}

}  // namespace
