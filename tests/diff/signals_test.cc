// Signals during waits and traffic: EINTR, SA_RESTART, storms, handlers that make socket calls, siglongjmp.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

volatile sig_atomic_t handled;
void on_alarm(int) { handled = handled + 1; }

class Signals : public BothWays {
 protected:
  static void handle(int flags, void (*handler)(int) = on_alarm) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(SIGALRM, &action, nullptr);
    handled = 0;
  }
  // SIGALRM every `us` microseconds until stop_alarms(), so that one falls into the wait however late the machine is.
  static void start_alarms(int us) {
    itimerval every{{0, us}, {0, us}};
    setitimer(ITIMER_REAL, &every, nullptr);
  }
  static void stop_alarms() {
    itimerval none{};
    setitimer(ITIMER_REAL, &none, nullptr);
  }
  void TearDown() override { stop_alarms(); }
};
ZPS_BOTH_WAYS(Signals);

TEST_P(Signals, InterruptBlockingCalls) {
  Connection c = connect_pair();
  sockaddr_in at{};
  int listener = listen_here(&at), set = epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 1}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  handle(0);
  start_alarms(20000);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_GE(handled, 1);
  EXPECT_EQ(recv(c.mine, &byte, 1, MSG_PEEK), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_EQ(accept(listener, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_EQ(epoll_wait(set, &event, 1, 10000), -1);
  EXPECT_EQ(errno, EINTR);
  pollfd one{c.mine, POLLIN, 0};
  EXPECT_EQ(poll(&one, 1, 10000), -1);
  EXPECT_EQ(errno, EINTR);
  fd_set reads;
  FD_ZERO(&reads);
  FD_SET(c.mine, &reads);
  EXPECT_EQ(select(c.mine + 1, &reads, nullptr, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EINTR);
}

TEST_P(Signals, InterruptAFullWrite) {
  Connection c = connect_pair();
  handle(0);
  std::vector<char> block(64 << 20);
  start_alarms(100000);
  ssize_t count = write(c.mine, block.data(), block.size());
  EXPECT_GT(count, 0) << "what was written before counts";
  EXPECT_LT(count, static_cast<ssize_t>(block.size()));
}

// SA_RESTART is for calls that have moved nothing yet.
TEST_P(Signals, WhatWasMovedEndsTheCall) {
  Connection c = connect_pair();
  handle(SA_RESTART);
  peer.send(c.theirs, "part");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  start_alarms(50000);
  char bytes[100];
  EXPECT_EQ(recv(c.mine, bytes, sizeof bytes, MSG_WAITALL), 4);
  const std::vector<char> block(64 << 20);
  const ssize_t count = write(c.mine, block.data(), block.size());
  EXPECT_GT(count, 0);
  EXPECT_LT(count, static_cast<ssize_t>(block.size()));
}

// With SA_RESTART reads and accepts go on; waits for readiness are interrupted all the same.
TEST_P(Signals, Restart) {
  Connection c = connect_pair();
  handle(SA_RESTART);
  sockaddr_in at{};
  int listener = listen_here(&at);
  pid_t self = getpid();
  pid_t child = fork();
  if (child == 0) {
    // Ten signals, each after the one before was handled or not: the reader must outlast them all.
    for (int i = 0; i < 10; i++) {
      kill(self, SIGALRM);
      poll(nullptr, 0, 5);
    }
    _exit(0);
  }
  int job = peer.start(PeerOp::poll, c.theirs, POLLIN, 300);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  peer.finish(job);
  EXPECT_GE(handled, 1);

  handled = 0;
  start_alarms(10000);
  // The peer answers only after a while in which it looks for data that never comes: no sleep of ours.
  int wait_job = peer.start(PeerOp::poll, c.theirs, POLLIN, 200);
  std::string got;
  std::vector<char> byte(1);
  pid_t speaker = fork();
  if (speaker == 0) {
    itimerval none{};
    setitimer(ITIMER_REAL, &none, nullptr);
    poll(nullptr, 0, 200);
    ssize_t ignored = write(c.mine, "?", 1);
    _exit(ignored == 1 ? 0 : 1);
  }
  int echo_job = peer.start(PeerOp::echo, c.theirs, 1);
  EXPECT_EQ(read(c.mine, byte.data(), 1), 1) << strerror(errno);
  EXPECT_EQ(byte[0], '?');
  EXPECT_GE(handled, 1);
  stop_alarms();
  EXPECT_EQ(waitpid(speaker, &status, 0), speaker);
  EXPECT_EQ(status, 0);
  peer.finish(wait_job);
  peer.finish(echo_job);

  start_alarms(20000);
  pollfd one{listener, POLLIN, 0};
  EXPECT_EQ(poll(&one, 1, 10000), -1);
  EXPECT_EQ(errno, EINTR) << "poll is never restarted";
  int set = epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 1}};
  epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
  EXPECT_EQ(epoll_wait(set, &event, 1, 10000), -1);
  EXPECT_EQ(errno, EINTR) << "neither is epoll_wait";
}

// A receive timeout turns restartable calls into interruptible ones (signal(7)).
TEST_P(Signals, TimeoutForbidsRestart) {
  Connection c = connect_pair();
  handle(SA_RESTART);
  timeval limit{10, 0};
  setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  start_alarms(20000);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), -1);
  EXPECT_EQ(errno, EINTR);
}

TEST_P(Signals, StormDuringTraffic) {
  Connection c = connect_pair();
  const size_t total = 20000000;
  int job = peer.start(PeerOp::echo, c.theirs, total);
  handle(SA_RESTART);
  fcntl(c.mine, F_SETFL, O_NONBLOCK);
  start_alarms(200);
  std::vector<uint8_t> out(50000), in(50000);
  size_t sent = 0, seen = 0;
  while (seen < total) {
    pollfd one{c.mine, static_cast<short>(POLLIN | (sent < total ? POLLOUT : 0)), 0};
    int ready = poll(&one, 1, 20000);
    ASSERT_TRUE(ready == 1 || (ready < 0 && errno == EINTR)) << ready << " sent " << sent << " seen " << seen;
    if (ready < 0) continue;
    if (one.revents & POLLOUT) {
      size_t part = std::min(out.size(), total - sent);
      fill_pattern(3, sent, out.data(), part);
      ssize_t count = write(c.mine, out.data(), part);
      ASSERT_TRUE(count > 0 || errno == EAGAIN) << strerror(errno);
      if (count > 0) sent += static_cast<size_t>(count);
    }
    if (one.revents & POLLIN) {
      ssize_t count = read(c.mine, in.data(), in.size());
      if (count < 0 && errno == EAGAIN) continue;
      ASSERT_GT(count, 0);
      ASSERT_EQ(pattern_mismatch(3, seen, in.data(), static_cast<size_t>(count)), -1);
      seen += static_cast<size_t>(count);
    }
  }
  stop_alarms();
  EXPECT_GT(handled, 50);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(total));
}

int handler_fd;
volatile sig_atomic_t handler_wrote;
void write_from_handler(int) {
  if (handler_wrote == 0 && write(handler_fd, "h", 1) == 1) handler_wrote = 1;
}

TEST_P(Signals, HandlerUsesTheSocket) {
  Connection c = connect_pair();
  handler_fd = c.mine;
  handler_wrote = 0;
  handle(SA_RESTART, write_from_handler);
  peer.start(PeerOp::echo, c.theirs, 1);
  start_alarms(20000);
  char byte = 0;
  EXPECT_EQ(read(c.mine, &byte, 1), 1) << strerror(errno);
  EXPECT_EQ(byte, 'h') << "written by the handler while the read slept";
}

sigjmp_buf jump;
void jump_out(int) { siglongjmp(jump, 1); }

TEST_P(Signals, JumpOutOfABlockingCall) {
  Connection c = connect_pair();
  handle(SA_NODEFER, jump_out);
  static int rounds;
  rounds = 0;
  static Connection where;
  where = c;
  while (rounds < 200) {
    if (sigsetjmp(jump, 1) == 0) {
      itimerval soon{{0, 0}, {0, 500}};
      setitimer(ITIMER_REAL, &soon, nullptr);
      char byte;
      if (read(where.mine, &byte, 1) != -2) rounds += 1000;
    }
    rounds++;
  }
  EXPECT_EQ(rounds, 200) << "every round left by the jump";
  peer.send(c.theirs, "fine");
  EXPECT_EQ(read_all(c.mine, 4), "fine");
}

}  // namespace
