// Registrations that are removed and made again: what event loops with one list per direction do several times per request.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class EpollAgain : public BothWays {
 protected:
  void SetUp() override { set_ = epoll_create1(EPOLL_CLOEXEC); }
  static int control(int set, int operation, int fd, uint32_t events = 0, uint64_t data = 0) {
    epoll_event event{events, {.u64 = data}};
    return epoll_ctl(set, operation, fd, &event) == 0 ? 0 : -errno;
  }
  static int add(int set, int fd, uint32_t events, uint64_t data) { return control(set, EPOLL_CTL_ADD, fd, events, data); }
  static int remove(int set, int fd) { return control(set, EPOLL_CTL_DEL, fd); }
  // The data of all events there are now, in their order, each with its bits: "7:in 3:in,out".
  static std::string now(int set, int timeout_ms = 0) {
    epoll_event events[8];
    const int count = epoll_wait(set, events, 8, timeout_ms);
    EXPECT_GE(count, 0) << strerror(errno);
    std::string text;
    for (int i = 0; i < count; i++) {
      if (i > 0) text += ' ';
      text += std::to_string(events[i].data.u64) + ':';
      const uint32_t bits = events[i].events;
      if ((bits & EPOLLIN) != 0) text += "in";
      if ((bits & EPOLLOUT) != 0) text += "out";
      if ((bits & ~(EPOLLIN | EPOLLOUT)) != 0) text += "more";
    }
    return text;
  }
  // A connection whose peer has sent a byte that is here and not read.
  Connection readable() {
    Connection c = connect_pair();
    peer.send(c.theirs, "x");
    char byte;
    EXPECT_EQ(recv(c.mine, &byte, 1, MSG_PEEK), 1);
    return c;
  }
  int set_ = -1;
};
ZPS_BOTH_WAYS(EpollAgain);

TEST_P(EpollAgain, WhatIsRemovedIsNotThere) {
  Connection c = connect_pair();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
  for (int turn = 0; turn < 3; turn++) {
    ASSERT_EQ(remove(set_, c.mine), 0);
    EXPECT_EQ(remove(set_, c.mine), -ENOENT);
    EXPECT_EQ(control(set_, EPOLL_CTL_MOD, c.mine, EPOLLIN, 9), -ENOENT);
    EXPECT_EQ(add(set_, c.mine, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 9), -EINVAL);
    EXPECT_EQ(remove(set_, c.mine), -ENOENT);
    ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
    EXPECT_EQ(add(set_, c.mine, EPOLLIN, 9), -EEXIST);
    EXPECT_EQ(add(set_, c.mine, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 9), -EINVAL);
  }
  ASSERT_EQ(remove(set_, c.mine), 0);
  peer.send(c.theirs, "x");
  char byte;
  EXPECT_EQ(recv(c.mine, &byte, 1, MSG_PEEK), 1);
  EXPECT_EQ(now(set_), "");
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 2), 0);
  EXPECT_EQ(now(set_), "2:in");
  peer.reset(c.theirs);
  ASSERT_EQ(remove(set_, c.mine), 0);
  EXPECT_EQ(now(set_), "");
}

TEST_P(EpollAgain, EventsAndDataAreTheNewOnes) {
  Connection c = readable();
  ASSERT_EQ(add(set_, c.mine, EPOLLOUT, 1), 0);
  EXPECT_EQ(now(set_), "1:out");
  ASSERT_EQ(remove(set_, c.mine), 0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 0xffff'ffff'0000'0001), 0);
  EXPECT_EQ(now(set_), std::to_string(0xffff'ffff'0000'0001) + ":in");
  ASSERT_EQ(remove(set_, c.mine), 0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLOUT, 3), 0);
  EXPECT_EQ(now(set_), "3:inout");
  ASSERT_EQ(remove(set_, c.mine), 0);
  ASSERT_EQ(add(set_, c.mine, 0, 4), 0);
  EXPECT_EQ(now(set_), "");
}

TEST_P(EpollAgain, AnEdgeIsToldAnew) {
  Connection c = readable();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLET, 1), 0);
  EXPECT_EQ(now(set_), "1:in");
  EXPECT_EQ(now(set_), "");
  ASSERT_EQ(remove(set_, c.mine), 0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLET, 2), 0);
  EXPECT_EQ(now(set_), "2:in") << "what was there at the registration is an edge";
  EXPECT_EQ(now(set_), "");
  ASSERT_EQ(remove(set_, c.mine), 0);
  read_all(c.mine, 1);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLET, 3), 0);
  EXPECT_EQ(now(set_), "");
  peer.send(c.theirs, "y");
  EXPECT_EQ(now(set_, 10000), "3:in");
  EXPECT_EQ(now(set_), "");
}

TEST_P(EpollAgain, AOneShotThatFiredIsFresh) {
  Connection c = readable();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLONESHOT, 1), 0);
  EXPECT_EQ(now(set_), "1:in");
  EXPECT_EQ(now(set_), "");
  ASSERT_EQ(remove(set_, c.mine), 0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLONESHOT, 2), 0);
  EXPECT_EQ(now(set_), "2:in");
  EXPECT_EQ(now(set_), "");
  EXPECT_EQ(add(set_, c.mine, EPOLLIN, 3), -EEXIST) << "it rests, but it is there";
  ASSERT_EQ(remove(set_, c.mine), 0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 4), 0);
  EXPECT_EQ(now(set_), "4:in");
  EXPECT_EQ(now(set_), "4:in");
}

TEST_P(EpollAgain, TheReadyOneGoesToTheEndOfTheLine) {
  Connection all[3];
  for (int i = 0; i < 3; i++) {
    all[i] = readable();
    ASSERT_EQ(add(set_, all[i].mine, EPOLLIN | EPOLLET, static_cast<uint64_t>(i)), 0);
  }
  ASSERT_EQ(remove(set_, all[0].mine), 0);
  ASSERT_EQ(add(set_, all[0].mine, EPOLLIN | EPOLLET, 0), 0);
  EXPECT_EQ(now(set_), "1:in 2:in 0:in");
  EXPECT_EQ(now(set_), "");
}

TEST_P(EpollAgain, ClosedInBetween) {
  Connection c = readable();
  const int number = c.mine;
  ASSERT_EQ(add(set_, number, EPOLLIN, 1), 0);
  ASSERT_EQ(remove(set_, number), 0);
  close(number);
  EXPECT_EQ(add(set_, number, EPOLLIN, 2), -EBADF);
  EXPECT_EQ(now(set_), "");
  Connection next = connect_pair();
  Connection other = readable();
  ASSERT_EQ(dup2(other.mine, number), number);
  ASSERT_EQ(add(set_, number, EPOLLIN, 3), 0);
  EXPECT_EQ(now(set_), "3:in");
  close(next.mine);
}

// A registration lives as long as the file, also where its number is closed and a listener has begun and ended since.
TEST_P(EpollAgain, OfAListenerUnderAnotherNumber) {
  for (const uint32_t edge : {0u, static_cast<uint32_t>(EPOLLET)}) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(add(set_, fd, EPOLLIN | EPOLLOUT | edge, 1), 0);
    EXPECT_EQ(now(set_), "1:outmore");
    const int copy = dup(fd);
    close(fd);
    EXPECT_EQ(listen(copy, 1), 0);
    EXPECT_EQ(now(set_), "");
    EXPECT_EQ(shutdown(copy, SHUT_RD), 0);
    EXPECT_EQ(now(set_), "1:outmore");
    close(copy);
    EXPECT_EQ(now(set_), "");
  }
}

TEST_P(EpollAgain, DuplicatesComeAndGo) {
  Connection c = readable();
  const int copy = dup(c.mine);
  for (int turn = 0; turn < 3; turn++) {
    ASSERT_EQ(add(set_, c.mine, EPOLLIN | EPOLLET, 1), 0);
    ASSERT_EQ(add(set_, copy, EPOLLIN | EPOLLET, 2), 0);
    EXPECT_EQ(now(set_), "1:in 2:in");
    ASSERT_EQ(remove(set_, c.mine), 0);
    ASSERT_EQ(remove(set_, copy), 0);
    EXPECT_EQ(remove(set_, c.mine), -ENOENT);
    EXPECT_EQ(now(set_), "");
  }
  ASSERT_EQ(add(set_, copy, EPOLLIN, 2), 0);
  close(c.mine);
  ASSERT_EQ(remove(set_, copy), 0);
  ASSERT_EQ(add(set_, copy, EPOLLIN, 3), 0);
  EXPECT_EQ(now(set_), "3:in");
  close(copy);
  EXPECT_EQ(now(set_), "");
}

TEST_P(EpollAgain, FromSetToSet) {
  Connection c = readable();
  const int second = epoll_create1(0);
  for (int turn = 0; turn < 3; turn++) {
    ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
    ASSERT_EQ(add(second, c.mine, EPOLLIN, 2), 0);
    ASSERT_EQ(remove(set_, c.mine), 0);
    EXPECT_EQ(now(set_), "");
    EXPECT_EQ(now(second), "2:in");
    ASSERT_EQ(add(set_, c.mine, EPOLLIN, 3), 0);
    ASSERT_EQ(remove(second, c.mine), 0);
    EXPECT_EQ(now(set_), "3:in");
    EXPECT_EQ(now(second), "");
    ASSERT_EQ(remove(set_, c.mine), 0);
  }
  ASSERT_EQ(add(second, c.mine, EPOLLIN, 4), 0);
  ASSERT_EQ(remove(second, c.mine), 0);
  close(second);
  const int third = epoll_create1(0);  // under the number of the second
  EXPECT_EQ(remove(third, c.mine), -ENOENT);
  ASSERT_EQ(add(third, c.mine, EPOLLIN, 5), 0);
  EXPECT_EQ(now(third), "5:in");
  close(third);
}

TEST_P(EpollAgain, ASetAroundItIsTold) {
  Connection c = connect_pair();
  const int outer = epoll_create1(0);
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
  ASSERT_EQ(add(outer, set_, EPOLLIN, 2), 0);
  EXPECT_EQ(now(outer), "");
  ASSERT_EQ(remove(set_, c.mine), 0);
  peer.send(c.theirs, "x");
  char byte;
  EXPECT_EQ(recv(c.mine, &byte, 1, MSG_PEEK), 1);
  EXPECT_EQ(now(outer), "");
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 3), 0);
  EXPECT_EQ(now(outer), "2:in");
  ASSERT_EQ(remove(set_, c.mine), 0);
  EXPECT_EQ(now(outer), "");
}

// A child has the same set and the same description: what it removes the parent has no more, and either makes it again.
TEST_P(EpollAgain, ByTwoProcesses) {
  Connection c = readable();
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 1), 0);
  ASSERT_EQ(remove(set_, c.mine), 0);
  const auto in_child = [&](auto what) {
    const pid_t child = fork();
    if (child == 0) _exit(what() ? 0 : 1);
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  };
  in_child([&] { return remove(set_, c.mine) == -ENOENT && add(set_, c.mine, EPOLLIN, 2) == 0 && now(set_) == "2:in"; });
  EXPECT_EQ(add(set_, c.mine, EPOLLIN, 3), -EEXIST);
  EXPECT_EQ(now(set_), "2:in") << "the description lives on, and so does its registration";
  in_child([&] { return remove(set_, c.mine) == 0; });
  EXPECT_EQ(now(set_), "");
  ASSERT_EQ(add(set_, c.mine, EPOLLIN, 4), 0);
  EXPECT_EQ(now(set_), "4:in");
  in_child([&] { return close(c.mine) == 0 && now(set_) == "4:in"; });
}

}  // namespace
