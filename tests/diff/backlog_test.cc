// The accept queue's bound: how many look connected, who waits, and that all who wait are served.
// SPDX-License-Identifier: BSD-3-Clause
//
// Linux takes a SYN while the queue is not full, which it is with more than `backlog` connections in it (sk_acceptq_is_full()), and drops
// it otherwise: the client was told nothing and sends it again.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Backlog : public DiffTest {
 protected:
  // So many clients send their SYN, and wait.
  void come(int count, const sockaddr_in& to) {
    for (int i = 0; i < count; i++) {
      clients_.push_back(peer.socket(SOCK_NONBLOCK));
      const Reply begun = peer.connect(clients_.back(), to);
      EXPECT_TRUE(begun.result == 0 || begun.error == EINPROGRESS) << strerror(begun.error);
    }
  }
  long connected() {
    return std::count_if(clients_.begin(), clients_.end(), [&](int fd) {
      return (peer.call(PeerOp::poll, fd, POLLOUT, 0).result & (POLLOUT | POLLHUP | POLLERR)) == POLLOUT;
    });
  }
  // The number of clients that take themselves for connected, once it stays. Nobody but the wire knows when all SYNs are there: as long as
  // this wait for one that must not come in.
  long connected_in_the_end(long expected) {
    const uint64_t start = now_ms();
    while (connected() < expected && now_ms() - start < 10'000) {
    }
    peer.call(PeerOp::poll, clients_.back(), POLLPRI, 150);
    return connected();
  }
  // Accepts and answers until each client has its answer; a client sends its request when it takes itself for connected.
  void serve_all(int listener) {
    size_t accepted = 0, answered = 0;
    std::vector<bool> asked(clients_.size()), done(clients_.size());
    const uint64_t start = now_ms();
    while (answered < clients_.size() && now_ms() - start < 40'000) {
      if (accepted < clients_.size() && wait_for(listener, POLLIN, 5) != 0) {
        const int fd = accept(listener, nullptr, nullptr);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(write(fd, "in", 2), 2);
        served_.push_back(fd);
        accepted++;
      }
      for (size_t i = 0; i < clients_.size(); i++) {
        if (done[i]) continue;
        const int64_t level = peer.call(PeerOp::poll, clients_[i], POLLIN | POLLOUT, 0).result;
        ASSERT_EQ(level & (POLLERR | POLLHUP), 0) << i << " is reset";
        if (!asked[i] && (level & POLLOUT) != 0) asked[i] = peer.send(clients_[i], "request").result == 7;
        if ((level & POLLIN) == 0) continue;
        EXPECT_EQ(peer.recv_all(clients_[i], 2), "in") << i;
        done[i] = true;
        answered++;
      }
    }
    EXPECT_EQ(answered, clients_.size());
  }
  std::vector<int> clients_, served_;
};

int listen_at(int fd, int backlog) { return listen(fd, backlog) == 0 ? 0 : errno; }

// Bound to the machine's own address: a stack's listener alone. Else to all addresses: the kernel listens as well.
int bound_socket(bool to_all, sockaddr_in* at) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  *at = self_address();
  if (to_all) at->sin_addr.s_addr = INADDR_ANY;
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(at), sizeof *at), 0);
  socklen_t size = sizeof *at;
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(at), &size), 0);
  *at = self_address(at->sin_port);
  return fd;
}

class Both : public Backlog, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(To, Both, ::testing::Bool(), [](const auto& all) { return std::string(all.param ? "all" : "self"); });

TEST_P(Both, OneMoreThanAskedFor) {
  for (int backlog : {0, 1, 5}) {
    sockaddr_in at{};
    const int listener = bound_socket(GetParam(), &at);
    ASSERT_EQ(listen_at(listener, backlog), 0);
    come(12, at);
    EXPECT_EQ(connected_in_the_end(backlog + 1), backlog + 1);
    close(listener);
    for (int fd : clients_) peer.close(fd);
    clients_.clear();
  }
}

TEST_P(Both, AnotherListenChangesIt) {
  sockaddr_in at{};
  const int listener = bound_socket(GetParam(), &at);
  ASSERT_EQ(listen_at(listener, 0), 0);
  come(4, at);
  EXPECT_EQ(connected_in_the_end(1), 1);
  ASSERT_EQ(listen_at(listener, 2), 0);
  const long in = connected_in_the_end(3);
  EXPECT_GE(in, 3) << "those who had been told nothing ask again, some of them together";
  ASSERT_EQ(listen_at(listener, 1), 0);
  EXPECT_GE(accept(listener, nullptr, nullptr), 0);
  come(2, at);
  EXPECT_EQ(connected_in_the_end(in), in) << "two wait, as many as may";
}

TEST_F(Backlog, AllAreServedAndNoneIsReset) {
  sockaddr_in at{};
  const int listener = listen_here(&at, 2);
  come(12, at);
  EXPECT_EQ(connected_in_the_end(3), 3);
  serve_all(listener);
}

TEST_F(Backlog, HundredsAtOnce) {
  sockaddr_in at{};
  const int listener = listen_here(&at, 2);
  come(300, at);
  EXPECT_EQ(connected_in_the_end(3), 3);
  close(listener);
}

// somaxconn is a network namespace's, and this program's is its own or its peer's, which are alike.
TEST_F(Backlog, SomaxconnIsTheMost) {
  const int file = open("/proc/sys/net/core/somaxconn", O_RDWR | O_CLOEXEC);
  ASSERT_GE(file, 0) << "the harness gives it a network namespace of its own";
  ASSERT_EQ(write(file, "4", 1), 1);
  for (int backlog : {64, -1}) {
    sockaddr_in at{};
    const int listener = bound_socket(false, &at);
    ASSERT_EQ(listen_at(listener, backlog), 0);
    come(8, at);
    EXPECT_EQ(connected_in_the_end(5), 5) << backlog;
    close(listener);
    for (int fd : clients_) peer.close(fd);
    clients_.clear();
  }
  close(file);
}

TEST_F(Backlog, IsAFamilys) {
  sockaddr_in at{};
  const int listener = bound_socket(false, &at);
  ASSERT_EQ(listen_at(listener, 0), 0);
  come(3, at);
  EXPECT_EQ(connected_in_the_end(1), 1);
  const pid_t child = fork();
  if (child == 0) _exit(listen_at(listener, 1));
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_GE(connected_in_the_end(2), 2) << "another member has asked for more";
}

}  // namespace
