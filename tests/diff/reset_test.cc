// Resets and broken pipes: ECONNRESET once, EPIPE with and without SIGPIPE, SO_ERROR once, linger.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <thread>

#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Reset : public BothWays {};
ZPS_BOTH_WAYS(Reset);

int take_error(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
  return error;
}

TEST_P(Reset, ReadSeesItOnce) {
  Connection c = connect_pair();
  peer.reset(c.theirs);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(read(c.mine, &byte, 1), 0) << "then it is the end of the stream";
  EXPECT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(Reset, PollTellsAndSoErrorIsOneShot) {
  Connection c = connect_pair();
  EXPECT_EQ(take_error(c.mine), 0);
  peer.reset(c.theirs);
  EXPECT_EQ(wait_for(c.mine, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP);
  EXPECT_EQ(take_error(c.mine), ECONNRESET);
  EXPECT_EQ(take_error(c.mine), 0);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), 0);
  EXPECT_EQ(wait_for(c.mine, POLLIN), POLLIN | POLLHUP);
}

TEST_P(Reset, WriteSeesIt) {
  Connection c = connect_pair();
  peer.reset(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, 0) & POLLERR);
  EXPECT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, ECONNRESET) << "the pending error first";
  EXPECT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(Reset, BlockedReaderIsWoken) {
  Connection c = connect_pair();
  int job = peer.start(PeerOp::recv, c.theirs, 1);
  ASSERT_EQ(write(c.mine, "x", 1), 1);
  peer.finish(job);
  char buffer[100];
  peer.reset(c.theirs);
  EXPECT_EQ(recv(c.mine, buffer, sizeof buffer, MSG_WAITALL), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

// Linux delivers what is queued and keeps the error for the next call.
TEST_P(Reset, AfterUnreadData) {
  Connection c = connect_pair();
  peer.send(c.theirs, "too late");
  ASSERT_TRUE(wait_for(c.mine, POLLIN) & POLLIN);
  peer.reset(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, 0) & POLLERR);
  char buffer[100];
  ssize_t count = read(c.mine, buffer, sizeof buffer);
  EXPECT_EQ(count, 8);
  EXPECT_EQ(read(c.mine, buffer, sizeof buffer), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(read(c.mine, buffer, sizeof buffer), 0);
}

volatile sig_atomic_t broken_pipes;
void count_broken_pipe(int) { broken_pipes = broken_pipes + 1; }

TEST_P(Reset, BrokenPipeRaisesSigpipe) {
  struct sigaction action {}, before {};
  action.sa_handler = count_broken_pipe;
  sigaction(SIGPIPE, &action, &before);
  broken_pipes = 0;
  Connection c = connect_pair();
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(write(c.mine, "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(broken_pipes, 1) << "delivered before the call returns";
  EXPECT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(broken_pipes, 1);
  EXPECT_EQ(send(c.mine, "x", 1, 0), -1);
  EXPECT_EQ(broken_pipes, 2);
  sigaction(SIGPIPE, &before, nullptr);
}

TEST_P(Reset, SigpipeBlockedStaysPendingForTheThread) {
  sigset_t set, before, pending;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  Connection c = connect_pair();
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(write(c.mine, "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 1);
  timespec none{};
  EXPECT_EQ(sigtimedwait(&set, nullptr, &none), SIGPIPE);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_P(Reset, LingerZeroResetsThePeer) {
  Connection c = connect_pair();
  linger now{1, 0};
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
  ASSERT_EQ(write(c.mine, "x", 1), 1);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 1);
  ASSERT_EQ(close(c.mine), 0);
  Reply seen = peer.recv(c.theirs, 1);
  EXPECT_EQ(seen.result, -1);
  EXPECT_EQ(seen.error, ECONNRESET);
}

TEST_P(Reset, CloseWithUnreadDataResetsThePeer) {
  Connection c = connect_pair();
  peer.send(c.theirs, "nobody reads this");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  ASSERT_EQ(close(c.mine), 0);
  Reply seen = peer.recv(c.theirs, 1);
  EXPECT_EQ(seen.result, -1);
  EXPECT_EQ(seen.error, ECONNRESET);
}

// What came before is told first, and then the error: a transfer that was cut short does not look complete.
TEST_P(Reset, AfterAPartOfAWaitAll) {
  Connection c = connect_pair();
  peer.send(c.theirs, "part");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  std::thread killer([&] {
    usleep(100000);  // the reader sleeps by then, or finds both at once
    peer.reset(c.theirs);
  });
  char bytes[100];
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, MSG_WAITALL), 4);
  killer.join();
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, 0), 0);
}

TEST_P(Reset, AfterAPartOfAWrite) {
  Connection c = connect_pair();
  std::thread killer([&] {
    EXPECT_EQ(peer.call(PeerOp::poll, c.theirs, POLLIN, 60000).result, POLLIN) << "the write has begun";
    peer.reset(c.theirs);
  });
  const std::vector<char> much(64 << 20, 'w');
  const ssize_t n = send(c.mine, much.data(), much.size(), MSG_NOSIGNAL);
  killer.join();
  EXPECT_GT(n, 0);
  EXPECT_LT(n, static_cast<ssize_t>(much.size()));
  EXPECT_EQ(send(c.mine, much.data(), 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(send(c.mine, much.data(), 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

// TCP_LINGER2 below 0: a closed connection does not wait for the peer's end, whenever its own FIN is acknowledged.
TEST_P(Reset, NegativeLinger2) {
  for (const bool shut_before : {false, true}) {
    Connection c = connect_pair();
    const int none = -1;
    ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_LINGER2, &none, sizeof none), 0);
    ASSERT_EQ(write(c.mine, "last", 4), 4);
    if (shut_before) {
      ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
      EXPECT_EQ(peer.recv_all(c.theirs, 4), "last");
      tcp_info info{};
      socklen_t bytes = sizeof info;
      for (const uint64_t end = now_ms() + 30000; info.tcpi_state != TCP_FIN_WAIT2 && now_ms() < end; wait_for(c.mine, POLLERR, 1)) {
        ASSERT_EQ(getsockopt(c.mine, IPPROTO_TCP, TCP_INFO, &info, &bytes), 0);
      }
    }
    ASSERT_EQ(close(c.mine), 0);
    EXPECT_NE(peer.call(PeerOp::poll, c.theirs, 0, 30000).result & POLLERR, 0) << "shut before: " << shut_before;
  }
}

TEST_P(Reset, LingerWaitsForDelivery) {
  Connection c = connect_pair();
  linger wait{1, 10};
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_LINGER, &wait, sizeof wait), 0);
  linger got{};
  socklen_t size = sizeof got;
  ASSERT_EQ(getsockopt(c.mine, SOL_SOCKET, SO_LINGER, &got, &size), 0);
  EXPECT_EQ(got.l_onoff, 1);
  EXPECT_EQ(got.l_linger, 10);
  ASSERT_EQ(write(c.mine, "delivered", 9), 9);
  ASSERT_EQ(close(c.mine), 0);
  EXPECT_EQ(peer.recv_all(c.theirs, 100), "delivered");
}

// The peer closes; the first write is answered by a reset, later ones fail.
TEST_P(Reset, WritingToAClosedPeer) {
  Connection c = connect_pair();
  peer.close(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, POLLIN) & POLLIN);
  EXPECT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), 1);
  ASSERT_TRUE(wait_for(c.mine, 0) & (POLLERR | POLLHUP));
  EXPECT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE) << "after a FIN a reset is a broken pipe";
  EXPECT_EQ(take_error(c.mine), 0);
}

}  // namespace
