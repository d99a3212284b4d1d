// Waiting: SO_RCVTIMEO and SO_SNDTIMEO, timeouts of poll, select and epoll, in the right unit and never early.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr uint64_t kWait = 150;
// A machine that is busy wakes late; it never wakes early (one millisecond for the clock's grain).
template <typename Wait>
void expect_to_take_the_time(Wait wait) {
  expect_within(kWait + 1500, [&] {
    const uint64_t start = now_ms();
    wait();
    EXPECT_GE(now_ms() - start + 1, kWait);
  });
}

class Timeouts : public BothWays {
 protected:
  static void limit(int fd, int option) {
    timeval value{0, kWait * 1000};
    ASSERT_EQ(setsockopt(fd, SOL_SOCKET, option, &value, sizeof value), 0);
    timeval got{};
    socklen_t size = sizeof got;
    ASSERT_EQ(getsockopt(fd, SOL_SOCKET, option, &got, &size), 0);
    EXPECT_EQ(size, sizeof got);
    EXPECT_EQ(got.tv_sec, 0);
    EXPECT_GE(got.tv_usec, value.tv_usec);
    EXPECT_LT(got.tv_usec, value.tv_usec + 10000);
  }
};
ZPS_BOTH_WAYS(Timeouts);

TEST_P(Timeouts, OfReading) {
  Connection c = connect_pair();
  limit(c.mine, SO_RCVTIMEO);
  expect_to_take_the_time([&] {
    char byte;
    EXPECT_EQ(read(c.mine, &byte, 1), -1);
    EXPECT_EQ(errno, EAGAIN);
  });
  expect_within(kWait + 1500, [&] {
    peer.send(c.theirs, "ab");
    ASSERT_TRUE(wait_for(c.mine, POLLIN));
    const uint64_t start = now_ms();
    char three[3];
    EXPECT_EQ(recv(c.mine, three, 3, MSG_WAITALL), 2) << "what came within the time";
    EXPECT_GE(now_ms() - start + 1, kWait);
  });
}

// The last close() waits, whatever the mode of the descriptor.
TEST_P(Timeouts, OfLingering) {
  for (const bool nonblocking : {true, false}) {
    expect_within(3000, [&] {
      Connection c = connect_pair();
      ASSERT_EQ(fcntl(c.mine, F_SETFL, O_NONBLOCK), 0);
      const std::vector<char> much(100000, 'l');
      while (send(c.mine, much.data(), much.size(), MSG_NOSIGNAL) > 0) {
      }
      ASSERT_EQ(errno, EAGAIN);
      ASSERT_EQ(fcntl(c.mine, F_SETFL, nonblocking ? O_NONBLOCK : 0), 0);
      linger one{1, 1};
      ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_LINGER, &one, sizeof one), 0);
      expect_within(900, [&] { EXPECT_EQ(close(dup(c.mine)), 0) << "it is not the last"; });
      const uint64_t start = now_ms();
      EXPECT_EQ(close(c.mine), 0);
      EXPECT_GE(now_ms() - start + 1, 1000u);
      peer.close(c.theirs);
    });
  }
}

// shutdown() sends what a cork holds, which would hold it for 200 ms.
TEST_P(Timeouts, ACorkDoesNotOutlastTheEnd) {
  expect_within(150, [&] {
    Connection c = connect_pair();
    const int on = 1;
    ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_CORK, &on, sizeof on), 0);
    ASSERT_EQ(write(c.mine, "held", 4), 4);
    ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
    EXPECT_EQ(peer.recv_all(c.theirs, 10), "held");
  });
}

TEST_P(Timeouts, LingeringEndsWithTheDelivery) {
  Connection c = connect_pair();
  const int set = epoll_create1(0);
  epoll_event event{EPOLLOUT | EPOLLIN | EPOLLRDHUP, {}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  ASSERT_EQ(fcntl(c.mine, F_SETFL, O_NONBLOCK), 0);
  const std::vector<char> much(100000, 'l');
  int64_t written = 0;
  for (ssize_t n; (n = send(c.mine, much.data(), much.size(), MSG_NOSIGNAL)) > 0;) written += n;
  linger wait{1, 60};
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_LINGER, &wait, sizeof wait), 0);
  const int job = peer.start(PeerOp::drain, c.theirs);
  const uint64_t start = now_ms();
  EXPECT_EQ(close(c.mine), 0);
  EXPECT_LT(now_ms() - start, 30000u);
  EXPECT_EQ(peer.finish(job).result, written);
  EXPECT_EQ(epoll_wait(set, &event, 1, 0), 0) << "a closed descriptor reports nothing";
  EXPECT_EQ(close(set), 0);
}

TEST_P(Timeouts, OfWriting) {
  Connection c = connect_pair();
  limit(c.mine, SO_SNDTIMEO);
  std::vector<char> block(1 << 20);
  int short_counts = 0;
  expect_within(kWait + 1500, [&] {
    uint64_t start;
    for (;;) {
      start = now_ms();
      const ssize_t count = write(c.mine, block.data(), block.size());
      if (count < 0) break;
      // What fitted before the time was up is told; a late acknowledgement may make room a few times more.
      if (count < static_cast<ssize_t>(block.size())) {
        ASSERT_LT(++short_counts, 20);
      }
    }
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_GE(now_ms() - start + 1, kWait);
  });
}

TEST_P(Timeouts, OfAccepting) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  limit(listener, SO_RCVTIMEO);
  expect_to_take_the_time([&] {
    EXPECT_EQ(accept(listener, nullptr, nullptr), -1);
    EXPECT_EQ(errno, EAGAIN);
  });
}

TEST_P(Timeouts, OfPoll) {
  Connection c = connect_pair();
  pollfd one{c.mine, POLLIN, 0};
  expect_to_take_the_time([&] { EXPECT_EQ(poll(&one, 1, kWait), 0); });
  const timespec limit{0, kWait * 1000000};
  expect_to_take_the_time([&] { EXPECT_EQ(ppoll(&one, 1, &limit, nullptr), 0); });
  expect_within(500, [&] { EXPECT_EQ(poll(&one, 1, 0), 0); });
}

TEST_P(Timeouts, OfSelect) {
  Connection c = connect_pair();
  fd_set set;
  timeval limit;
  expect_to_take_the_time([&] {
    FD_ZERO(&set);
    FD_SET(c.mine, &set);
    limit = {0, kWait * 1000};
    EXPECT_EQ(select(c.mine + 1, &set, nullptr, nullptr, &limit), 0);
  });
  EXPECT_FALSE(FD_ISSET(c.mine, &set)) << "the sets are cleared";
  EXPECT_EQ(limit.tv_sec, 0);
  EXPECT_EQ(limit.tv_usec, 0) << "Linux leaves what is left of the time";
  FD_SET(c.mine, &set);
  limit = {30, 0};
  peer.send(c.theirs, "x");
  EXPECT_EQ(select(c.mine + 1, &set, nullptr, nullptr, &limit), 1);
  EXPECT_TRUE(limit.tv_sec < 30 && limit.tv_sec >= 15) << limit.tv_sec;
}

TEST_P(Timeouts, OfEpoll) {
  Connection c = connect_pair();
  int set = epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 1}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  expect_to_take_the_time([&] { EXPECT_EQ(epoll_wait(set, &event, 1, kWait), 0); });
  expect_within(500, [&] { EXPECT_EQ(epoll_wait(set, &event, 1, 0), 0); });
  timespec limit{0, kWait * 1000000};
  expect_to_take_the_time([&] { EXPECT_EQ(epoll_pwait2(set, &event, 1, &limit, nullptr), 0); });
  limit = {0, 1};
  expect_within(500, [&] { EXPECT_EQ(epoll_pwait2(set, &event, 1, &limit, nullptr), 0); });
}

TEST_P(Timeouts, WrongValues) {
  Connection c = connect_pair();
  timeval bad{0, 2000000};
  EXPECT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &bad, sizeof bad), -1);
  EXPECT_EQ(errno, EDOM);
  EXPECT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &bad, 3), -1);
  EXPECT_EQ(errno, EINVAL);
  timeval negative{-1, 0};
  EXPECT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &negative, sizeof negative), 0);
  pollfd one{c.mine, POLLIN, 0};
  timespec wrong{0, -1};
  EXPECT_EQ(ppoll(&one, 1, &wrong, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
}

}  // namespace
