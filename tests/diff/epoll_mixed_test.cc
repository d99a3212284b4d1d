// Stack sockets and kernel descriptors in one wait: epoll, poll and select with pipes, eventfd, timerfd, unix sockets; no starvation.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <thread>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Mixed : public BothWays {
 protected:
  static void add(int set, int fd, uint32_t events, uint64_t data) {
    epoll_event event{events, {.u64 = data}};
    ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0) << strerror(errno);
  }
  static int timer(int ms) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    itimerspec when{{0, 0}, {ms / 1000, ms % 1000 * 1000000 + 1}};
    timerfd_settime(fd, 0, &when, nullptr);
    return fd;
  }
};
ZPS_BOTH_WAYS(Mixed);

TEST_P(Mixed, EveryKindWakesTheSameWait) {
  Connection c = connect_pair();
  int pipe_ends[2], unix_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_ends), 0);
  int event_fd = eventfd(0, EFD_NONBLOCK), timer_fd = timer(50);
  sigset_t signals, before;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &signals, &before);
  int signal_fd = signalfd(-1, &signals, SFD_NONBLOCK);
  int set = epoll_create1(0);
  add(set, c.mine, EPOLLIN, 1);
  add(set, pipe_ends[0], EPOLLIN, 2);
  add(set, unix_ends[0], EPOLLIN, 3);
  add(set, event_fd, EPOLLIN, 4);
  add(set, timer_fd, EPOLLIN, 5);
  add(set, signal_fd, EPOLLIN, 6);
  epoll_event event{};
  auto expect = [&](uint64_t who) {
    ASSERT_EQ(epoll_wait(set, &event, 1, 30000), 1) << "waiting for " << who;
    EXPECT_EQ(event.data.u64, who);
    EXPECT_EQ(event.events, EPOLLIN);
    char sink[128];
    EXPECT_GT(read(who == 1   ? c.mine
                   : who == 2 ? pipe_ends[0]
                   : who == 3 ? unix_ends[0]
                   : who == 4 ? event_fd
                   : who == 5 ? timer_fd
                              : signal_fd,
                   sink, sizeof sink),
              0);
  };
  expect(5);
  ASSERT_EQ(write(pipe_ends[1], "x", 1), 1);
  expect(2);
  peer.send(c.theirs, "x");
  expect(1);
  ASSERT_EQ(write(unix_ends[1], "x", 1), 1);
  expect(3);
  uint64_t one = 1;
  ASSERT_EQ(write(event_fd, &one, sizeof one), 8);
  expect(4);
  kill(getpid(), SIGUSR2);
  expect(6);
  EXPECT_EQ(epoll_wait(set, &event, 1, 0), 0);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Both kinds always ready, one event per call: each must be told.
TEST_P(Mixed, NobodyStarves) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  peer.send(c.theirs, "x");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  int set = epoll_create1(0);
  add(set, c.mine, EPOLLIN, 1);
  add(set, ends[0], EPOLLIN, 2);
  std::map<uint64_t, int> told;
  for (int i = 0; i < 200; i++) {
    epoll_event event{};
    ASSERT_EQ(epoll_wait(set, &event, 1, 30000), 1);
    told[event.data.u64]++;
  }
  EXPECT_GE(told[1], 4);
  EXPECT_GE(told[2], 4);
}

// A stream that is busy all the time does not keep a pipe from being seen.
TEST_P(Mixed, BusyTrafficLetsKernelDescriptorsThrough) {
  Connection c = connect_pair();
  const int64_t total = 20000000;
  int job = peer.start(PeerOp::send_pattern, c.theirs, 1, total, 65536);
  int timer_fd = timer(5), set = epoll_create1(0);
  add(set, c.mine, EPOLLIN, 1);
  add(set, timer_fd, EPOLLIN, 2);
  int64_t seen = 0, ticks = 0;
  std::string sink(16384, '\0');
  while (seen < total) {
    epoll_event event{};
    ASSERT_EQ(epoll_wait(set, &event, 1, 30000), 1);
    if (event.data.u64 == 2) {
      uint64_t count;
      ASSERT_EQ(read(timer_fd, &count, sizeof count), 8);
      ticks++;
      itimerspec again{{0, 0}, {0, 1000000}};
      timerfd_settime(timer_fd, 0, &again, nullptr);
      continue;
    }
    ssize_t count = read(c.mine, sink.data(), sink.size());
    ASSERT_GT(count, 0);
    seen += count;
  }
  EXPECT_EQ(peer.finish(job).result, total);
  EXPECT_GT(ticks, 0);
}

TEST_P(Mixed, AnotherThreadWakesByEventfd) {
  Connection c = connect_pair();
  int event_fd = eventfd(0, 0), set = epoll_create1(0);
  add(set, c.mine, EPOLLIN, 1);
  add(set, event_fd, EPOLLIN, 2);
  for (int round = 0; round < 200; round++) {
    std::thread waker([&] {
      uint64_t one = 1;
      EXPECT_EQ(write(event_fd, &one, sizeof one), 8);
    });
    epoll_event event{};
    ASSERT_EQ(epoll_wait(set, &event, 1, 30000), 1);
    EXPECT_EQ(event.data.u64, 2u);
    uint64_t value;
    ASSERT_EQ(read(event_fd, &value, sizeof value), 8);
    waker.join();
  }
}

TEST_P(Mixed, AddedWhileAnotherThreadWaits) {
  Connection c = connect_pair();
  int set = epoll_create1(0);
  epoll_event event{};
  int count = -1;
  std::thread waiter([&] { count = epoll_wait(set, &event, 1, 10000); });
  add(set, c.mine, EPOLLIN, 7);
  peer.send(c.theirs, "x");
  waiter.join();
  EXPECT_EQ(count, 1);
  EXPECT_EQ(event.data.u64, 7u);
}

TEST_P(Mixed, PollSeesBothKinds) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pollfd all[5] = {{c.mine, POLLIN, 0}, {ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}, {-1, POLLIN, 77}, {800, POLLIN, 0}};
  EXPECT_EQ(poll(all, 5, 30000), 2);
  EXPECT_EQ(all[0].revents, 0);
  EXPECT_EQ(all[1].revents, 0);
  EXPECT_EQ(all[2].revents, POLLOUT);
  EXPECT_EQ(all[3].revents, 0) << "a negative descriptor is left out";
  EXPECT_EQ(all[4].revents, POLLNVAL);
  peer.send(c.theirs, "x");
  pollfd two[2] = {{c.mine, POLLIN, 0}, {ends[0], POLLIN, 0}};
  EXPECT_EQ(poll(two, 2, 30000), 1);
  EXPECT_EQ(two[0].revents, POLLIN);
  read_all(c.mine, 1);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  EXPECT_EQ(poll(two, 2, 30000), 1);
  EXPECT_EQ(two[1].revents, POLLIN);
  pollfd twice[2] = {{c.mine, POLLOUT, 0}, {c.mine, POLLIN | POLLOUT, 0}};
  EXPECT_EQ(poll(twice, 2, 30000), 2);
  EXPECT_EQ(poll(nullptr, 0, 1), 0);
}

TEST_P(Mixed, PollWokenFromBothSides) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  for (int round = 0; round < 50; round++) {
    pollfd two[2] = {{c.mine, POLLIN, 0}, {ends[0], POLLIN, 0}};
    std::thread waker([&] {
      int to = round % 2 == 0 ? ends[1] : c.mine;
      EXPECT_EQ(write(to, "x", 1), 1);
    });
    if (round % 2 == 1) peer.start(PeerOp::echo, c.theirs, 1);
    ASSERT_EQ(poll(two, 2, 30000), 1);
    EXPECT_EQ(two[round % 2 == 0 ? 1 : 0].revents, POLLIN);
    read_all(round % 2 == 0 ? ends[0] : c.mine, 1);
    waker.join();
  }
}

TEST_P(Mixed, SelectSeesBothKinds) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  fd_set reads, writes, errors;
  FD_ZERO(&reads);
  FD_ZERO(&writes);
  FD_ZERO(&errors);
  FD_SET(c.mine, &reads);
  FD_SET(ends[0], &reads);
  FD_SET(c.mine, &writes);
  FD_SET(ends[1], &writes);
  FD_SET(c.mine, &errors);
  int top = std::max(c.mine, ends[1]) + 1;
  timeval limit{10, 0};
  EXPECT_EQ(select(top, &reads, &writes, &errors, &limit), 2);
  EXPECT_FALSE(FD_ISSET(c.mine, &reads) || FD_ISSET(ends[0], &reads) || FD_ISSET(c.mine, &errors));
  EXPECT_TRUE(FD_ISSET(c.mine, &writes) && FD_ISSET(ends[1], &writes));
  peer.send(c.theirs, "x");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  FD_ZERO(&reads);
  FD_SET(c.mine, &reads);
  FD_SET(ends[0], &reads);
  timespec precise{10, 0};
  EXPECT_EQ(pselect(top, &reads, nullptr, nullptr, &precise, nullptr), 2);
  FD_SET(850, &reads);
  EXPECT_EQ(select(851, &reads, nullptr, nullptr, &limit), -1);
  EXPECT_EQ(errno, EBADF);
}

volatile sig_atomic_t handled;
void on_signal(int) { handled = handled + 1; }

// The mask is in force only during the wait: a pending blocked signal interrupts at once.
TEST_P(Mixed, MasksAreAtomic) {
  Connection c = connect_pair();
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGUSR1, &action, nullptr);
  sigset_t block, none, before;
  sigemptyset(&none);
  sigemptyset(&block);
  sigaddset(&block, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &block, &before);
  int set = epoll_create1(0);
  add(set, c.mine, EPOLLIN, 1);
  epoll_event event{};
  pollfd one{c.mine, POLLIN, 0};
  timespec limit{10, 0};
  fd_set reads;
  FD_ZERO(&reads);
  FD_SET(c.mine, &reads);
  for (int kind = 0; kind < 4; kind++) {
    handled = 0;
    kill(getpid(), SIGUSR1);
    EXPECT_EQ(handled, 0);
    int result = kind == 0   ? epoll_pwait(set, &event, 1, 10000, &none)
                 : kind == 1 ? ppoll(&one, 1, &limit, &none)
                 : kind == 2 ? pselect(c.mine + 1, &reads, nullptr, nullptr, &limit, &none)
                             : epoll_pwait2(set, &event, 1, &limit, &none);
    EXPECT_EQ(result, -1) << kind;
    EXPECT_EQ(errno, EINTR) << kind;
    EXPECT_EQ(handled, 1) << kind;
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    EXPECT_EQ(sigismember(&now, SIGUSR1), 1) << "the old mask is back, " << kind;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace
