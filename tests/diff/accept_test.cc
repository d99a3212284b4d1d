// accept(): order, addresses, flags, inheritance, full descriptor tables, wildcard listeners.
// SPDX-License-Identifier: BSD-3-Clause

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Accept : public DiffTest {};

TEST_F(Accept, OldestFirstWithItsAddress) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  std::vector<std::string> names;
  for (int i = 0; i < 5; i++) {
    int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0);
    names.push_back(to_text(sockaddr_in{AF_INET, peer.call(PeerOp::local_name, theirs).name.sin_port, peer_address().sin_addr, {}}));
    peer.send(theirs, std::string(1, static_cast<char>('a' + i)));
  }
  for (int i = 0; i < 5; i++) {
    sockaddr_in who{};
    socklen_t size = sizeof who;
    int fd = accept(listener, reinterpret_cast<sockaddr*>(&who), &size);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(size, sizeof who);
    EXPECT_EQ(to_text(who), names[static_cast<size_t>(i)]);
    EXPECT_EQ(read_all(fd, 1), std::string(1, static_cast<char>('a' + i)));
    sockaddr_in name{};
    size = sizeof name;
    EXPECT_EQ(getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
    EXPECT_EQ(to_text(name), to_text(who));
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
    EXPECT_EQ(to_text(name), to_text(at));
  }
}

TEST_F(Accept, ShortAddressBufferIsCut) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  unsigned char name[16];
  memset(name, 0xee, sizeof name);
  socklen_t size = 4;
  ASSERT_GE(accept(listener, reinterpret_cast<sockaddr*>(name), &size), 0);
  EXPECT_EQ(size, sizeof(sockaddr_in));
  EXPECT_EQ(name[0], AF_INET);
  EXPECT_EQ(name[4], 0xee);
}

TEST_F(Accept, FlagsOfAccept4) {
  sockaddr_in at{};
  int listener = listen_here(&at, 64, SOCK_NONBLOCK);
  EXPECT_EQ(accept(listener, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EAGAIN);
  for (int flags : {0, int{SOCK_NONBLOCK}, int{SOCK_CLOEXEC}, SOCK_NONBLOCK | SOCK_CLOEXEC}) {
    int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0);
    ASSERT_TRUE(wait_for(listener, POLLIN));
    int fd = accept4(listener, nullptr, nullptr, flags);
    ASSERT_GE(fd, 0) << strerror(errno);
    EXPECT_EQ((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, (flags & SOCK_NONBLOCK) != 0) << "not inherited from the listener";
    EXPECT_EQ((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, (flags & SOCK_CLOEXEC) != 0);
  }
  EXPECT_EQ(accept4(listener, nullptr, nullptr, 0x10), -1);
  EXPECT_EQ(errno, EINVAL);
}

// All but a few, which sk_clone() and inet_csk_clone_lock() clear.
TEST_F(Accept, OptionsAreInherited) {
  struct Row {
    int level, name, set, told;
  };
  constexpr Row kRows[] = {
      {SOL_SOCKET, SO_KEEPALIVE, 1, 1},
      {SOL_SOCKET, SO_RCVBUF, 70000, 140000},
      {SOL_SOCKET, SO_SNDBUF, 70000, 140000},
      {SOL_SOCKET, SO_BROADCAST, 1, 1},
      {SOL_SOCKET, SO_OOBINLINE, 1, 1},
      {SOL_SOCKET, SO_PRIORITY, 5, 0},
      {SOL_SOCKET, SO_RCVLOWAT, 5, 5},
      {SOL_SOCKET, SO_REUSEPORT, 1, 1},
      {IPPROTO_TCP, TCP_NODELAY, 1, 1},
      {IPPROTO_TCP, TCP_CORK, 1, 1},
      {IPPROTO_TCP, TCP_KEEPIDLE, 77, 77},
      {IPPROTO_TCP, TCP_KEEPINTVL, 7, 7},
      {IPPROTO_TCP, TCP_KEEPCNT, 3, 3},
      {IPPROTO_TCP, TCP_SYNCNT, 3, 3},
      {IPPROTO_TCP, TCP_USER_TIMEOUT, 12345, 12345},
      {IPPROTO_TCP, TCP_LINGER2, 7, 7},
      {IPPROTO_TCP, TCP_LINGER2, -1, -1},
      {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 99999, 99999},
      {IPPROTO_IP, IP_TTL, 33, 33},
      {IPPROTO_IP, IP_TOS, 16, 16},
      {IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DONT},
      {IPPROTO_IP, IP_RECVERR, 1, 1},
      {IPPROTO_TCP, TCP_DEFER_ACCEPT, 5, 0},
  };
  for (const Row& row : kRows) {
    sockaddr_in at{};
    const int listener = listen_here(&at);
    ASSERT_EQ(setsockopt(listener, row.level, row.name, &row.set, sizeof row.set), 0);
    const int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0);
    peer.send(theirs, "for who defers");
    const int fd = accept(listener, nullptr, nullptr);
    int value = 0, priority = -1;
    socklen_t size = sizeof value;
    EXPECT_EQ(getsockopt(fd, row.level, row.name, &value, &size), 0);
    EXPECT_EQ(value, row.told) << "level " << row.level << " option " << row.name;
    EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, &size), 0);
    EXPECT_EQ(priority, 0) << "level " << row.level << " option " << row.name;
    close(fd);
    close(listener);
    peer.close(theirs);
  }
}

// More clients than the backlog has room for, and a program that accepts late: few look connected meanwhile, none is reset, and all are
// served soon after.
TEST_F(Accept, CrowdInFrontOfASmallBacklog) {
  constexpr int kClients = 6;
  sockaddr_in at{};
  int listener = listen_here(&at, 2);
  std::vector<int> clients, jobs;
  for (int i = 0; i < kClients; i++) {
    clients.push_back(peer.socket());
    jobs.push_back(peer.start_connect(clients.back(), at));
  }
  // Nobody but the wire knows when all SYNs are there: as long as this wait for one that must not come in.
  const auto connected = [&] {
    return std::count_if(clients.begin(), clients.end(), [&](int fd) {
      return (peer.call(PeerOp::poll, fd, POLLOUT, 0).result & (POLLOUT | POLLHUP)) == POLLOUT;
    });
  };
  const uint64_t start = now_ms();
  while (connected() < 3 && now_ms() - start < 30'000) {
  }
  peer.call(PeerOp::poll, clients.back(), POLLPRI, 300);
  EXPECT_EQ(connected(), 3) << "backlog + 1";
  const uint64_t opened = now_ms();
  for (int i = 0; i < kClients; i++) {
    ASSERT_TRUE(wait_for(listener, POLLIN)) << i;
    int fd = accept(listener, nullptr, nullptr);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(write(fd, "in", 2), 2);
  }
  EXPECT_LT(now_ms() - opened, 20'000u);
  for (int i = 0; i < kClients; i++) {
    EXPECT_EQ(peer.finish(jobs[static_cast<size_t>(i)]).result, 0);
    EXPECT_EQ(peer.send(clients[static_cast<size_t>(i)], "req").result, 3);
    EXPECT_EQ(peer.recv_all(clients[static_cast<size_t>(i)], 2), "in");
  }
}

TEST_F(Accept, FullDescriptorTableLeavesItQueued) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  ASSERT_TRUE(wait_for(listener, POLLIN));
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  int lowest = dup(listener);
  close(lowest);
  rlimit tight{static_cast<rlim_t>(lowest), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  int refused = accept(listener, nullptr, nullptr);
  int error = errno;
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(refused, -1);
  EXPECT_EQ(error, EMFILE);
  EXPECT_TRUE(wait_for(listener, POLLIN, 0) & POLLIN) << "still queued";
  int fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  peer.send(theirs, "kept");
  EXPECT_EQ(read_all(fd, 4), "kept");
}

TEST_F(Accept, DataBeforeAcceptIsKept) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  int job = peer.start(PeerOp::send_pattern, theirs, 11, 30000, 3000);
  EXPECT_EQ(peer.finish(job).result, 30000);
  int fd = accept(listener, nullptr, nullptr);
  EXPECT_EQ(read_all(fd, 30000).size(), 30000u);
}

TEST_F(Accept, GoneBeforeAccept) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  peer.send(theirs, "left");
  peer.close(theirs);
  int fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(read_all(fd, 100), "left");
}

TEST_F(Accept, WildcardServesLoopbackToo) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  for (int round = 0; round < 3; round++) {
    int local = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in loop = at;
    loop.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(local, reinterpret_cast<sockaddr*>(&loop), sizeof loop), 0) << strerror(errno);
    sockaddr_in who{};
    socklen_t size = sizeof who;
    int near = accept(listener, reinterpret_cast<sockaddr*>(&who), &size);
    ASSERT_GE(near, 0);
    EXPECT_EQ(who.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0);
    int far = accept(listener, reinterpret_cast<sockaddr*>(&who), &size);
    ASSERT_GE(far, 0);
    EXPECT_EQ(who.sin_addr.s_addr, peer_address().sin_addr.s_addr);
    ASSERT_EQ(write(near, "near", 4), 4);
    EXPECT_EQ(read_all(local, 4), "near");
    peer.send(theirs, "far");
    EXPECT_EQ(read_all(far, 3), "far");
    close(local);
    close(near);
    close(far);
  }
}

TEST_F(Accept, AddressInUse) {
  sockaddr_in at{}, any{};
  int listener = listen_here(&at);
  int second = socket(AF_INET, SOCK_STREAM, 0);
  any.sin_family = AF_INET;
  any.sin_port = at.sin_port;
  int bound = bind(second, reinterpret_cast<sockaddr*>(&any), sizeof any);
  int error = errno;
  EXPECT_EQ(bound, -1);
  EXPECT_EQ(error, EADDRINUSE);
  close(listener);
  int on = 1;
  setsockopt(second, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  EXPECT_EQ(bind(second, reinterpret_cast<sockaddr*>(&any), sizeof any), 0) << strerror(errno);
  EXPECT_EQ(listen(second, 5), 0) << strerror(errno);
}

// The port of a listener whose connections are in TIME-WAIT is free again for SO_REUSEADDR.
TEST_F(Accept, RestartOnTheSamePort) {
  sockaddr_in at{};
  int on = 1;
  int listener = listen_here(&at);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  for (int round = 0; round < 3; round++) {
    int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0) << round;
    int fd = accept(listener, nullptr, nullptr);
    ASSERT_GE(fd, 0);
    shutdown(fd, SHUT_WR);
    EXPECT_EQ(peer.recv(theirs, 1).result, 0);
    peer.close(theirs);
    char byte;
    EXPECT_EQ(read(fd, &byte, 1), 0);
    close(fd);
    close(listener);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in any = at;
    any.sin_addr.s_addr = INADDR_ANY;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any), 0) << strerror(errno);
    ASSERT_EQ(listen(listener, 5), 0) << strerror(errno);
  }
}

TEST_F(Accept, ClosedListenerRefuses) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int waiting = peer.socket();
  ASSERT_EQ(peer.connect(waiting, at).result, 0);
  close(listener);
  Reply dropped = peer.recv(waiting, 1);
  EXPECT_EQ(dropped.result, -1) << "who was never accepted is reset";
  EXPECT_EQ(dropped.error, ECONNRESET);
  int theirs = peer.socket();
  Reply refused = peer.connect(theirs, at);
  EXPECT_EQ(refused.result, -1);
  EXPECT_EQ(refused.error, ECONNREFUSED);
}

TEST_F(Accept, WrongArguments) {
  sockaddr_in at{};
  int listener = listen_here(&at, 64, SOCK_NONBLOCK);
  char byte;
  EXPECT_EQ(accept(-1, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(accept(0, nullptr, nullptr), -1);
  EXPECT_EQ(errno, ENOTSOCK);
  int plain = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(accept(plain, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(read(listener, &byte, 1), -1);
  EXPECT_EQ(errno, ENOTCONN);
  EXPECT_EQ(send(listener, &byte, 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(connect(listener, reinterpret_cast<sockaddr*>(&at), sizeof at), -1);
  EXPECT_EQ(errno, EISCONN);
  EXPECT_EQ(shutdown(plain, SHUT_RD), -1);
  EXPECT_EQ(errno, ENOTCONN);
  EXPECT_EQ(listen(listener, 10), 0) << "again, with another backlog";
}

TEST_F(Accept, ListenWithoutBind) {
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(listen(listener, 5), 0);
  sockaddr_in name{};
  socklen_t size = sizeof name;
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size), 0);
  ASSERT_NE(name.sin_port, 0);
  int theirs = peer.socket();
  EXPECT_EQ(peer.connect(theirs, self_address(name.sin_port)).result, 0);
  EXPECT_GE(accept(listener, nullptr, nullptr), 0);
}

}  // namespace
