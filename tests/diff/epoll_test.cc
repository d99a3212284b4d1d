// epoll on sockets: level, edge and one-shot, the bits Linux gives, data untouched, several sets, duplicates, nesting.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <set>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr uint64_t kMark = 0xfeedfacecafebeef;

class Epoll : public BothWays {
 protected:
  void SetUp() override { set_ = epoll_create1(EPOLL_CLOEXEC); }
  static int add(int set, int fd, uint32_t events, uint64_t data = kMark) {
    epoll_event event{events, {.u64 = data}};
    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
  }
  static int change(int set, int fd, uint32_t events, uint64_t data = kMark) {
    epoll_event event{events, {.u64 = data}};
    return epoll_ctl(set, EPOLL_CTL_MOD, fd, &event);
  }
  static int remove(int set, int fd) { return epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr); }
  // The bits of the one event there is within `timeout_ms`; 0 if there is none.
  static uint32_t next(int set, int timeout_ms, uint64_t data = kMark) {
    epoll_event event{};
    int count = epoll_wait(set, &event, 1, timeout_ms);
    EXPECT_GE(count, 0) << strerror(errno);
    if (count != 1) return 0;
    EXPECT_EQ(event.data.u64, data);
    return event.events;
  }
  // Waits until poll() shows all of `events`: what has arrived since shows in the set as well.
  static void settle(int fd, short events) {
    for (uint64_t end = now_ms() + 30000; (wait_for(fd, events, 100) & events) != events;) ASSERT_LT(now_ms(), end);
  }
  // Until that many bytes can be read.
  static void settle_bytes(int fd, size_t count) {
    std::vector<char> sink(count);
    ASSERT_EQ(recv(fd, sink.data(), count, MSG_PEEK | MSG_WAITALL), static_cast<ssize_t>(count));
  }
  int set_ = -1;
};
ZPS_BOTH_WAYS(Epoll);

TEST_P(Epoll, LevelTellsAsLongAsItIsTrue) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN), 0);
  EXPECT_EQ(next(set_, 0), 0u);
  peer.send(c.theirs, "ab");
  EXPECT_EQ(next(set_, 30000), EPOLLIN);
  EXPECT_EQ(next(set_, 0), EPOLLIN);
  settle_bytes(c.mine, 2);
  read_all(c.mine, 1);
  EXPECT_EQ(next(set_, 0), EPOLLIN);
  read_all(c.mine, 1);
  EXPECT_EQ(next(set_, 0), 0u);
}

TEST_P(Epoll, EdgeTellsOncePerArrival) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLET), 0);
  EXPECT_EQ(next(set_, 0), 0u);
  peer.send(c.theirs, "a");
  EXPECT_EQ(next(set_, 30000), EPOLLIN);
  EXPECT_EQ(next(set_, 0), 0u) << "nothing new";
  peer.send(c.theirs, "b");
  EXPECT_EQ(next(set_, 30000), EPOLLIN) << "new bytes are a new edge though the old were not read";
  read_all(c.mine, 2);
  EXPECT_EQ(next(set_, 0), 0u);
  ASSERT_EQ(change(set_, c.mine, EPOLLIN | EPOLLOUT | EPOLLET), 0);
  EXPECT_EQ(next(set_, 0), EPOLLOUT) << "a change looks again";
  EXPECT_EQ(next(set_, 0), 0u);
}

TEST_P(Epoll, EdgeOfWritingAfterTheQueueWasFull) {
  Connection c = connect_pair();
  fcntl(c.mine, F_SETFL, O_NONBLOCK);
  ASSERT_EQ(add(set_, c.mine, EPOLLOUT | EPOLLET), 0);
  EXPECT_EQ(next(set_, 0), EPOLLOUT);
  std::vector<char> block(65536);
  while (write(c.mine, block.data(), block.size()) > 0) {
  }
  EXPECT_EQ(errno, EAGAIN);
  peer.start(PeerOp::drain, c.theirs);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT);
}

TEST_P(Epoll, OneShotRestsUntilChanged) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLONESHOT), 0);
  peer.send(c.theirs, "a");
  EXPECT_EQ(next(set_, 30000), EPOLLIN);
  EXPECT_EQ(next(set_, 0), 0u);
  peer.send(c.theirs, "b");
  settle_bytes(c.mine, 2);
  EXPECT_EQ(next(set_, 0), 0u);
  ASSERT_EQ(change(set_, c.mine, EPOLLIN | EPOLLONESHOT), 0);
  EXPECT_EQ(next(set_, 0), EPOLLIN);
  EXPECT_EQ(next(set_, 0), 0u);
}

TEST_P(Epoll, BitsOfAHalfClose) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLOUT | EPOLLRDHUP), 0);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT);
  peer.shutdown(c.theirs, SHUT_WR);
  settle(c.mine, POLLIN | POLLRDHUP);
  EXPECT_EQ(next(set_, 0), EPOLLIN | EPOLLOUT | EPOLLRDHUP);
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(next(set_, 0), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP);
}

TEST_P(Epoll, BitsOfAReset) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, 0), 0);
  EXPECT_EQ(next(set_, 0), 0u);
  peer.reset(c.theirs);
  EXPECT_EQ(next(set_, 30000), EPOLLERR | EPOLLHUP) << "told without being asked for";
  ASSERT_EQ(change(set_, c.mine, EPOLLIN | EPOLLOUT | EPOLLRDHUP), 0);
  EXPECT_EQ(next(set_, 0), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP);
}

TEST_P(Epoll, BitsOfOwnShutdown) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLOUT | EPOLLRDHUP), 0);
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT);
  ASSERT_EQ(shutdown(c.mine, SHUT_RD), 0);
  EXPECT_EQ(next(set_, 30000), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP);
}

TEST_P(Epoll, FreshAndListeningSockets) {
  int fresh = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(add(set_, fresh, EPOLLIN | EPOLLOUT | EPOLLRDHUP), 0);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT | EPOLLHUP) << "a socket that was never connected";
  sockaddr_in at{};
  int listener = listen_here(&at);
  ASSERT_EQ(remove(set_, fresh), 0);
  ASSERT_EQ(add(set_, listener, EPOLLIN | EPOLLOUT), 0);
  EXPECT_EQ(next(set_, 0), 0u);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  EXPECT_EQ(next(set_, 30000), EPOLLIN);
}

// sk_write_space() and sk_state_change() are called though nothing has changed.
TEST_P(Epoll, OptionsAndShutdownsThatAreEdges) {
  Connection c = connect_pair();
  const int listener_set = epoll_create1(EPOLL_CLOEXEC);
  ASSERT_EQ(add(set_, c.mine, EPOLLOUT | EPOLLET), 0);
  EXPECT_EQ(next(set_, 0), EPOLLOUT);
  EXPECT_EQ(next(set_, 0), 0u);
  const int bytes = 100000;
  for (const auto& [level, name] : {std::pair<int, int>(IPPROTO_TCP, TCP_NOTSENT_LOWAT), std::pair<int, int>(SOL_SOCKET, SO_SNDBUF)}) {
    ASSERT_EQ(setsockopt(c.mine, level, name, &bytes, sizeof bytes), 0);
    EXPECT_EQ(next(set_, 0), EPOLLOUT) << name;
    EXPECT_EQ(next(set_, 0), 0u) << name;
  }
  sockaddr_in at{};
  const int listener = listen_here(&at);
  ASSERT_EQ(add(listener_set, listener, EPOLLIN | EPOLLET), 0);
  EXPECT_EQ(shutdown(listener, SHUT_WR), 0);
  EXPECT_EQ(next(listener_set, 0), 0u) << "nobody has come";
  ASSERT_EQ(peer.connect(peer.socket(), at).result, 0);
  EXPECT_EQ(next(listener_set, 30000), EPOLLIN);
  EXPECT_EQ(next(listener_set, 0), 0u);
  EXPECT_EQ(shutdown(listener, SHUT_WR), 0);
  EXPECT_EQ(next(listener_set, 0), EPOLLIN);
  EXPECT_EQ(next(listener_set, 0), 0u);
}

// Registered before listen() or connect(): the decision which side serves it falls while it is in a set.
TEST_P(Epoll, RegisteredBeforeItsSideIsKnown) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  ASSERT_EQ(add(set_, fd, EPOLLIN | EPOLLOUT | EPOLLET), 0);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT | EPOLLHUP);
  sockaddr_in at{};
  int listener = peer.listen(&at);
  connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT);
  int theirs = static_cast<int>(peer.accept(listener).result);
  peer.send(theirs, "x");
  EXPECT_TRUE(next(set_, 30000) & EPOLLIN);
}

// What goes to the kernel for good keeps its place in every set.
TEST_P(Epoll, RegisteredBeforeItIsTheKernels) {
  const Connection stack = connect_pair();  // there is one now
  sockaddr_in loop = self_address();
  loop.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), fd = socket(AF_INET, SOCK_STREAM, 0),
            once = socket(AF_INET, SOCK_STREAM, 0);
  const int listener_set = epoll_create1(EPOLL_CLOEXEC), once_set = epoll_create1(EPOLL_CLOEXEC);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&loop), sizeof loop), 0);
  ASSERT_EQ(add(listener_set, listener, EPOLLIN | EPOLLONESHOT), 0);
  ASSERT_EQ(add(set_, fd, EPOLLOUT | EPOLLET), 0);
  ASSERT_EQ(add(once_set, once, EPOLLIN | EPOLLONESHOT), 0);
  EXPECT_EQ(next(listener_set, 0), EPOLLHUP);
  ASSERT_EQ(listen(listener, 4), 0);
  socklen_t bytes = sizeof loop;
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&loop), &bytes), 0);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&loop), sizeof loop), 0);
  ASSERT_EQ(connect(once, reinterpret_cast<sockaddr*>(&loop), sizeof loop), 0);
  EXPECT_EQ(next(set_, 0), EPOLLOUT);
  EXPECT_EQ(next(set_, 0), 0u);
  EXPECT_EQ(next(listener_set, 0), 0u) << "it has fired";
  ASSERT_EQ(change(listener_set, listener, EPOLLIN | EPOLLONESHOT), 0);
  EXPECT_EQ(next(listener_set, 30000), EPOLLIN);
  EXPECT_EQ(next(listener_set, 0), 0u);
  EXPECT_GE(accept(listener, nullptr, nullptr), 0);
  const int third = accept(listener, nullptr, nullptr);
  EXPECT_EQ(next(once_set, 0), 0u);
  ASSERT_EQ(write(third, "x", 1), 1);
  EXPECT_EQ(next(once_set, 30000), EPOLLIN);
  ASSERT_EQ(write(third, "y", 1), 1);
  EXPECT_EQ(next(once_set, 0), 0u);
  close(stack.mine);
}

// A listener on both sides is one file: what fires once does so for whichever side comes first, and not again for the other.
TEST_P(Epoll, OneShotOfAListenerOnBothSides) {
  for (const bool kernel_first : {false, true}) {
    sockaddr_in at{};
    const int listener = listen_here(&at, 16, SOCK_NONBLOCK);
    sockaddr_in loop = at;
    loop.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int set = epoll_create1(EPOLL_CLOEXEC);
    ASSERT_EQ(add(set, listener, EPOLLIN | EPOLLONESHOT), 0);
    for (int round = 0; round < 3; round++) {
      for (const bool by_kernel : {kernel_first, !kernel_first}) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        const sockaddr_in to = by_kernel ? loop : at;
        if (by_kernel) {
          ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
        } else {
          ASSERT_EQ(peer.connect(peer.socket(), to).result, 0);
        }
        wait_for(listener, POLLIN);
        EXPECT_EQ(next(set, by_kernel == kernel_first ? 10000 : 0), by_kernel == kernel_first ? EPOLLIN : 0u) << by_kernel << round;
        EXPECT_EQ(next(set, 1), 0u) << by_kernel << round;
        EXPECT_EQ(wait_for(set, POLLIN, 0), 0) << by_kernel << round;
      }
      ASSERT_EQ(change(set, listener, EPOLLIN | EPOLLONESHOT, 77), 0);
      EXPECT_EQ(next(set, 10000, 77), EPOLLIN);
      EXPECT_EQ(next(set, 1, 77), 0u);
      for (int fd; (fd = accept(listener, nullptr, nullptr)) >= 0;) close(fd);
      ASSERT_EQ(change(set, listener, EPOLLIN | EPOLLONESHOT), 0);
      EXPECT_EQ(next(set, 0), 0u);
    }
    close(set);
    close(listener);
  }
}

// Fired before it was known which side serves it: it stays silent until it is changed.
TEST_P(Epoll, OneShotFiredBeforeItsSideIsKnown) {
  sockaddr_in at{};
  const int listener = peer.listen(&at);
  const int fd = socket(AF_INET, SOCK_STREAM, 0), own = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  ASSERT_EQ(add(set_, fd, EPOLLOUT | EPOLLONESHOT), 0);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT | EPOLLHUP);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  EXPECT_EQ(next(set_, 0), 0u);
  ASSERT_EQ(change(set_, fd, EPOLLOUT | EPOLLONESHOT), 0);
  EXPECT_EQ(next(set_, 0), EPOLLOUT);
  EXPECT_EQ(next(set_, 0), 0u);
  const int listener_set = epoll_create1(EPOLL_CLOEXEC);
  ASSERT_EQ(add(listener_set, own, EPOLLIN | EPOLLONESHOT), 0);
  EXPECT_EQ(next(listener_set, 30000), EPOLLHUP);
  ASSERT_EQ(listen(own, 4), 0);
  socklen_t bytes = sizeof at;
  ASSERT_EQ(getsockname(own, reinterpret_cast<sockaddr*>(&at), &bytes), 0);
  at.sin_addr = self_address().sin_addr;
  ASSERT_EQ(peer.connect(peer.socket(), at).result, 0);
  wait_for(own, POLLIN);
  EXPECT_EQ(next(listener_set, 1), 0u);
  ASSERT_EQ(change(listener_set, own, EPOLLIN | EPOLLONESHOT), 0);
  EXPECT_EQ(next(listener_set, 30000), EPOLLIN);
  peer.close(listener);
}

TEST_P(Epoll, NonBlockingConnectEndsInEpollout) {
  sockaddr_in at{};
  int listener = peer.listen(&at);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at);
  ASSERT_EQ(add(set_, fd, EPOLLIN | EPOLLOUT | EPOLLET), 0);
  EXPECT_EQ(next(set_, 30000), EPOLLOUT);
  peer.close(listener);
  fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at);
  ASSERT_EQ(add(set_, fd, EPOLLIN | EPOLLOUT | EPOLLET, 5), 0);
  epoll_event events[2];
  for (uint32_t seen = 0; !(seen & EPOLLERR);) {
    int count = epoll_wait(set_, events, 2, 10000);
    ASSERT_GT(count, 0);
    for (int i = 0; i < count; i++)
      if (events[i].data.u64 == 5) seen = events[i].events;
    if (seen & EPOLLERR) {
      EXPECT_EQ(seen, EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP);
    }
  }
}

TEST_P(Epoll, InSeveralSets) {
  Connection c = connect_pair();
  int second = epoll_create1(0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
  ASSERT_EQ(add(second, c.mine, EPOLLIN | EPOLLET, 2), 0);
  peer.send(c.theirs, "x");
  EXPECT_EQ(next(set_, 10000, 1), EPOLLIN);
  EXPECT_EQ(next(second, 10000, 2), EPOLLIN);
  EXPECT_EQ(next(set_, 0, 1), EPOLLIN);
  EXPECT_EQ(next(second, 0, 2), 0u);
  ASSERT_EQ(remove(set_, c.mine), 0);
  peer.send(c.theirs, "y");
  EXPECT_EQ(next(second, 10000, 2), EPOLLIN);
  EXPECT_EQ(next(set_, 0, 1), 0u);
}

TEST_P(Epoll, DuplicatesAreTheirOwnEntries) {
  Connection c = connect_pair();
  int copy = dup(c.mine);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
  EXPECT_EQ(add(set_, c.mine, EPOLLIN, 1), -1);
  EXPECT_EQ(errno, EEXIST);
  ASSERT_EQ(add(set_, copy, EPOLLIN, 2), 0);
  peer.send(c.theirs, "x");
  settle_bytes(c.mine, 1);
  epoll_event events[4];
  ASSERT_EQ(epoll_wait(set_, events, 4, 30000), 2);
  EXPECT_EQ(events[0].data.u64 + events[1].data.u64, 3u);
  ASSERT_EQ(remove(set_, c.mine), 0);
  EXPECT_EQ(next(set_, 1000, 2), EPOLLIN);
}

TEST_P(Epoll, LastCloseRemoves) {
  Connection c = connect_pair();
  int copy = dup(c.mine);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN), 0);
  peer.send(c.theirs, "x");
  settle_bytes(c.mine, 1);
  close(c.mine);
  EXPECT_EQ(next(set_, 0), EPOLLIN) << "the duplicate keeps the entry alive";
  close(copy);
  EXPECT_EQ(next(set_, 0), 0u);
  Connection again = connect_pair();
  EXPECT_EQ(add(set_, again.mine, EPOLLIN, 3), 0) << "the number may be used anew";
}

TEST_P(Epoll, ManyAreFair) {
  std::vector<Connection> all;
  for (int i = 0; i < 16; i++) {
    all.push_back(connect_pair());
    ASSERT_EQ(add(set_, all.back().mine, EPOLLIN, static_cast<uint64_t>(i)), 0);
    peer.send(all.back().theirs, "x");
  }
  for (Connection& c : all) settle_bytes(c.mine, 1);
  std::set<uint64_t> seen;
  for (int round = 0; round < 8; round++) {
    epoll_event events[3];
    int count = epoll_wait(set_, events, 3, 1000);
    ASSERT_EQ(count, 3) << "as many as asked for, and no more";
    for (int i = 0; i < count; i++) seen.insert(events[i].data.u64);
  }
  EXPECT_EQ(seen.size(), 16u) << "those that were told go to the end of the line";
}

// A program that accepts one connection a turn comes to do so in each, and to all the others.
TEST_P(Epoll, AListenerBesideManyIsFair) {
  constexpr int kOthers = 40, kWaiting = 4;
  constexpr uint64_t kListener = 1000;
  sockaddr_in at{};
  const int listener = listen_here(&at);
  ASSERT_EQ(add(set_, listener, EPOLLIN, kListener), 0);
  std::vector<Connection> all;
  for (int i = 0; i < kOthers; i++) {
    all.push_back(connect_pair());
    ASSERT_EQ(add(set_, all.back().mine, EPOLLIN, static_cast<uint64_t>(i)), 0);
    peer.send(all.back().theirs, "x");
  }
  for (Connection& c : all) settle_bytes(c.mine, 1);
  for (int i = 0; i < kWaiting; i++) ASSERT_EQ(peer.connect(peer.socket(), at).result, 0);
  std::set<uint64_t> seen;
  for (int turn = 0; turn < kWaiting; turn++) {
    epoll_event events[2 * kOthers];
    const int count = epoll_wait(set_, events, 2 * kOthers, 10000);
    ASSERT_GT(count, 1);
    for (int i = 0; i < count; i++) seen.insert(events[i].data.u64);
    ASSERT_EQ(seen.erase(kListener), 1u) << turn;
    EXPECT_GE(accept(listener, nullptr, nullptr), 0);
  }
  EXPECT_EQ(seen.size(), size_t{kOthers});
  epoll_event events[2 * kOthers];
  EXPECT_EQ(epoll_wait(set_, events, 2 * kOthers, 0), kOthers) << "nobody waits to be accepted";
}

// ep_poll_callback() calls the sets that hold a set at each event of its files, also of one that is ready already.
TEST_P(Epoll, EdgesOfANestedSet) {
  Connection c = connect_pair();
  const int outer = epoll_create1(EPOLL_CLOEXEC);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLOUT), 0);
  ASSERT_EQ(add(outer, set_, EPOLLIN | EPOLLET, 7), 0);
  EXPECT_EQ(next(outer, 0, 7), EPOLLIN);
  EXPECT_EQ(next(outer, 0, 7), 0u);
  for (int turn = 0; turn < 3; turn++) {
    peer.send(c.theirs, "x");
    ASSERT_EQ(next(outer, 10000, 7), EPOLLIN) << turn;
    EXPECT_EQ(next(outer, 0, 7), 0u) << turn;
  }
  ASSERT_EQ(change(set_, c.mine, EPOLLIN | EPOLLOUT), 0);
  EXPECT_EQ(next(outer, 0, 7), 0u) << "ready already, and nothing has come";
  EXPECT_EQ(next(set_, 0), EPOLLIN | EPOLLOUT);
  EXPECT_EQ(next(outer, 0, 7), 0u) << "what stays ready is no edge";
  EXPECT_EQ(close(outer), 0);
}

TEST_P(Epoll, Nested) {
  Connection c = connect_pair();
  int outer = epoll_create1(0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
  ASSERT_EQ(add(outer, set_, EPOLLIN, 2), 0);
  EXPECT_EQ(next(outer, 0, 2), 0u);
  EXPECT_EQ(wait_for(set_, POLLIN, 0), 0);
  peer.send(c.theirs, "x");
  EXPECT_EQ(next(outer, 10000, 2), EPOLLIN);
  EXPECT_EQ(wait_for(set_, POLLIN), POLLIN) << "a set is pollable itself";
  EXPECT_EQ(next(set_, 0, 1), EPOLLIN);
  read_all(c.mine, 1);
  EXPECT_EQ(next(outer, 0, 2), 0u);
}

TEST_P(Epoll, ASetSharedByADuplicate) {
  Connection c = connect_pair();
  int copy = dup(set_);
  ASSERT_EQ(add(copy, c.mine, EPOLLIN), 0);
  peer.send(c.theirs, "x");
  EXPECT_EQ(next(set_, 30000), EPOLLIN);
  close(set_);
  EXPECT_EQ(next(copy, 0), EPOLLIN);
}

TEST_P(Epoll, ExclusiveIsAccepted) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  ASSERT_EQ(add(set_, listener, EPOLLIN | EPOLLEXCLUSIVE), 0) << strerror(errno);
  EXPECT_EQ(change(set_, listener, EPOLLIN), -1);
  EXPECT_EQ(errno, EINVAL);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  EXPECT_EQ(next(set_, 30000), EPOLLIN);
}

TEST_P(Epoll, WrongArguments) {
  Connection c = connect_pair();
  epoll_event event{};
  EXPECT_EQ(change(set_, c.mine, EPOLLIN), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(remove(set_, c.mine), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(add(set_, 999, EPOLLIN), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(add(999, c.mine, EPOLLIN), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(add(set_, set_, EPOLLIN), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(add(c.mine, set_, EPOLLIN), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(epoll_ctl(set_, 99, c.mine, &event), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(epoll_ctl(set_, EPOLL_CTL_ADD, c.mine, nullptr), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(epoll_wait(set_, &event, 0, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  volatile int negative = -1;
  EXPECT_EQ(epoll_wait(set_, &event, negative, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(epoll_wait(c.mine, &event, 1, 0), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(epoll_wait(999, &event, 1, 0), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(epoll_create(0), -1);
  EXPECT_EQ(errno, EINVAL);
}

}  // namespace
