// Processes and connections: children through popen, system and posix_spawn, failed exec, orphans, many forks, forks beside threads.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Processes : public BothWays {
 protected:
  // Both directions work.
  void expect_alive(const Connection& c) {
    ASSERT_EQ(write(c.mine, "out", 3), 3) << strerror(errno);
    EXPECT_EQ(peer.recv_all(c.theirs, 3), "out");
    peer.send(c.theirs, "in");
    EXPECT_EQ(read_all(c.mine, 2), "in");
  }
  static int status_of(pid_t child) {
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }
};
ZPS_BOTH_WAYS(Processes);

TEST_P(Processes, ShellCommandsBesideAConnection) {
  Connection c = connect_pair();
  for (int i = 0; i < 5; i++) {
    FILE* pipe = popen("echo from the shell", "r");
    ASSERT_NE(pipe, nullptr);
    char line[64] = {};
    EXPECT_NE(fgets(line, sizeof line, pipe), nullptr);
    EXPECT_STREQ(line, "from the shell\n");
    EXPECT_EQ(pclose(pipe), 0);
    EXPECT_EQ(system("exit 3"), 3 << 8);
    expect_alive(c);
  }
}

TEST_P(Processes, SpawnedProgramInheritsPlainDescriptors) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  const char* argv[] = {"/bin/echo", "spawned", nullptr};
  pid_t child;
  ASSERT_EQ(posix_spawn(&child, argv[0], &actions, nullptr, const_cast<char**>(argv), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(read_all(ends[0], 8), "spawned\n");
  EXPECT_EQ(posix_spawn(&child, "/nonexistent", nullptr, nullptr, const_cast<char**>(argv), environ), ENOENT);
  expect_alive(c);
}

TEST_P(Processes, FailedExecKeepsTheConnection) {
  Connection c = connect_pair();
  EXPECT_EQ(execl("/nonexistent/program", "program", nullptr), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(execl("/", "directory", nullptr), -1);
  EXPECT_EQ(errno, EACCES);
  expect_alive(c);
}

// A child that execs without close-on-exec descriptors of its own: the parent's connection lives on.
TEST_P(Processes, ExecInAChildLeavesTheParentsConnection) {
  Connection c = connect_pair();
  fcntl(c.mine, F_SETFD, FD_CLOEXEC);
  pid_t child = fork();
  if (child == 0) {
    execl("/bin/true", "true", nullptr);
    _exit(9);
  }
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_DONTWAIT).error, EAGAIN);
  expect_alive(c);
}

TEST_P(Processes, AnOrphanGoesOnServing) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    if (fork() != 0) _exit(0);
    setsid();
    char byte;
    for (;;) {
      ssize_t count = read(c.mine, &byte, 1);
      if (count <= 0) _exit(0);
      if (write(c.mine, &byte, 1) != 1) _exit(1);
      if (byte == 'q') break;
    }
    ssize_t ignored = write(ends[1], "done", 4);
    _exit(ignored == 4 ? 0 : 1);
  }
  EXPECT_EQ(status_of(child), 0);
  close(c.mine);
  for (char letter : {'a', 'b', 'q'}) {
    peer.send(c.theirs, std::string(1, letter));
    EXPECT_EQ(peer.recv_all(c.theirs, 1), std::string(1, letter));
  }
  EXPECT_EQ(read_all(ends[0], 4), "done");
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0) << "the last holder is gone";
}

TEST_P(Processes, ManyForksInARow) {
  Connection c = connect_pair();
  for (int i = 0; i < 100; i++) {
    pid_t child = fork();
    if (child == 0) {
      char letter = static_cast<char>('a' + i % 26);
      _exit(write(c.mine, &letter, 1) == 1 ? 0 : 1);
    }
    ASSERT_EQ(status_of(child), 0) << i;
    ASSERT_EQ(peer.recv_all(c.theirs, 1), std::string(1, static_cast<char>('a' + i % 26)));
  }
  expect_alive(c);
}

TEST_P(Processes, KilledChildrenLeaveTheConnection) {
  Connection c = connect_pair();
  int job = peer.start(PeerOp::send_pattern, c.theirs, 31, 2000000, 20000);
  std::string seen = read_all(c.mine, 1000);
  for (int i = 0; i < 10; i++) {
    pid_t child = fork();
    if (child == 0) {
      for (;;) pause();  // holds the connection, never uses it
    }
    ASSERT_EQ(kill(child, SIGKILL), 0);
    EXPECT_TRUE(WIFSIGNALED(status_of(child)));
    seen += read_all(c.mine, 100000);
  }
  seen += read_all(c.mine, 2000000 - seen.size());
  EXPECT_EQ(peer.finish(job).result, 2000000);
  ASSERT_EQ(seen.size(), 2000000u);
  EXPECT_EQ(pattern_mismatch(31, 0, reinterpret_cast<const uint8_t*>(seen.data()), seen.size()), -1);
}

TEST_P(Processes, ForkWhileThreadsUseTheStack) {
  Connection c = connect_pair();
  const size_t total = 5000000;
  int job = peer.start(PeerOp::echo, c.theirs, total);
  std::thread writer([&] {
    std::vector<uint8_t> out(20000);
    for (size_t sent = 0; sent < total;) {
      size_t part = std::min(out.size(), total - sent);
      fill_pattern(41, sent, out.data(), part);
      ssize_t count = write(c.mine, out.data(), part);
      ASSERT_GT(count, 0);
      sent += static_cast<size_t>(count);
    }
  });
  std::atomic<bool> good{true};
  std::thread reader([&] {
    std::vector<uint8_t> in(20000);
    for (size_t seen = 0; seen < total;) {
      ssize_t count = read(c.mine, in.data(), in.size());
      if (count <= 0 || pattern_mismatch(41, seen, in.data(), static_cast<size_t>(count)) != -1) {
        good = false;
        return;
      }
      seen += static_cast<size_t>(count);
    }
  });
  for (int i = 0; i < 50; i++) {
    pid_t child = fork();
    if (child == 0) _exit(7);
    ASSERT_EQ(status_of(child), 7 << 8);
  }
  writer.join();
  reader.join();
  EXPECT_TRUE(good);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(total));
}

// The child makes connections of its own, through a set of its own and the set it shares with its parent.
TEST_P(Processes, ChildHasConnectionsOfItsOwn) {
  Connection c = connect_pair();
  sockaddr_in at{};
  int listener = peer.listen(&at);
  pid_t child = fork();
  if (child == 0) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) _exit(1);
    int set = epoll_create1(0);
    epoll_event event{EPOLLIN, {.u64 = 8}};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) _exit(2);
    if (write(fd, "child", 5) != 5) _exit(3);
    if (epoll_wait(set, &event, 1, 20000) != 1 || event.data.u64 != 8) _exit(4);
    char byte;
    _exit(read(fd, &byte, 1) == 1 && byte == 'k' ? 0 : 5);
  }
  int theirs = static_cast<int>(peer.accept(listener).result);
  EXPECT_EQ(peer.recv_all(theirs, 5), "child");
  peer.send(theirs, "k");
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(peer.recv(theirs, 1).result, 0) << "the child's exit closes what was its own";
  expect_alive(c);
}

TEST_P(Processes, SharedEpollSetWakesParentAndChild) {
  Connection c = connect_pair();
  int set = epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 5}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  pid_t child = fork();
  if (child == 0) {
    epoll_event got{};
    int count = epoll_wait(set, &got, 1, 20000);
    char byte;
    _exit(count == 1 && got.data.u64 == 5 && recv(c.mine, &byte, 1, MSG_PEEK) == 1 ? 0 : 1);
  }
  peer.send(c.theirs, "x");
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(epoll_wait(set, &event, 1, 20000), 1);
  EXPECT_EQ(event.data.u64, 5u);
}

}  // namespace
