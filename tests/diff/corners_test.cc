// Corners that random sequences (tests/diff/random) have found: what calls say about connections that have ended, empty transfers, and who
// is woken by what.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "tests/lib/asleep.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

#define EXPECT_ERRNO(call, expected)     \
  {                                      \
    errno = 0;                           \
    EXPECT_EQ((call), -1) << #call;      \
    EXPECT_EQ(errno, expected) << #call; \
  }

constexpr int kAddressBytes = sizeof(sockaddr_in);

const sockaddr* raw(const sockaddr_in& address) { return reinterpret_cast<const sockaddr*>(&address); }

int tcp_state(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_state : -1;
}

int take_error(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : -1;
}

int add(int set, int fd, uint32_t events, uint64_t data = 1) {
  epoll_event event{events, {.u64 = data}};
  return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
}

// How many events there are now, and the first one's bits.
std::pair<int, uint32_t> events_of(int set, int timeout_ms = 0) {
  epoll_event events[8]{};
  const int count = epoll_wait(set, events, 8, timeout_ms);
  return {count, count > 0 ? events[0].events : 0};
}

class Corners : public BothWays {
 protected:
  // Where nobody listens (any more).
  sockaddr_in dead_end() {
    sockaddr_in at{};
    peer.close(peer.listen(&at));
    return at;
  }
  void SetUp() override { set_ = epoll_create1(EPOLL_CLOEXEC); }
  // A connection that the peer has reset; nobody has been told yet.
  Connection reset_one() {
    Connection c = connect_pair();
    peer.reset(c.theirs);
    EXPECT_TRUE(wait_for(c.mine, POLLIN) & POLLERR);
    return c;
  }
  int set_ = -1;
};
ZPS_BOTH_WAYS(Corners);

TEST_P(Corners, AnEmptyVectorReachesNoSocket) {
  Connection c = connect_pair();
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  char byte = 0;
  iovec empty[2] = {{&byte, 0}, {&byte, 0}};
  EXPECT_EQ(writev(c.mine, empty, 2), 0);
  EXPECT_EQ(readv(c.mine, empty, 2), 0);
  EXPECT_ERRNO(send(c.mine, &byte, 0, MSG_NOSIGNAL), EPIPE);
  sockaddr_in at{};
  const int listener = listen_here(&at);
  EXPECT_EQ(read(listener, &byte, 0), 0);
  EXPECT_ERRNO(read(listener, &byte, 1), ENOTCONN);
}

TEST_P(Corners, RecvmmsgTellsOfTheErrorFirst) {
  Connection c = connect_pair();
  peer.send(c.theirs, "ab");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  peer.reset(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, POLLERR));
  char bytes[2];
  iovec parts[2] = {{bytes, 1}, {bytes + 1, 1}};
  mmsghdr messages[2]{};
  for (int i = 0; i < 2; i++) messages[i].msg_hdr = {nullptr, 0, &parts[i], 1, nullptr, 0, 0};
  EXPECT_ERRNO(recvmmsg(c.mine, messages, 2, 0, nullptr), ECONNRESET);
  EXPECT_EQ(recvmmsg(c.mine, messages, 2, 0, nullptr), 2) << "what had come before is still there";
}

TEST_P(Corners, AConnectionThatWasResetIsStillConnectedToConnect) {
  Connection c = reset_one();
  const sockaddr_in at = dead_end();
  if (GetParam() == Way::accepted) {
    EXPECT_ERRNO(connect(c.mine, raw(at), kAddressBytes), EISCONN);
    EXPECT_EQ(take_error(c.mine), ECONNRESET);
  }
  (void)take_error(c.mine);
  EXPECT_ERRNO(connect(c.mine, raw(at), kAddressBytes), EISCONN);
}

TEST_P(Corners, AFailureThatWasToldElsewhereAbortsTheNextConnect) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const sockaddr_in at = dead_end();
  EXPECT_ERRNO(connect(fd, raw(at), kAddressBytes), EINPROGRESS);
  ASSERT_TRUE(wait_for(fd, POLLOUT) & POLLERR);
  EXPECT_EQ(take_error(fd), ECONNREFUSED);
  EXPECT_ERRNO(connect(fd, raw(at), kAddressBytes), ECONNABORTED);
  EXPECT_ERRNO(connect(fd, raw(at), kAddressBytes), EINPROGRESS);
}

TEST_P(Corners, PortZeroRefuses) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in theirs = dead_end();
  theirs.sin_port = 0;
  const sockaddr_in own = self_address(0);
  EXPECT_ERRNO(connect(fd, raw(own), kAddressBytes), ECONNREFUSED);
  EXPECT_ERRNO(connect(fd, raw(theirs), kAddressBytes), ECONNREFUSED);
}

TEST_P(Corners, NothingIsLeftOfAConnectionInTimeWait) {
  Connection c = connect_pair();
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  peer.recv(c.theirs, 1);
  peer.shutdown(c.theirs, SHUT_WR);
  ASSERT_TRUE(wait_for(c.mine, POLLIN | POLLRDHUP) & POLLHUP);
  EXPECT_EQ(tcp_state(c.mine), TCP_CLOSE);
  sockaddr_in name{};
  socklen_t size = sizeof name;
  EXPECT_ERRNO(getpeername(c.mine, reinterpret_cast<sockaddr*>(&name), &size), ENOTCONN);
  EXPECT_ERRNO(shutdown(c.mine, SHUT_RD), ENOTCONN);
}

TEST_P(Corners, DataForWhoHasShutDownBothIsAnsweredByAReset) {
  Connection c = connect_pair();
  ASSERT_EQ(shutdown(c.mine, SHUT_RDWR), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  EXPECT_EQ(peer.send(c.theirs, "x").result, 1);
  EXPECT_NE(peer.call(PeerOp::poll, c.theirs, POLLERR, 30000).result & POLLERR, 0);
  EXPECT_TRUE(wait_for(c.mine, 0) & (POLLERR | POLLHUP));
}

TEST_P(Corners, ANameIsLookedAtBeforeItIsRefused) {
  Connection c = connect_pair();
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  EXPECT_ERRNO(bind(c.mine, reinterpret_cast<sockaddr*>(&six), sizeof six), EAFNOSUPPORT);
  const sockaddr_in own = self_address(0);
  EXPECT_ERRNO(bind(c.mine, raw(own), kAddressBytes), EINVAL);
}

TEST_P(Corners, AShortUserTimeoutEndsNoHealthyConnection) {
  Connection c = connect_pair();
  const int one_ms = 1;
  ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_USER_TIMEOUT, &one_ms, sizeof one_ms), 0);
  for (int i = 0; i < 20; i++) {
    ASSERT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), 1) << i << strerror(errno);
    ASSERT_EQ(peer.recv(c.theirs, 1).result, 1);
  }
}

TEST_P(Corners, WhatGivesAnEdge) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, EPOLLOUT | EPOLLPRI | EPOLLET), 0);
  EXPECT_EQ(events_of(set_), std::pair(1, uint32_t{EPOLLOUT}));
  EXPECT_EQ(events_of(set_).first, 0);
  peer.send(c.theirs, "x");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(events_of(set_), std::pair(1, uint32_t{EPOLLOUT})) << "sock_def_readable() wakes who asks for urgent data";
  const int bytes = 65536;
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
  EXPECT_EQ(events_of(set_), std::pair(1, uint32_t{EPOLLOUT})) << "sk_setsockopt() calls sk_write_space()";
  peer.reset(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, POLLERR) & POLLERR);
  EXPECT_EQ(events_of(set_).first, 1);
  EXPECT_EQ(events_of(set_).first, 0);
  EXPECT_ERRNO(shutdown(c.mine, SHUT_WR), ENOTCONN);
  EXPECT_EQ(events_of(set_).first, 1) << "inet_shutdown() wakes even when it fails";
}

TEST_P(Corners, TwoOfTheSameDataAreTwoEvents) {
  Connection c = connect_pair();
  const int fresh = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(add(set_, fresh, EPOLLIN, 7), 0);
  ASSERT_EQ(add(set_, c.mine, EPOLLOUT, 7), 0);
  const uint64_t end = now_ms() + 30000;  // the kernel's half comes with one wait in some
  while (events_of(set_).first != 2 && now_ms() < end) usleep(200);
  EXPECT_LT(now_ms(), end);
}

TEST_P(Corners, AOneShotThatFiredStaysSilentWhenItsSocketIsTheKernelsAgain) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const sockaddr_in at = dead_end();
  EXPECT_ERRNO(connect(fd, raw(at), kAddressBytes), EINPROGRESS);
  ASSERT_EQ(add(set_, fd, EPOLLIN | EPOLLONESHOT), 0);
  EXPECT_EQ(events_of(set_, 10000).first, 1);
  EXPECT_ERRNO(connect(fd, raw(at), kAddressBytes), ECONNREFUSED);
  EXPECT_EQ(events_of(set_).first, 0);
  epoll_event event{EPOLLIN | EPOLLONESHOT, {.u64 = 3}};
  ASSERT_EQ(epoll_ctl(set_, EPOLL_CTL_MOD, fd, &event), 0);
  EXPECT_EQ(events_of(set_, 10000), std::pair(1, uint32_t{EPOLLHUP}));
  EXPECT_EQ(events_of(set_).first, 0);
}

TEST_P(Corners, WhoWaitsForAListenerHearsOfItsEnd) {
  for (bool with_set : {false, true}) {
    sockaddr_in own = self_address(0);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(bind(listener, raw(own), kAddressBytes), 0);
    ASSERT_EQ(listen(listener, 4), 0);
    ASSERT_EQ(add(set_, listener, EPOLLIN), 0);
    const pid_t waiter = gettid();
    std::thread ender([listener, waiter] {
      until_asleep(waiter);
      EXPECT_EQ(shutdown(listener, SHUT_RD), 0);
    });
    if (with_set) EXPECT_NE(events_of(set_, 10000).second & EPOLLHUP, 0u);
    else EXPECT_NE(wait_for(listener, POLLIN) & POLLHUP, 0);
    ender.join();
    EXPECT_NE(events_of(set_, 10000).second & EPOLLHUP, 0u);
    close(listener);
  }
}

TEST_P(Corners, AnEmptySendDoesNotEndMore) {
  Connection c = connect_pair();
  ASSERT_EQ(send(c.mine, "held", 4, MSG_MORE), 4);
  ASSERT_EQ(send(c.mine, "", 0, 0), 0);
  EXPECT_EQ(peer.call(PeerOp::poll, c.theirs, POLLIN, 20).result, 0);
  ASSERT_EQ(send(c.mine, "!", 1, 0), 1);
  EXPECT_EQ(peer.recv_all(c.theirs, 5), "held!");
}

// Whoever is held back leaves when its program says so, and not with the timer after 200 ms that ends every cork: not once at least.
TEST_P(Corners, WhatEndsACorkEndsItAtOnce) {
  constexpr int kRounds = 8;
  struct Ender {
    int held_by, name, value;
  };
  for (const Ender& ender :
       {Ender{MSG_MORE, TCP_NODELAY, 1}, Ender{MSG_MORE, TCP_CORK, 0}, Ender{0, TCP_NODELAY, 1}, Ender{0, TCP_CORK, 0}}) {
    uint64_t fastest = UINT64_MAX;
    for (int round = 0; round < kRounds; round++) {
      Connection c = connect_pair();
      const int on = 1;
      if (ender.held_by == 0) {
        ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_CORK, &on, sizeof on), 0);
      }
      const uint64_t begin = now_ms();
      ASSERT_EQ(send(c.mine, "held", 4, ender.held_by), 4);
      ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, ender.name, &ender.value, sizeof ender.value), 0);
      EXPECT_EQ(peer.recv_all(c.theirs, 4), "held");
      fastest = std::min(fastest, now_ms() - begin);
      close(c.mine);
      peer.close(c.theirs);
    }
    EXPECT_LT(fastest, 120u) << "held by " << ender.held_by << ", option " << ender.name;
  }
}

TEST_P(Corners, SmallAnswers) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  int value = -1;
  EXPECT_EQ(ioctl(listener, SIOCATMARK, &value), 0);
  EXPECT_EQ(value, 0);
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  mapped.sin6_port = at.sin_port;
  mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
  memcpy(mapped.sin6_addr.s6_addr + 12, &at.sin_addr, 4);
  const int six = socket(AF_INET6, SOCK_STREAM, 0);
  ASSERT_EQ(connect(six, reinterpret_cast<sockaddr*>(&mapped), sizeof mapped), 0) << strerror(errno);
  value = 1;
  EXPECT_ERRNO(setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &value, sizeof value), EINVAL);
  const int bound = socket(AF_INET6, SOCK_STREAM, 0);
  mapped.sin6_port = 0;
  ASSERT_EQ(bind(bound, reinterpret_cast<sockaddr*>(&mapped), sizeof mapped), 0);
  EXPECT_ERRNO(connect(bound, raw(at), kAddressBytes), EINVAL);  // too short for it
}

}  // namespace
