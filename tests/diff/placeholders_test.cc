// What an accepted connection is like when nothing has been done to it yet, whatever was done to those before it.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr int kBefore = 2;  // connections that come and go before one is looked at

ino_t inode_of(int fd) {
  struct stat about {};
  EXPECT_EQ(fstat(fd, &about), 0) << strerror(errno);
  EXPECT_TRUE(S_ISSOCK(about.st_mode));
  return about.st_ino;
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  EXPECT_EQ(getsockopt(fd, level, name, &value, &size), 0) << strerror(errno);
  return value;
}

int set(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }

// All that a program can ask a connection for besides its data, as text.
std::string told_of(int fd) {
  struct Row {
    int level, name;
  };
  constexpr Row kRows[] = {
      {SOL_SOCKET, SO_KEEPALIVE},   {SOL_SOCKET, SO_RCVBUF},        {SOL_SOCKET, SO_OOBINLINE},    {SOL_SOCKET, SO_RCVLOWAT},
      {SOL_SOCKET, SO_BROADCAST},   {SOL_SOCKET, SO_PRIORITY},      {SOL_SOCKET, SO_MARK},         {SOL_SOCKET, SO_TIMESTAMP},
      {IPPROTO_TCP, TCP_NODELAY},   {IPPROTO_TCP, TCP_CORK},        {IPPROTO_TCP, TCP_KEEPIDLE},   {IPPROTO_TCP, TCP_KEEPINTVL},
      {IPPROTO_TCP, TCP_KEEPCNT},   {IPPROTO_TCP, TCP_LINGER2},     {IPPROTO_TCP, TCP_SYNCNT},     {IPPROTO_TCP, TCP_USER_TIMEOUT},
      {IPPROTO_IP, IP_TTL},         {IPPROTO_IP, IP_TOS},           {IPPROTO_IP, IP_MTU_DISCOVER}, {IPPROTO_IP, IP_RECVERR},
      {IPPROTO_TCP, TCP_NOTSENT_LOWAT}, {IPPROTO_IP, IP_RECVTTL},
  };
  std::string told;
  for (const Row& row : kRows) told += std::to_string(option(fd, row.level, row.name)) + " ";
  linger lingers{};
  socklen_t size = sizeof lingers;
  EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_LINGER, &lingers, &size), 0);
  told += "linger " + std::to_string(lingers.l_onoff) + " " + std::to_string(lingers.l_linger);
  timeval timeout{};
  size = sizeof timeout;
  EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &size), 0);
  told += " timeout " + std::to_string(timeout.tv_sec);
  told += " flags " + std::to_string(fcntl(fd, F_GETFL)) + " " + std::to_string(fcntl(fd, F_GETFD));
  told += " owner " + std::to_string(fcntl(fd, F_GETOWN)) + " " + std::to_string(fcntl(fd, F_GETSIG));
  return told;
}

class Placeholders : public DiffTest {
 protected:
  void SetUp() override { listener = listen_here(&at); }

  int accepted(int flags = 0) { return accepted_from(listener, at, flags); }
  int accepted_from(int from, const sockaddr_in& where, int flags = 0) {
    theirs.push_back(peer.socket());
    EXPECT_EQ(peer.connect(theirs.back(), where).result, 0);
    const int fd = accept4(from, nullptr, nullptr, flags);
    EXPECT_GE(fd, 0) << strerror(errno);
    return fd;
  }
  // Connections that nobody does anything to.
  void let_some_pass(int flags = 0) {
    for (int i = 0; i < kBefore; i++) close(accepted(flags));
  }

  sockaddr_in at{};
  int listener = -1;
  std::vector<int> theirs;
};

TEST_F(Placeholders, WhatWasSetOnOneIsNotSetOnTheNext) {
  const std::vector<std::function<int(int)>> deeds = {
      [](int fd) { return set(fd, IPPROTO_TCP, TCP_NODELAY, 1); },
      [](int fd) { return set(fd, SOL_SOCKET, SO_KEEPALIVE, 1); },
      [](int fd) { return set(fd, SOL_SOCKET, SO_RCVBUF, 70000); },
      [](int fd) { return set(fd, SOL_SOCKET, SO_MARK, 5) | set(fd, SOL_SOCKET, SO_PRIORITY, 3); },
      [](int fd) { return set(fd, SOL_SOCKET, SO_REUSEADDR, 1); },
      [](int fd) { return set(fd, SOL_SOCKET, SO_TIMESTAMP, 1); },
      [](int fd) { return set(fd, IPPROTO_IP, IP_TOS, 16); },
      [](int fd) { return set(fd, IPPROTO_IP, IP_RECVTTL, 1); },
      [](int fd) {
        const linger lingers{1, 7};
        return setsockopt(fd, SOL_SOCKET, SO_LINGER, &lingers, sizeof lingers);
      },
      [](int fd) {
        const timeval timeout{9, 0};
        return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
      },
      [](int fd) { return fcntl(fd, F_SETFL, O_NONBLOCK); },
      [](int fd) { return fcntl(fd, F_SETFL, O_APPEND); },
      [](int fd) {
        int yes = 1;
        return ioctl(fd, FIONBIO, &yes);
      },
      [](int fd) { return fcntl(fd, F_SETOWN, getpid()) | fcntl(fd, F_SETSIG, SIGURG); },
      [](int fd) {
        int self = getpid();
        return ioctl(fd, SIOCSPGRP, &self);
      },
      [](int fd) { return fcntl(fd, F_SETFD, FD_CLOEXEC); },
      [](int fd) { return shutdown(fd, SHUT_RDWR); },
      [](int fd) {
        const sockaddr nowhere{AF_UNSPEC, {}};
        return connect(fd, &nowhere, sizeof nowhere);
      },
      [](int fd) { return set(fd, SOL_SOCKET, SO_RCVLOWAT, 17); },
  };
  int untouched = accepted();
  const std::string at_first = told_of(untouched);
  close(untouched);
  for (size_t i = 0; i < deeds.size(); i++) {
    let_some_pass();
    const int touched = accepted();
    EXPECT_EQ(deeds[i](touched), 0) << i << ": " << strerror(errno);
    close(touched);
    const int next = accepted(), another = accepted();
    EXPECT_EQ(told_of(next), at_first) << "after deed " << i;
    EXPECT_EQ(told_of(another), at_first) << "after deed " << i;
    close(next);
    close(another);
  }
}

TEST_F(Placeholders, FlagsAreThoseOfItsOwnAccept) {
  for (int round = 0; round < kBefore; round++) {
    for (int flags : {0, int{SOCK_NONBLOCK}, int{SOCK_CLOEXEC}, SOCK_NONBLOCK | SOCK_CLOEXEC}) {
      const int fd = accepted(flags);
      EXPECT_EQ(fcntl(fd, F_GETFL), O_RDWR | ((flags & SOCK_NONBLOCK) != 0 ? O_NONBLOCK : 0));
      EXPECT_EQ(fcntl(fd, F_GETFD), (flags & SOCK_CLOEXEC) != 0 ? FD_CLOEXEC : 0);
      close(fd);
    }
  }
}

TEST_F(Placeholders, TheLowestFreeNumberIsTaken) {
  let_some_pass();
  const int low = dup(listener);
  const int high = dup(listener);
  close(low);
  const int fd = accepted();
  EXPECT_EQ(fd, low);
  close(high);
  close(fd);
  EXPECT_EQ(accepted(), low);
}

TEST_F(Placeholders, EachThatIsOpenIsAFileOfItsOwn) {
  let_some_pass();
  std::set<ino_t> seen;
  std::vector<int> open;
  for (int i = 0; i < 12; i++) {
    open.push_back(accepted());
    seen.insert(inode_of(open.back()));
    if (i % 3 != 2) continue;
    seen.erase(inode_of(open.front()));
    close(open.front());
    open.erase(open.begin());
  }
  EXPECT_EQ(seen.size(), open.size());
}

TEST_F(Placeholders, ASecondNameKeepsItsFile) {
  let_some_pass();
  const int first = accepted();
  const int copy = dup(first);
  close(first);
  const int second = accepted();
  EXPECT_NE(inode_of(second), inode_of(copy));
  EXPECT_EQ(set(copy, IPPROTO_TCP, TCP_NODELAY, 1), 0);
  EXPECT_EQ(option(second, IPPROTO_TCP, TCP_NODELAY), 0);
  close(second);
  close(copy);
  EXPECT_EQ(option(accepted(), IPPROTO_TCP, TCP_NODELAY), 0);
}

TEST_F(Placeholders, WhatIsPutUnderANumberReplacesIt) {
  let_some_pass();
  const int first = accepted();
  const int null = open("/dev/null", O_RDWR);
  ASSERT_EQ(dup2(null, first), first);
  EXPECT_EQ(write(first, "x", 1), 1);
  const int second = accepted();
  EXPECT_TRUE(inode_of(second) != 0);
  close(first);
  const int third = accepted();
  EXPECT_NE(inode_of(third), inode_of(second));
  peer.send(theirs.back(), "still there");
  EXPECT_EQ(read_all(third, 11), "still there");
}

TEST_F(Placeholders, AChildKeepsItsFile) {
  let_some_pass();
  const int first = accepted();
  int to_child[2], from_child[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(from_child), 0);
  const pid_t child = fork();
  if (child == 0) {
    char go;
    const ino_t before = inode_of(first);
    const bool right = read(to_child[0], &go, 1) == 1 && set(first, IPPROTO_TCP, TCP_NODELAY, 1) == 0 && inode_of(first) == before;
    _exit(write(from_child[1], &before, sizeof before) == sizeof before && right ? 0 : 1);
  }
  close(first);
  const int second = accepted();
  ASSERT_EQ(write(to_child[1], "g", 1), 1);
  ino_t of_child = 0;
  ASSERT_EQ(read(from_child[0], &of_child, sizeof of_child), ssize_t{sizeof of_child});
  EXPECT_NE(inode_of(second), of_child);
  EXPECT_EQ(option(second, IPPROTO_TCP, TCP_NODELAY), 0);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// It makes and ends connections of its own, beside its parent's.
TEST_F(Placeholders, AChildHasItsOwn) {
  let_some_pass();
  const int held = accepted();
  theirs.push_back(peer.socket());
  ASSERT_EQ(peer.connect(theirs.back(), at).result, 0);
  theirs.push_back(peer.socket());
  ASSERT_EQ(peer.connect(theirs.back(), at).result, 0);
  const pid_t child = fork();
  if (child == 0) {
    const int one = accept(listener, nullptr, nullptr);
    const bool differs = inode_of(one) != inode_of(held);
    close(one);
    close(held);
    const int other = accept(listener, nullptr, nullptr);
    _exit(differs && other >= 0 && option(other, IPPROTO_TCP, TCP_NODELAY) == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  peer.send(theirs[theirs.size() - 3], "mine");
  EXPECT_EQ(read_all(held, 4), "mine");
}

// What it has inherited leads to another file than what comes under the same number here.
TEST_F(Placeholders, ASpawnedProgramKeepsItsFile) {
  let_some_pass();
  const int first = accepted();
  char cat[] = "/bin/cat";
  char* const arguments[] = {cat, nullptr};
  char* const environment[] = {nullptr};
  int input[2];
  ASSERT_EQ(pipe2(input, O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  pid_t child = -1;
  ASSERT_EQ(posix_spawn(&child, cat, &actions, nullptr, arguments, environment), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(first);
  const int second = accepted();
  char theirs_is[64] = {}, ours_is[64] = {};
  const std::string of_child = "/proc/" + std::to_string(child) + "/fd/" + std::to_string(first);
  EXPECT_GT(readlink(of_child.c_str(), theirs_is, sizeof theirs_is - 1), 0) << strerror(errno);
  EXPECT_GT(readlink(("/proc/self/fd/" + std::to_string(second)).c_str(), ours_is, sizeof ours_is - 1), 0);
  EXPECT_STRNE(theirs_is, ours_is);
  close(input[1]);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(Placeholders, OptionsAreTheListenersOfTheMoment) {
  for (int round = 0; round < kBefore; round++) {
    for (int value : {1, 0}) {
      ASSERT_EQ(set(listener, IPPROTO_TCP, TCP_NODELAY, value), 0);
      ASSERT_EQ(set(listener, SOL_SOCKET, SO_RCVBUF, 50000 + round * 1000 + value), 0);
      for (int k = 0; k < 2; k++) {
        const int fd = accepted();
        EXPECT_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), value);
        EXPECT_EQ(option(fd, SOL_SOCKET, SO_RCVBUF), 2 * (50000 + round * 1000 + value));
        close(fd);
      }
    }
  }
}

TEST_F(Placeholders, TwoListenersHandOnTheirOwn) {
  sockaddr_in other_at{};
  const int other = listen_here(&other_at);
  ASSERT_EQ(set(other, SOL_SOCKET, SO_KEEPALIVE, 1), 0);
  for (int round = 0; round < kBefore; round++) {
    for (const bool is_other : {false, true, true, false}) {
      const int fd = is_other ? accepted_from(other, other_at) : accepted();
      EXPECT_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), is_other ? 1 : 0);
      close(fd);
    }
  }
}

TEST_F(Placeholders, CookiesAreNotUsedTwice) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 6; i++) {
    const int fd = accepted();
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    ASSERT_EQ(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size), 0);
    EXPECT_TRUE(seen.insert(cookie).second) << cookie;
    close(fd);
  }
}

// The file is its maker's, and that is who the process is now.
TEST_F(Placeholders, AnotherUsersFileIsNotGivenAway) {
  ASSERT_EQ(geteuid(), 0u) << "needs root to be somebody else";
  constexpr uid_t kOther = 65534;
  let_some_pass();
  ASSERT_EQ(syscall(SYS_setresuid, -1, kOther, -1), 0);
  const int fd = accepted();
  struct stat about {};
  EXPECT_EQ(fstat(fd, &about), 0);
  EXPECT_EQ(syscall(SYS_setresuid, -1, 0, -1), 0);
  EXPECT_EQ(about.st_uid, kOther);
  close(fd);
  EXPECT_EQ(fstat(accepted(), &about), 0);
  EXPECT_EQ(about.st_uid, uid_t{0});
}

}  // namespace
