// The states of a socket: sock->state (SS_UNCONNECTED ...) and sk_state (TCP_CLOSE ...) of Linux, and what shutdown() leaves behind, as
// connect(), listen(), bind(), shutdown() and options tell of them one after the other.
// SPDX-License-Identifier: BSD-3-Clause

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

#define EXPECT_ERRNO(call, expected)                              \
  {                                                               \
    errno = 0;                                                    \
    EXPECT_EQ((call), -1) << #call;                               \
    EXPECT_EQ(errno, expected) << #call << ": " << strerror(errno); \
  }

constexpr short kAll = POLLIN | POLLOUT | POLLRDHUP;
constexpr int kHows[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};

int make(int flags = SOCK_NONBLOCK) { return socket(AF_INET, SOCK_STREAM | flags, 0); }
int go(int fd, const sockaddr_in& to) { return connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to); }
int bind_to(int fd, const sockaddr_in& to) { return bind(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to); }
int disconnect(int fd) {
  sockaddr_in none{};
  none.sin_family = AF_UNSPEC;
  return go(fd, none);
}
int take_error(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : -1;
}
int tcp_state(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_state : -1;
}
int send_one(int fd) { return static_cast<int>(send(fd, "x", 1, MSG_NOSIGNAL)); }
int read_one(int fd) {
  char byte;
  return static_cast<int>(recv(fd, &byte, 1, MSG_DONTWAIT));
}
sockaddr_in name_of(int fd) {
  sockaddr_in name{};
  socklen_t size = sizeof name;
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
  return name;
}
int peer_name(int fd) {
  sockaddr_in name{};
  socklen_t size = sizeof name;
  return getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size);
}

class States : public DiffTest {
 protected:
  // Where nobody listens (any more), and where nobody is.
  sockaddr_in dead_end() {
    sockaddr_in at{};
    peer.close(peer.listen(&at));
    return at;
  }
  static sockaddr_in silence() {
    sockaddr_in nobody = peer_address(htons(9));
    nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~0xffu) | 79);
    return nobody;
  }
  // A non-blocking attempt that has been refused, of which nobody has been told.
  int refused(int fd) {
    EXPECT_ERRNO(go(fd, dead_end()), EINPROGRESS);
    EXPECT_EQ(wait_for(fd, kAll), kAll | POLLERR | POLLHUP);
    return fd;
  }
  // It is as good as new.
  void expect_connects(int fd) {
    sockaddr_in at{};
    const int listener = peer.listen(&at);
    if (go(fd, at) != 0) {
      ASSERT_EQ(errno, EINPROGRESS);
      ASSERT_EQ(wait_for(fd, POLLOUT), POLLOUT);
      ASSERT_EQ(go(fd, at), 0);
    }
    const int theirs = static_cast<int>(peer.accept(listener).result);
    peer.send(theirs, "a");
    EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
    EXPECT_EQ(read_one(fd), 1);
    EXPECT_EQ(send_one(fd), 1);
    EXPECT_EQ(peer.recv_all(theirs, 1), "x");
    peer.close(theirs);
    peer.close(listener);
  }
  // Blocks the writing side: what is written now stays.
  static void fill(int fd) {
    static char zeros[65536];
    const uint64_t start = now_ms();
    for (uint64_t last = start; now_ms() - last < 100 && now_ms() - start < 5000;) {
      if (send(fd, zeros, sizeof zeros, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) last = now_ms();
    }
  }
};

// inet_shutdown(): SS_CONNECTING with TCP_CLOSE becomes SS_DISCONNECTING, which only connect() to no address ends.
TEST_F(States, ShutdownOfARefusedAttemptEndsTheSocket) {
  for (const int how : kHows) {
    const int fd = refused(make());
    EXPECT_ERRNO(shutdown(fd, how), ENOTCONN);
    EXPECT_ERRNO(go(fd, dead_end()), EINVAL);
    EXPECT_EQ(take_error(fd), ECONNREFUSED);
    EXPECT_ERRNO(go(fd, dead_end()), EINVAL);
    EXPECT_ERRNO(listen(fd, 1), EINVAL);
    EXPECT_ERRNO(shutdown(fd, how), ENOTCONN);
    EXPECT_EQ(wait_for(fd, kAll, 0), kAll | POLLHUP);
    EXPECT_EQ(read_one(fd), 0);
    EXPECT_ERRNO(send_one(fd), EPIPE);
    EXPECT_EQ(disconnect(fd), 0);
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLHUP);
    expect_connects(fd);
    close(fd);
  }
}

TEST_F(States, ATakenRefusalAbortsOnce) {
  for (const bool shut : {false, true}) {
    const int fd = refused(make());
    EXPECT_EQ(take_error(fd), ECONNREFUSED);
    EXPECT_ERRNO(listen(fd, 1), EINVAL);
    EXPECT_ERRNO(go(fd, dead_end()), ECONNABORTED);
    if (shut) {
      EXPECT_ERRNO(shutdown(fd, SHUT_RD), ENOTCONN);
      EXPECT_EQ(wait_for(fd, kAll, 0), kAll | POLLHUP);
      EXPECT_EQ(disconnect(fd), 0);
    }
    expect_connects(fd);
    close(fd);
  }
}

// Whatever becomes of it, the first answer is EINPROGRESS.
TEST_F(States, ANonBlockingConnectIsUnderWayFirst) {
  sockaddr_in own{};
  const int listener = listen_here(&own);
  own = self_address(own.sin_port);
  const sockaddr_in nowhere = self_address(htons(1));
  for (int i = 0; i < 5; i++) {
    const int fd = make();
    EXPECT_ERRNO(go(fd, own), EINPROGRESS);
    EXPECT_EQ(wait_for(fd, POLLOUT), POLLOUT);
    EXPECT_EQ(go(fd, own), 0);
    EXPECT_ERRNO(go(fd, own), EISCONN);
    close(fd);
    const int other = make();
    EXPECT_ERRNO(go(other, nowhere), EINPROGRESS);
    EXPECT_EQ(wait_for(other, kAll), kAll | POLLERR | POLLHUP);
    EXPECT_ERRNO(go(other, nowhere), ECONNREFUSED);
    EXPECT_ERRNO(go(other, nowhere), EINPROGRESS);
    close(other);
  }
  close(listener);
}

// sk_shutdown outlives ENOTCONN, and the next attempt begins with it; the attempt's end clears it (tcp_disconnect()).
TEST_F(States, ShutdownBeforeAnAttemptStays) {
  const struct {
    int how;
    short fresh, trying;
  } cases[] = {{SHUT_RD, kAll | POLLHUP, POLLIN | POLLRDHUP},
               {SHUT_WR, POLLOUT | POLLHUP, 0},
               {SHUT_RDWR, kAll | POLLHUP, POLLIN | POLLRDHUP | POLLHUP}};
  for (const auto& one : cases) {
    const int fd = make();
    EXPECT_ERRNO(shutdown(fd, one.how), ENOTCONN);
    EXPECT_EQ(wait_for(fd, kAll, 0), one.fresh);
    EXPECT_ERRNO(go(fd, silence()), EINPROGRESS);
    EXPECT_EQ(wait_for(fd, kAll, 0), one.trying) << one.how;
    EXPECT_ERRNO(send_one(fd), EAGAIN);
    EXPECT_EQ(shutdown(fd, SHUT_RD), 0);
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLERR | POLLHUP);
    EXPECT_ERRNO(go(fd, silence()), EINPROGRESS);
    EXPECT_EQ(wait_for(fd, kAll, 0), 0);
    EXPECT_EQ(disconnect(fd), 0);
    EXPECT_EQ(take_error(fd), ECONNRESET);
    expect_connects(fd);
    close(fd);
  }
}

TEST_F(States, ShutdownBeforeAConnectionStays) {
  for (const int how : kHows) {
    SCOPED_TRACE(how);
    sockaddr_in at{};
    const int listener = peer.listen(&at);
    const int fd = make(0);
    EXPECT_ERRNO(shutdown(fd, how), ENOTCONN);
    ASSERT_EQ(go(fd, at), 0) << strerror(errno);
    const int theirs = static_cast<int>(peer.accept(listener).result);
    peer.send(theirs, "abc");
    EXPECT_TRUE(wait_for(fd, POLLIN) & POLLIN);
    for (int turn = 0; turn < 1000 && recv(fd, nullptr, 0, MSG_TRUNC | MSG_PEEK | MSG_DONTWAIT) < 0; turn++) usleep(1000);
    const short reads = how == SHUT_WR ? 0 : POLLRDHUP, hangs = how == SHUT_RDWR ? POLLHUP : 0;
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLIN | POLLOUT | reads | hangs);
    EXPECT_EQ(peer_name(fd), 0);
    EXPECT_EQ(tcp_state(fd), TCP_ESTABLISHED) << "no FIN goes out by itself";
    if (how == SHUT_RD) {
      EXPECT_EQ(send_one(fd), 1);
    } else {
      EXPECT_ERRNO(send_one(fd), EPIPE);
    }
    EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
    EXPECT_EQ(peer.recv_all(theirs, 10), how == SHUT_RD ? "x" : "") << "now it did";
    close(fd);
    peer.close(theirs);
  }
}

// The end of an attempt by shutdown() leaves a socket that may do anything.
TEST_F(States, AnEndedAttemptMayListen) {
  const int fd = make();
  EXPECT_ERRNO(go(fd, silence()), EINPROGRESS);
  EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
  EXPECT_ERRNO(shutdown(fd, SHUT_WR), ENOTCONN);
  EXPECT_EQ(listen(fd, 8), 0);
  EXPECT_EQ(take_error(fd), ECONNRESET) << "the listener has the attempt's error";
  EXPECT_EQ(take_error(fd), 0);
  const int client = peer.socket();
  const int job = peer.start_connect(client, self_address(name_of(fd).sin_port));
  EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
  const int got = accept(fd, nullptr, nullptr);
  EXPECT_GE(got, 0);
  EXPECT_EQ(peer.finish(job).result, 0);
  close(got);
  close(fd);
}

TEST_F(States, AListenThatFailsForgetsNothing) {
  for (const int how : kHows) {
    const int chooser = make(), fd = make(), client = make(0);
    sockaddr_in any{AF_INET, 0, {INADDR_ANY}, {}};
    ASSERT_EQ(bind_to(chooser, any), 0);
    any.sin_port = name_of(chooser).sin_port;
    close(chooser);
    ASSERT_EQ(bind_to(fd, any), 0) << "a port that the program has asked for stays its own";
    ASSERT_EQ(listen(fd, 1), 0);
    ASSERT_EQ(go(client, self_address(any.sin_port)), 0);
    ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
    const int accepted = accept(fd, nullptr, nullptr);
    ASSERT_GE(accepted, 0);
    ASSERT_EQ(disconnect(fd), 0);
    EXPECT_ERRNO(shutdown(fd, how), ENOTCONN);
    const short before = wait_for(fd, kAll, 0);
    EXPECT_ERRNO(listen(fd, 1), EADDRINUSE);
    EXPECT_EQ(wait_for(fd, kAll, 0), before);
    EXPECT_ERRNO(send_one(fd), EPIPE);
    close(accepted);
    close(client);
    close(fd);
  }
}

// sk_err is no matter of the state: it waits until somebody is told.
TEST_F(States, AnErrorOutlivesAListener) {
  const auto listening = [&] {
    const int fd = make();
    EXPECT_ERRNO(go(fd, silence()), EINPROGRESS);
    EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
    EXPECT_EQ(listen(fd, 8), 0);
    return fd;
  };
  const int sender = listening();
  EXPECT_ERRNO(read_one(sender), ENOTCONN);
  EXPECT_ERRNO(send_one(sender), ECONNRESET);
  EXPECT_ERRNO(send_one(sender), EPIPE);
  EXPECT_EQ(shutdown(sender, SHUT_RD), 0);
  EXPECT_EQ(wait_for(sender, kAll, 0), POLLOUT | POLLHUP);
  const int ended = listening();
  EXPECT_EQ(wait_for(ended, kAll, 0), 0);
  EXPECT_EQ(shutdown(ended, SHUT_RD), 0);
  EXPECT_EQ(wait_for(ended, kAll, 0), POLLOUT | POLLERR | POLLHUP);
  EXPECT_ERRNO(read_one(ended), ECONNRESET);
  EXPECT_EQ(wait_for(ended, kAll, 0), POLLOUT | POLLHUP);
  expect_connects(ended);
  close(sender);
  close(ended);
}

// The name keeps the port (inet_sport) when the attempt or connection is over, and loses an address that bind() has not given.
TEST_F(States, TheNameOfWhatIsOver) {
  const auto is = [](int fd, uint32_t address_be, uint16_t port_be) {
    EXPECT_EQ(name_of(fd).sin_addr.s_addr, address_be);
    EXPECT_EQ(name_of(fd).sin_port, port_be);
  };
  const int fd = refused(make());
  const sockaddr_in tried = name_of(fd);
  is(fd, self_address().sin_addr.s_addr, tried.sin_port);
  EXPECT_NE(tried.sin_port, 0);
  EXPECT_ERRNO(go(fd, dead_end()), ECONNREFUSED);
  is(fd, 0, tried.sin_port);
  expect_connects(fd);
  const sockaddr_in made = name_of(fd);
  EXPECT_EQ(disconnect(fd), 0);
  is(fd, 0, made.sin_port);
  EXPECT_ERRNO(go(fd, silence()), EINPROGRESS);
  const sockaddr_in silent = name_of(fd);
  EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
  is(fd, 0, silent.sin_port);
  ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&made), sizeof made), 0) << strerror(errno);
  is(fd, made.sin_addr.s_addr, made.sin_port);
  EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLERR | POLLHUP) << "what ended the last attempt is still to be told";
  EXPECT_ERRNO(connect(fd, reinterpret_cast<const sockaddr*>(&made), 3), EINVAL);
  EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLERR | POLLHUP);
  expect_connects(fd);
  close(fd);
}

// connect() to no address (tcp_disconnect()) in every state.
TEST_F(States, Disconnect) {
  const int fresh = make();
  EXPECT_EQ(disconnect(fresh), 0);
  EXPECT_EQ(wait_for(fresh, kAll, 0), POLLOUT | POLLHUP);
  EXPECT_EQ(take_error(fresh), 0);
  expect_connects(fresh);
  EXPECT_EQ(disconnect(fresh), 0);
  EXPECT_EQ(tcp_state(fresh), TCP_CLOSE);
  expect_connects(fresh);
  close(fresh);
}

TEST_F(States, DisconnectResets) {
  Connection c = connect_pair();
  peer.send(c.theirs, "unread");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(disconnect(c.mine), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).error, ECONNRESET);
  EXPECT_EQ(wait_for(c.mine, kAll, 0), POLLOUT | POLLERR | POLLHUP);
  EXPECT_ERRNO(peer_name(c.mine), ENOTCONN);
  EXPECT_ERRNO(read_one(c.mine), ECONNRESET);
  EXPECT_ERRNO(read_one(c.mine), ENOTCONN);
  EXPECT_ERRNO(send_one(c.mine), EPIPE);
  EXPECT_ERRNO(shutdown(c.mine, SHUT_WR), ENOTCONN);
  EXPECT_EQ(disconnect(c.mine), 0);
  expect_connects(c.mine);
}

TEST_F(States, DisconnectEndsAListener) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  EXPECT_ERRNO(go(listener, dead_end()), EISCONN);
  EXPECT_EQ(disconnect(listener), 0);
  EXPECT_EQ(peer.connect(peer.socket(), at).error, ECONNREFUSED);
  expect_connects(listener);
}

// tcp_disconnect() moves write_seq by the largest window there was and two: so much is not sent (TCP_NOTSENT_LOWAT) until the next attempt.
// connect() that tells of the end of an attempt disconnects as well.
TEST_F(States, WhatIsLeftIsNotSent) {
  constexpr int kLow = 100'000;
  for (const bool reset : {false, true}) {
    for (const bool asked_before : {false, true}) {
      SCOPED_TRACE(reset * 2 + asked_before);
      sockaddr_in at{};
      const int listener = peer.listen(&at), fd = make();
      const auto ask = [&] { EXPECT_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kLow, sizeof kLow), 0); };
      if (asked_before) ask();
      EXPECT_ERRNO(go(fd, at), EINPROGRESS);
      ASSERT_EQ(wait_for(fd, POLLOUT), POLLOUT);
      const int theirs = static_cast<int>(peer.accept(listener).result);
      if (reset) {
        peer.reset(theirs);
        ASSERT_TRUE(wait_for(fd, POLLRDHUP));
        EXPECT_ERRNO(go(fd, at), ECONNRESET);
      } else {
        EXPECT_EQ(disconnect(fd), 0);
        EXPECT_EQ(take_error(fd), ECONNRESET);
      }
      if (!asked_before) ask();
      EXPECT_EQ(wait_for(fd, kAll, 0), POLLHUP);
      int left = 0;
      EXPECT_EQ(ioctl(fd, SIOCOUTQNSD, &left), 0);
      EXPECT_GT(left * 2, kLow);
      expect_connects(fd);
      close(fd);
      peer.close(listener);
    }
  }
}

// An attempt that failed saw no window.
TEST_F(States, WhatARefusedAttemptLeaves) {
  const int fd = make(), low[] = {4, 5};
  for (int turn = 0; turn < 2; turn++) {
    SCOPED_TRACE(turn);
    EXPECT_ERRNO(go(refused(fd), dead_end()), ECONNREFUSED);
    EXPECT_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low[0], sizeof(int)), 0);
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLHUP);
    EXPECT_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low[1], sizeof(int)), 0);
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLHUP | POLLOUT);
  }
  expect_connects(fd);
  close(fd);
}

// What shutdown() told before there was a connection goes with it (sk_shutdown is 0 after tcp_disconnect()).
TEST_F(States, DisconnectForgetsShutdown) {
  for (const int how : kHows) {
    for (const int end : {0, 1, 2}) {
      SCOPED_TRACE(how * 3 + end);
      sockaddr_in at{};
      const int listener = peer.listen(&at), fd = make();
      EXPECT_ERRNO(shutdown(fd, how), ENOTCONN);
      EXPECT_ERRNO(go(fd, end == 1 ? silence() : at), EINPROGRESS);
      if (end == 0) (void)wait_for(fd, POLLOUT);
      EXPECT_EQ(end == 1 ? shutdown(fd, SHUT_RD) : disconnect(fd), 0);
      (void)take_error(fd);
      EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLHUP);
      EXPECT_ERRNO(go(fd, dead_end()), EINPROGRESS);
      ASSERT_TRUE(wait_for(fd, kAll) & POLLERR);
      EXPECT_ERRNO(go(fd, dead_end()), ECONNREFUSED);
      EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLHUP);
      close(fd);
      peer.close(listener);
    }
  }
}

// A listener's too, wherever it is bound.
TEST_F(States, AListenerThatEndsForgetsShutdown) {
  for (const sockaddr_in& at : {self_address(), sockaddr_in{AF_INET, 0, {}, {}}}) {
    const int fd = make();
    EXPECT_EQ(bind_to(fd, at), 0);
    EXPECT_ERRNO(shutdown(fd, SHUT_RD), ENOTCONN);
    EXPECT_EQ(listen(fd, 1), 0);
    EXPECT_EQ(shutdown(fd, SHUT_RD), 0);
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLHUP);
    close(fd);
  }
}

// tcp_disconnect() gives a port back that bind() chose if it ends something: of a socket that is closed it does not.
TEST_F(States, DisconnectAgainKeepsThePort) {
  for (const bool to_self : {false, true}) {
    const int fd = make();
    EXPECT_ERRNO(go(fd, silence()), EINPROGRESS);
    EXPECT_EQ(disconnect(fd), 0);
    EXPECT_EQ(bind_to(fd, to_self ? self_address() : sockaddr_in{AF_INET, 0, {}, {}}), 0);
    const in_port_t port = name_of(fd).sin_port;
    EXPECT_EQ(disconnect(fd), 0);
    EXPECT_EQ(name_of(fd).sin_port, port);
    EXPECT_ERRNO(bind_to(fd, self_address()), EINVAL);
    expect_connects(fd);
    close(fd);
  }
}

// Nobody knows a way there: nothing has happened, and the socket may do whatever it could before.
TEST_F(States, ANoWayChangesNothing) {
  sockaddr_in nowhere{};
  nowhere.sin_family = AF_INET;
  nowhere.sin_port = htons(9);
  nowhere.sin_addr.s_addr = inet_addr("198.51.100.1");
  for (const bool blocks : {false, true}) {
    const int fresh = make(blocks ? 0 : SOCK_NONBLOCK);
    EXPECT_ERRNO(go(fresh, nowhere), ENETUNREACH);
    expect_connects(fresh);
    close(fresh);
  }
  const int fd = refused(make());
  EXPECT_ERRNO(go(fd, dead_end()), ECONNREFUSED);
  const in_port_t port = name_of(fd).sin_port;
  EXPECT_ERRNO(go(fd, nowhere), ENETUNREACH);
  EXPECT_EQ(name_of(fd).sin_port, port);
  EXPECT_EQ(listen(fd, 1), 0);
  EXPECT_EQ(disconnect(fd), 0);
  EXPECT_ERRNO(go(fd, nowhere), ENETUNREACH);
  expect_connects(fd);
  close(fd);
}

// __sys_connect() looks at the address before the socket looks at itself.
TEST_F(States, ArgumentsOfAnotherConnect) {
  Connection c = connect_pair();
  const sockaddr_in at = dead_end();
  const auto* raw = reinterpret_cast<const sockaddr*>(&at);
  EXPECT_ERRNO(connect(c.mine, raw, sizeof at), EISCONN);
  EXPECT_ERRNO(connect(c.mine, raw, 2), EISCONN);
  EXPECT_ERRNO(connect(c.mine, raw, 1), EINVAL);
  EXPECT_ERRNO(connect(c.mine, raw, 0), EINVAL);
  EXPECT_ERRNO(connect(c.mine, raw, 1000), EINVAL);
  EXPECT_ERRNO(connect(c.mine, reinterpret_cast<const sockaddr*>(8), sizeof at), EFAULT);
}

// A listener that shutdown() ends lets go of a port that bind() was not asked for.
TEST_F(States, AListenerThatEndedMayBindAgain) {
  for (const bool by_number : {false, true}) {
    SCOPED_TRACE(by_number);
    const int spare = make();
    ASSERT_EQ(bind_to(spare, self_address()), 0);
    const sockaddr_in other = name_of(spare);
    close(spare);
    const int fd = make();
    ASSERT_EQ(bind_to(fd, self_address(by_number ? other.sin_port : htons(0))), 0) << strerror(errno);
    const sockaddr_in first = name_of(fd);
    ASSERT_EQ(listen(fd, 1), 0) << strerror(errno);
    EXPECT_ERRNO(bind_to(fd, self_address()), EINVAL);
    ASSERT_EQ(shutdown(fd, SHUT_RD), 0);
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLHUP);
    EXPECT_EQ(name_of(fd).sin_port, first.sin_port) << "the name stays";
    if (by_number) {
      EXPECT_ERRNO(bind_to(fd, self_address()), EINVAL);
    } else {
      EXPECT_EQ(bind_to(fd, other), 0) << strerror(errno);
      EXPECT_ERRNO(bind_to(fd, other), EINVAL);
    }
    EXPECT_EQ(name_of(fd).sin_port, other.sin_port);
    EXPECT_EQ(listen(fd, 1), 0) << strerror(errno);
    EXPECT_EQ(name_of(fd).sin_port, other.sin_port);
    EXPECT_EQ(shutdown(fd, SHUT_RDWR), 0);
    EXPECT_EQ(listen(fd, 1), 0) << strerror(errno);
    close(fd);
  }
}

// inet_num is 0 after a refusal, unless bind() has asked for the port.
TEST_F(States, V6OnlyAfterARefusal) {
  const auto v6_only = [](int fd) {
    const int off = 0;
    return setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  };
  const sockaddr_in at = dead_end();
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  mapped.sin6_port = at.sin_port;
  mapped.sin6_addr.s6_addr32[2] = htonl(0xffff);
  mapped.sin6_addr.s6_addr32[3] = at.sin_addr.s_addr;
  for (const int port : {-1, 0, 23457}) {
    for (const bool told : {false, true}) {
      SCOPED_TRACE(port * 2 + told);
      const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
      sockaddr_in6 any{};
      any.sin6_family = AF_INET6;
      any.sin6_port = htons(static_cast<uint16_t>(port));
      if (port >= 0) {
        ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any), 0) << strerror(errno);
        EXPECT_ERRNO(v6_only(fd), EINVAL);
      }
      EXPECT_ERRNO(connect(fd, reinterpret_cast<sockaddr*>(&mapped), sizeof mapped), EINPROGRESS);
      ASSERT_TRUE(wait_for(fd, kAll) & POLLERR);
      if (told) EXPECT_ERRNO(connect(fd, reinterpret_cast<sockaddr*>(&mapped), sizeof mapped), ECONNREFUSED);
      if (port > 0) {
        EXPECT_ERRNO(v6_only(fd), EINVAL);
      } else {
        EXPECT_EQ(v6_only(fd), 0) << strerror(errno);
      }
      close(fd);
    }
  }
}

// A socket of IPv6 alone reaches no mapped address.
TEST_F(States, V6OnlyReachesNoMappedAddress) {
  const int fd = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
  ASSERT_EQ(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), 0);
  const sockaddr_in at = dead_end();
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  mapped.sin6_port = at.sin_port;
  mapped.sin6_addr.s6_addr32[2] = htonl(0xffff);
  mapped.sin6_addr.s6_addr32[3] = at.sin_addr.s_addr;
  EXPECT_ERRNO(connect(fd, reinterpret_cast<sockaddr*>(&mapped), sizeof mapped), ENETUNREACH);
  close(fd);
}

// The FIN waits behind what the peer does not take: FIN-WAIT-1, CLOSING and LAST-ACK last.
TEST_F(States, ShutdownWhileTheFinWaits) {
  for (const bool peer_first : {false, true}) {
    SCOPED_TRACE(peer_first);
    Connection c = connect_pair();
    fill(c.mine);
    if (peer_first) {
      peer.shutdown(c.theirs, SHUT_WR);
      ASSERT_TRUE(wait_for(c.mine, POLLRDHUP) & POLLRDHUP);
      EXPECT_EQ(tcp_state(c.mine), TCP_CLOSE_WAIT);
    }
    EXPECT_EQ(shutdown(c.mine, SHUT_WR), 0);
    EXPECT_EQ(tcp_state(c.mine), peer_first ? TCP_LAST_ACK : TCP_FIN_WAIT1);
    if (!peer_first) {
      peer.shutdown(c.theirs, SHUT_WR);
      ASSERT_TRUE(wait_for(c.mine, POLLRDHUP) & POLLRDHUP);
      EXPECT_EQ(tcp_state(c.mine), TCP_CLOSING);
    }
    EXPECT_EQ(wait_for(c.mine, kAll, 0), kAll | POLLHUP);
    for (const int how : kHows) EXPECT_EQ(shutdown(c.mine, how), 0);
    EXPECT_ERRNO(go(c.mine, dead_end()), EISCONN);
    EXPECT_ERRNO(listen(c.mine, 1), EINVAL);
    EXPECT_EQ(peer_name(c.mine), 0);
    EXPECT_EQ(read_one(c.mine), 0);
    EXPECT_ERRNO(send_one(c.mine), EPIPE);
    peer.reset(c.theirs);
    EXPECT_TRUE(wait_for(c.mine, 0) & POLLERR);
    EXPECT_EQ(take_error(c.mine), ECONNRESET);
    EXPECT_ERRNO(shutdown(c.mine, SHUT_WR), ENOTCONN);
    EXPECT_ERRNO(go(c.mine, dead_end()), EISCONN);
    close(c.mine);
  }
}

// What shutdown() told a socket before it listened its connections have from birth (sk_clone()).
TEST_F(States, ShutdownBeforeListening) {
  for (const int how : kHows) {
    SCOPED_TRACE(how);
    const int listener = make();
    EXPECT_ERRNO(shutdown(listener, how), ENOTCONN);
    ASSERT_EQ(listen(listener, 8), 0);
    EXPECT_EQ(wait_for(listener, kAll, 0), 0);
    const int theirs = peer.socket();
    const int job = peer.start_connect(theirs, self_address(name_of(listener).sin_port));
    EXPECT_EQ(wait_for(listener, POLLIN), POLLIN);
    const int got = accept(listener, nullptr, nullptr);
    ASSERT_GE(got, 0);
    EXPECT_EQ(peer.finish(job).result, 0);
    if (how == SHUT_RD) {
      EXPECT_EQ(send_one(got), 1);
    } else {
      EXPECT_ERRNO(send_one(got), EPIPE);
    }
    EXPECT_EQ(peer.recv(theirs, 1).payload, how == SHUT_RD ? "x" : "");
    EXPECT_EQ(wait_for(got, kAll, 0), how == SHUT_RD ? kAll : how == SHUT_WR ? POLLOUT : kAll | POLLHUP);
    close(got);
    close(listener);
  }
}

// A socket that turns out to be the kernel's takes its registrations along.
TEST_F(States, RegistrationsOfASocketThatGoesToLoopback) {
  const int other = make();  // something of the stack's, so that there is a stack
  EXPECT_ERRNO(go(other, silence()), EINPROGRESS);
  sockaddr_in loopback{};
  loopback.sin_family = AF_INET;
  loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int set = epoll_create1(0), listener = make(), client = make(0);
  epoll_event event{EPOLLIN, {.u64 = 7}}, got[4];
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, client, &event), 0);
  event.data.u64 = 8;
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event), 0);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(go(client, name_of(listener)), 0);
  ASSERT_EQ(epoll_wait(set, got, 4, 30000), 1);
  EXPECT_EQ(got[0].data.u64, 8u);
  const int served = accept(listener, nullptr, nullptr);
  EXPECT_EQ(epoll_wait(set, got, 4, 0), 0);
  EXPECT_EQ(send_one(served), 1);
  ASSERT_EQ(epoll_wait(set, got, 4, 30000), 1);
  EXPECT_EQ(got[0].data.u64, 7u);
  EXPECT_EQ(epoll_ctl(set, EPOLL_CTL_DEL, client, nullptr), 0);
  EXPECT_EQ(epoll_wait(set, got, 4, 0), 0);
  for (const int fd : {served, client, listener, set, other}) close(fd);
}

}  // namespace
