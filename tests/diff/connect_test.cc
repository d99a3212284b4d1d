// connect(): refused, in progress, twice, with addresses of its own choice; what poll and SO_ERROR say meanwhile.
// SPDX-License-Identifier: BSD-3-Clause

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Connect : public DiffTest {
 protected:
  static int make(int flags = 0) { return socket(AF_INET, SOCK_STREAM | flags, 0); }
  static int go(int fd, const sockaddr_in& to) { return connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to); }
  static int take_error(int fd) {
    int error = -1;
    socklen_t size = sizeof error;
    EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
    return error;
  }
  // An address of the peer where nobody listens: a port that was just given back.
  sockaddr_in dead_end() {
    sockaddr_in at{};
    int listener = peer.listen(&at);
    peer.close(listener);
    return at;
  }
};

TEST_F(Connect, BlockingRefused) {
  sockaddr_in at = dead_end();
  int fd = make();
  EXPECT_EQ(go(fd, at), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
  EXPECT_EQ(take_error(fd), 0) << "connect() has told it";
  EXPECT_EQ(wait_for(fd, POLLIN | POLLOUT, 0), POLLOUT | POLLHUP) << "as a socket that never tried";
}

// RFC 7323, whoever connects.
TEST_F(Connect, TimestampsAreNegotiated) {
  if (strcmp(getenv("ZPS_TEST_MODE"), "zpstack-memif") == 0) {
    KNOWN_DIFFERENCE("timestamps");
  }
  const auto options_of = [](int fd) {
    tcp_info info{};
    socklen_t size = sizeof info;
    EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    return info.tcpi_options;
  };
  sockaddr_in alive{};
  int listener = peer.listen(&alive);
  int active = make();
  ASSERT_EQ(go(active, alive), 0) << strerror(errno);
  EXPECT_GE(peer.accept(listener).result, 0);
  EXPECT_NE(options_of(active) & TCPI_OPT_TIMESTAMPS, 0);
  sockaddr_in own = self_address();
  int own_listener = make();
  ASSERT_EQ(bind(own_listener, reinterpret_cast<sockaddr*>(&own), sizeof own), 0) << strerror(errno);
  ASSERT_EQ(listen(own_listener, 8), 0);
  socklen_t size = sizeof own;
  ASSERT_EQ(getsockname(own_listener, reinterpret_cast<sockaddr*>(&own), &size), 0);
  const int job = peer.start_connect(peer.socket(), own);
  int passive = accept(own_listener, nullptr, nullptr);
  ASSERT_GE(passive, 0) << strerror(errno);
  EXPECT_EQ(peer.finish(job).result, 0);
  EXPECT_NE(options_of(passive) & TCPI_OPT_TIMESTAMPS, 0);
}

TEST_F(Connect, AgainAfterRefusal) {
  sockaddr_in at = dead_end(), alive{};
  int fd = make();
  ASSERT_EQ(go(fd, at), -1);
  int listener = peer.listen(&alive);
  EXPECT_EQ(go(fd, alive), 0) << strerror(errno);
  EXPECT_GE(peer.accept(listener).result, 0);
}

TEST_F(Connect, NonBlockingRefused) {
  sockaddr_in at = dead_end();
  int fd = make(SOCK_NONBLOCK);
  EXPECT_EQ(go(fd, at), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  EXPECT_EQ(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
  EXPECT_EQ(take_error(fd), ECONNREFUSED);
  EXPECT_EQ(take_error(fd), 0);
  EXPECT_EQ(wait_for(fd, POLLOUT, 0), POLLOUT | POLLHUP) << "still writable: writing fails at once";
  EXPECT_EQ(send(fd, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(Connect, NonBlockingRefusalByConnectAgain) {
  sockaddr_in at = dead_end();
  int fd = make(SOCK_NONBLOCK);
  EXPECT_EQ(go(fd, at), -1);
  ASSERT_TRUE(wait_for(fd, POLLOUT) & POLLERR);
  EXPECT_EQ(go(fd, at), -1);
  EXPECT_EQ(errno, ECONNREFUSED) << "the second connect() takes the error";
}

TEST_F(Connect, NonBlockingSucceeds) {
  sockaddr_in at{}, name{};
  int listener = peer.listen(&at);
  int fd = make(SOCK_NONBLOCK);
  int result = go(fd, at);
  ASSERT_TRUE(result == 0 || errno == EINPROGRESS) << strerror(errno);
  EXPECT_EQ(wait_for(fd, POLLOUT), POLLOUT);
  EXPECT_EQ(take_error(fd), 0);
  if (result != 0) {
    EXPECT_EQ(go(fd, at), 0) << "the next connect() tells of the success, once";
  }
  EXPECT_EQ(go(fd, at), -1);
  EXPECT_EQ(errno, EISCONN);
  socklen_t size = sizeof name;
  EXPECT_EQ(getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
  EXPECT_EQ(to_text(name), to_text(at));
  Reply accepted = peer.accept(listener);
  size = sizeof name;
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
  EXPECT_EQ(to_text(name), to_text(accepted.name));
}

// To an address of the network that nobody has: the answer never comes while we look.
TEST_F(Connect, InProgressStates) {
  sockaddr_in nobody = peer_address(htons(9));
  nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~0xffu) | 77);
  int fd = make(SOCK_NONBLOCK);
  EXPECT_EQ(go(fd, nobody), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  EXPECT_EQ(go(fd, nobody), -1);
  EXPECT_EQ(errno, EALREADY);
  EXPECT_EQ(wait_for(fd, POLLIN | POLLOUT, 0), 0);
  char byte;
  EXPECT_EQ(read(fd, &byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(send(fd, &byte, 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EAGAIN);
  sockaddr_in name{};
  socklen_t size = sizeof name;
  EXPECT_EQ(getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size), -1);
  EXPECT_EQ(errno, ENOTCONN);
  EXPECT_EQ(close(fd), 0);
}

TEST_F(Connect, UnreachableNeighbour) {
  KNOWN_DIFFERENCE_OF_HOST("host-reports");
  sockaddr_in nobody = peer_address(htons(9));
  nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~0xffu) | 78);
  int fd = make(SOCK_NONBLOCK);
  EXPECT_EQ(go(fd, nobody), -1);
  ASSERT_EQ(errno, EINPROGRESS);
  EXPECT_TRUE(wait_for(fd, POLLOUT, 20000) & POLLERR);
  EXPECT_EQ(take_error(fd), EHOSTUNREACH);
}

// Whatever is to be shut, the attempt ends, and the socket is as if it had never tried.
TEST_F(Connect, ShutdownEndsTheAttempt) {
  sockaddr_in nobody = peer_address(htons(9));
  nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~0xffu) | 80);
  for (const int how : {SHUT_RD, SHUT_WR, SHUT_RDWR}) {
    int fd = make(SOCK_NONBLOCK);
    EXPECT_EQ(go(fd, nobody), -1);
    EXPECT_EQ(errno, EINPROGRESS);
    EXPECT_EQ(shutdown(fd, how), 0);
    constexpr int kAll = POLLIN | POLLOUT | POLLRDHUP;
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLERR | POLLHUP);
    EXPECT_EQ(take_error(fd), ECONNRESET);
    EXPECT_EQ(wait_for(fd, kAll, 0), POLLOUT | POLLHUP);
    char byte;
    EXPECT_EQ(read(fd, &byte, 1), -1);
    EXPECT_EQ(errno, ENOTCONN);
    EXPECT_EQ(send(fd, &byte, 1, MSG_NOSIGNAL), -1);
    EXPECT_EQ(errno, EPIPE);
    EXPECT_EQ(shutdown(fd, how), -1);
    EXPECT_EQ(errno, ENOTCONN);
    EXPECT_EQ(go(fd, nobody), -1);
    EXPECT_EQ(errno, EINPROGRESS) << "it may try again";
    EXPECT_EQ(shutdown(fd, how), 0);
    EXPECT_EQ(go(fd, nobody), -1);
    EXPECT_EQ(errno, EINPROGRESS) << "what ended the last attempt is not told";
    EXPECT_EQ(take_error(fd), 0);
    EXPECT_EQ(close(fd), 0);
  }
}

TEST_F(Connect, ShutdownWakesABlockingConnect) {
  sockaddr_in nobody = peer_address(htons(9));
  nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~0xffu) | 81);
  expect_within(2000, [&] {
    const int fd = make();
    std::thread other([fd] {
      while (shutdown(fd, SHUT_RDWR) != 0) usleep(1000);  // until the attempt has begun
    });
    EXPECT_EQ(go(fd, nobody), -1);
    EXPECT_EQ(errno, ECONNRESET);
    other.join();
    EXPECT_EQ(take_error(fd), 0);
  });
}

TEST_F(Connect, BlockingConnectWithSendTimeout) {
  sockaddr_in nobody = peer_address(htons(9));
  nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~0xffu) | 79);
  expect_within(2000, [&] {
    const int fd = make();
    const timeval limit{0, 200000};
    ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
    const uint64_t start = now_ms();
    EXPECT_EQ(go(fd, nobody), -1);
    EXPECT_EQ(errno, EINPROGRESS);
    EXPECT_GE(now_ms() - start, 195u);
  });
}

TEST_F(Connect, FromABoundPort) {
  sockaddr_in at{}, mine{};
  int listener = peer.listen(&at);
  int fd = make();
  mine = self_address(0);
  mine.sin_addr.s_addr = INADDR_ANY;
  mine.sin_port = htons(23456);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&mine), sizeof mine), 0);
  ASSERT_EQ(go(fd, at), 0) << strerror(errno);
  Reply accepted = peer.accept(listener);
  EXPECT_EQ(to_text(accepted.name), to_text(self_address(htons(23456))));
}

TEST_F(Connect, PortsAreNeverUsedTwice) {
  sockaddr_in at{};
  int listener = peer.listen(&at, 256);
  std::string seen;
  for (int i = 0; i < 100; i++) {
    int fd = make();
    ASSERT_EQ(go(fd, at), 0);
    Reply accepted = peer.accept(listener);
    std::string name = to_text(accepted.name) + ";";
    EXPECT_EQ(seen.find(name), std::string::npos);
    seen += name;
  }
}

TEST_F(Connect, WrongArguments) {
  sockaddr_in at{};
  peer.listen(&at);
  EXPECT_EQ(go(-1, at), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(go(0, at), -1);
  EXPECT_EQ(errno, ENOTSOCK);
  int fd = make();
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), 3), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(8), sizeof at), -1);
  EXPECT_EQ(errno, EFAULT);
  sockaddr_in odd = at;
  odd.sin_family = AF_INET6;
  EXPECT_EQ(go(fd, odd), -1);
  EXPECT_EQ(errno, EAFNOSUPPORT);
  EXPECT_EQ(go(fd, at), 0) << "the socket is still good: " << strerror(errno);
  EXPECT_EQ(go(fd, at), -1);
  EXPECT_EQ(errno, EISCONN);
  EXPECT_EQ(listen(fd, 5), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Connect, LoopbackStaysWithTheKernel) {
  int listener = make();
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&local), sizeof local), 0);
  ASSERT_EQ(listen(listener, 5), 0);
  socklen_t size = sizeof local;
  getsockname(listener, reinterpret_cast<sockaddr*>(&local), &size);
  int fd = make();
  ASSERT_EQ(go(fd, local), 0) << strerror(errno);
  int other = accept(listener, nullptr, nullptr);
  ASSERT_GE(other, 0);
  ASSERT_EQ(write(fd, "local", 5), 5);
  EXPECT_EQ(read_all(other, 5), "local");
}

// A port belongs to many connections, as long as no two have the same four addresses: also one that bind() has chosen.
TEST_F(Connect, APortThatBindHasChosenServesThoughOthersUseIt) {
  constexpr int kOthers = 500, kTries = 300;  // of 28232 ports: some five are met
  sockaddr_in first{}, second{};
  std::vector<int> all{listen_here(&first, kOthers), listen_here(&second, kTries)};
  for (int i = 0; i < kOthers; i++) {
    all.push_back(make());
    ASSERT_EQ(go(all.back(), first), 0) << strerror(errno);
  }
  for (int i = 0; i < kTries; i++) {
    all.push_back(make());
    sockaddr_in own = self_address();
    ASSERT_EQ(bind(all.back(), reinterpret_cast<sockaddr*>(&own), sizeof own), 0);
    ASSERT_EQ(go(all.back(), second), 0) << strerror(errno) << " at " << i;
  }
  for (int fd : all) close(fd);
}

TEST_F(Connect, ToItself) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int fd = make(SOCK_NONBLOCK);
  int result = go(fd, at);
  ASSERT_TRUE(result == 0 || errno == EINPROGRESS) << strerror(errno);
  int other = accept(listener, nullptr, nullptr);
  ASSERT_GE(other, 0);
  ASSERT_TRUE(wait_for(fd, POLLOUT) & POLLOUT);
  ASSERT_EQ(write(fd, "own", 3), 3);
  EXPECT_EQ(read_all(other, 3), "own");
}

// tcp_rcv_state_process() from TCP_SYN_RECV: what a socket shut down before it was connected ends a connection that both ends opened with a
// FIN. To itself that is all of it, before connect() looks again.
TEST_F(Connect, ToItselfAfterAShutdown) {
  for (const int how : {SHUT_WR, SHUT_RDWR}) {
    for (const int flags : {0, int{SOCK_NONBLOCK}}) {
      const int fd = make(flags);
      sockaddr_in own = self_address();
      ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof own), 0);
      socklen_t size = sizeof own;
      ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size), 0);
      EXPECT_EQ(shutdown(fd, how), -1);
      EXPECT_EQ(errno, ENOTCONN);
      EXPECT_EQ(go(fd, own), -1);
      if (flags != 0) {
        EXPECT_EQ(errno, EINPROGRESS);
        tcp_info info{};
        for (const uint64_t start = now_ms(); info.tcpi_state != TCP_CLOSE && now_ms() - start < 10000;) {
          size = sizeof info;
          ASSERT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
          (void)wait_for(fd, POLLRDHUP, 0);
        }
        EXPECT_EQ(info.tcpi_state, TCP_CLOSE);
        char byte;
        EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
        EXPECT_EQ(go(fd, own), -1);
      }
      EXPECT_EQ(errno, ECONNABORTED);
      EXPECT_EQ(wait_for(fd, POLLIN | POLLOUT, 0), POLLOUT | POLLHUP) << "as if it had never tried";
      EXPECT_EQ(close(fd), 0);
    }
  }
}

}  // namespace
