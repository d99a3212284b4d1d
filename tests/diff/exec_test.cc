// exec: connections, listeners and sets that are not close-on-exec go on in the next program, whoever executes it and in whatever way.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/lib/asleep.h"
#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

std::string next_program() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  std::string own(path, length > 0 ? static_cast<size_t>(length) : 0);
  return own.substr(0, own.rfind('/') + 1) + "diff_exec_next";
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

void keep(int fd, bool across_exec = true) { fcntl(fd, F_SETFD, across_exec ? 0 : FD_CLOEXEC); }

class Exec : public BothWays {
 protected:
  void SetUp() override {
    const char* mode = getenv("ZPS_TEST_MODE");
    if (mode != nullptr && std::string(mode) == "zpstack-memif") KNOWN_DIFFERENCE("exec-wire");
  }
  // A child that becomes `program` with these arguments after `before`.
  template <class Before>
  pid_t execute(const std::string& program, std::vector<std::string> words, Before before) {
    const pid_t child = fork();
    if (child != 0) return child;
    before();
    execv(program.c_str(), pointers(words).data());
    _exit(97);
  }
  pid_t next(std::vector<std::string> words) {
    words.insert(words.begin(), "exec_next");
    return execute(next_program(), words, [] {});
  }
  static int status_of(pid_t child) {
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }
  void expect_echo(int theirs, const std::string& text) {
    peer.send(theirs, text);
    EXPECT_EQ(peer.recv_all(theirs, text.size()), text);
  }
};
ZPS_BOTH_WAYS(Exec);

TEST_P(Exec, AConnectionGoesOn) {
  Connection c = connect_pair();
  keep(c.mine);
  const pid_t child = next({"echo", std::to_string(c.mine)});
  close(c.mine);
  expect_echo(c.theirs, "to the next program");
  expect_echo(c.theirs, pattern(1, 0, 30000));
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_DONTWAIT).error, EAGAIN);
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
}

TEST_P(Exec, SoDoesWhatItHadNotReadAndNotSent) {
  Connection c = connect_pair();
  keep(c.mine);
  const std::string sent = pattern(1, 0, 60000), more = pattern(2, 0, 200000);
  peer.send(c.theirs, sent);
  ASSERT_EQ(wait_for(c.mine, POLLIN), POLLIN);
  const pid_t child = execute(next_program(), {"exec_next", "echo", std::to_string(c.mine)}, [&] {
    fcntl(c.mine, F_SETFL, O_NONBLOCK);
    const ssize_t written = write(c.mine, more.data(), more.size());
    if (written <= 0) _exit(96);
    fcntl(c.mine, F_SETFL, 0);
    char text[32];
    snprintf(text, sizeof text, "%08zd", written);
    (void)!write(c.mine, text, 8);
  });
  close(c.mine);
  peer.shutdown(c.theirs, SHUT_WR);
  std::string got = peer.recv_all(c.theirs, 1000000);
  ASSERT_GT(got.size(), sent.size() + 8);
  EXPECT_EQ(got.substr(got.size() - sent.size()), sent);
  const std::string first = got.substr(0, got.size() - sent.size() - 8);
  EXPECT_EQ(first, more.substr(0, first.size()));
  EXPECT_EQ(std::stoul(got.substr(first.size(), 8)), first.size());
  EXPECT_EQ(status_of(child), 0);
}

TEST_P(Exec, WhatIsCloseOnExecEndsThere) {
  Connection c = connect_pair();
  Connection other = connect_pair();
  int gate[2];
  ASSERT_EQ(pipe(gate), 0);
  keep(c.mine, false);
  keep(other.mine);
  const pid_t child = next({"wait", std::to_string(gate[0])});
  close(c.mine);
  close(other.mine);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0) << "its last descriptor is closed by exec";
  EXPECT_EQ(peer.recv(other.theirs, 1, MSG_DONTWAIT).error, EAGAIN);
  ASSERT_EQ(write(gate[1], "x", 1), 1);
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(peer.recv(other.theirs, 1).result, 0);
}

TEST_P(Exec, AsStandardInputAndOutput) {
  Connection c = connect_pair();
  const pid_t child = execute("/bin/cat", {"cat"}, [&] {
    dup2(c.mine, 0);
    dup2(c.mine, 1);
    keep(c.mine, false);
  });
  close(c.mine);
  expect_echo(c.theirs, "as inetd does it");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  EXPECT_EQ(status_of(child), 0);
}

// As Python's subprocess and many others do it: the child has no memory of its own.
TEST_P(Exec, Spawned) {
  Connection c = connect_pair(), other = connect_pair();
  keep(c.mine, false);
  keep(other.mine, false);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, c.mine, 0);
  posix_spawn_file_actions_adddup2(&actions, c.mine, 1);
  char* words[] = {const_cast<char*>("cat"), nullptr};
  pid_t child;
  ASSERT_EQ(posix_spawn(&child, "/bin/cat", &actions, nullptr, words, environ), 0);
  pid_t none;
  EXPECT_EQ(posix_spawn(&none, "/nonexistent", &actions, nullptr, words, environ), ENOENT);
  posix_spawn_file_actions_destroy(&actions);
  close(c.mine);
  close(other.mine);
  EXPECT_EQ(peer.recv(other.theirs, 1).result, 0);
  expect_echo(c.theirs, "spawned");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  EXPECT_EQ(status_of(child), 0);
}

// As Python's subprocess does it.
TEST_P(Exec, SpawnedByAChildThatClosesTheRest) {
  Connection c = connect_pair();
  keep(c.mine, false);
  char* words[] = {const_cast<char*>("cat"), nullptr};
  const pid_t child = vfork();
  if (child == 0) {
    dup2(c.mine, 0);
    dup2(c.mine, 1);
    close_range(3, ~0U, 0);
    for (int fd = 3; fd < 8192; fd++) close(fd);
    execv("/bin/cat", words);
    _exit(97);
  }
  close(c.mine);
  expect_echo(c.theirs, "spawned");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  EXPECT_EQ(status_of(child), 0);
}

TEST_P(Exec, AScriptAndItsPrograms) {
  Connection c = connect_pair();
  const std::string script = scratch_file("script");
  const int file = open(script.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
  const std::string text = "#!/bin/sh\nread line\necho \"sh: $line\"\n/bin/echo from a child\nexec /bin/cat\n";
  ASSERT_EQ(write(file, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  close(file);
  const pid_t child = execute(script, {"script"}, [&] {
    dup2(c.mine, 0);
    dup2(c.mine, 1);
  });
  close(c.mine);
  peer.send(c.theirs, "first\n");
  EXPECT_EQ(peer.recv_all(c.theirs, 10), "sh: first\n");
  EXPECT_EQ(peer.recv_all(c.theirs, 13), "from a child\n");
  expect_echo(c.theirs, "twice executed");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
}

TEST_P(Exec, ByDescriptor) {
  Connection c = connect_pair();
  keep(c.mine);
  const int file = open(next_program().c_str(), O_RDONLY | O_CLOEXEC);
  const pid_t child = fork();
  if (child == 0) {
    std::vector<std::string> words{"exec_next", "echo", std::to_string(c.mine)};
    fexecve(file, pointers(words).data(), environ);
    _exit(97);
  }
  close(file);
  close(c.mine);
  expect_echo(c.theirs, "execveat");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(status_of(child), 0);
}

TEST_P(Exec, WithoutAnEnvironment) {
  Connection c = connect_pair();
  keep(c.mine);
  const pid_t child = fork();
  if (child == 0) {
    std::vector<std::string> words{"exec_next", "echo", std::to_string(c.mine)};
    char* none[] = {nullptr};
    execve(next_program().c_str(), pointers(words).data(), none);
    _exit(97);
  }
  close(c.mine);
  expect_echo(c.theirs, "nothing said");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(status_of(child), 0);
}

TEST_P(Exec, OptionsAndNamesAreTheSame) {
  Connection c = connect_pair();
  keep(c.mine);
  const int on = 1;
  const timeval timeout{7, 0};
  ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout), 0);
  fcntl(c.mine, F_SETFL, O_NONBLOCK);
  sockaddr_in mine{}, theirs{};
  socklen_t bytes = sizeof mine;
  ASSERT_EQ(getsockname(c.mine, reinterpret_cast<sockaddr*>(&mine), &bytes), 0);
  ASSERT_EQ(getpeername(c.mine, reinterpret_cast<sockaddr*>(&theirs), &bytes), 0);
  const pid_t child = next({"tell", std::to_string(c.mine)});
  const std::string expected = "1 1 7 " + to_text(mine) + " " + to_text(theirs);
  EXPECT_EQ(peer.recv_all(c.theirs, expected.size()), expected);
  EXPECT_EQ(status_of(child), 0);
}

// A server that bounds its parts sets it before it executes them.
TEST_P(Exec, ALimitOfAddressesIsForTheProgramAlone) {
  Connection c = connect_pair();
  keep(c.mine);
  const rlimit tight{150'000'000, 160'000'000};
  const pid_t child = execute(next_program(), {"exec_next", "limit", std::to_string(c.mine)}, [&] {
    rlimit now{};
    const bool same = setrlimit(RLIMIT_AS, &tight) == 0 && getrlimit(RLIMIT_AS, &now) == 0 && now.rlim_cur == tight.rlim_cur &&
                      now.rlim_max == tight.rlim_max;
    if (!same) _exit(96);
  });
  const std::string expected = "150000000 160000000 room";
  EXPECT_EQ(peer.recv_all(c.theirs, expected.size()), expected);
  EXPECT_EQ(status_of(child), 0);
  const rlimit wrong{2, 1};
  EXPECT_EQ(setrlimit(RLIMIT_AS, &wrong), -1);
  EXPECT_EQ(errno, EINVAL);
}

// One that has no part in the stack finds what was set.
TEST_P(Exec, ALimitOfAddressesIsForWhatIsSpawned) {
  const Connection c = connect_pair();
  keep(c.mine, false);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const rlimit tight{150'000'000, 160'000'000};
    rlimit now{};
    std::vector<std::string> words{"exec_next", "limit", std::to_string(ends[1])};
    pid_t spawned = -1;
    const bool good = setrlimit(RLIMIT_AS, &tight) == 0 &&
                      posix_spawn(&spawned, next_program().c_str(), nullptr, nullptr, pointers(words).data(), environ) == 0 &&
                      waitpid(spawned, nullptr, 0) == spawned && getrlimit(RLIMIT_AS, &now) == 0 && now.rlim_cur == tight.rlim_cur &&
                      now.rlim_max == tight.rlim_max;
    _exit(good ? 0 : 96);
  }
  close(ends[1]);
  const std::string said = read_all(ends[0], 100);
  EXPECT_EQ(said.substr(0, 10), "150000000 ") << said;
  EXPECT_NE(said.find(" room"), std::string::npos) << said;
  EXPECT_EQ(status_of(child), 0);
  close(ends[0]);
  close(c.mine);
}

TEST_P(Exec, AListenerGoesOnWithWhatWaitsInIt) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  keep(listener);
  const int first = peer.socket();
  ASSERT_EQ(peer.connect(first, at).result, 0);
  peer.send(first, "queued before");
  pid_t child = next({"serve", std::to_string(listener)});
  EXPECT_EQ(peer.recv_all(first, 13), "queued before");
  EXPECT_EQ(status_of(child), 0);
  child = next({"serve", std::to_string(listener)});
  close(listener);
  const int second = peer.socket();
  ASSERT_EQ(peer.connect(second, at).result, 0);
  peer.send(second, "came after");
  EXPECT_EQ(peer.recv_all(second, 10), "came after");
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(peer.connect(peer.socket(), at).error, ECONNREFUSED);
}

TEST_P(Exec, AnEpollSetGoesOn) {
  Connection c = connect_pair();
  const int set = epoll_create1(0);
  keep(c.mine);
  epoll_event event{EPOLLIN, {.u64 = 123456789012345}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  const pid_t child = next({"epoll", std::to_string(set), std::to_string(c.mine)});
  peer.send(c.theirs, "x");
  EXPECT_EQ(peer.recv_all(c.theirs, 15), "123456789012345");
  EXPECT_EQ(status_of(child), 0);
}

TEST_P(Exec, TheOthersGoOnBesideIt) {
  Connection c = connect_pair(), own = connect_pair();
  keep(c.mine);
  keep(own.mine, false);
  const pid_t child = next({"echo", std::to_string(c.mine)});
  for (int i = 0; i < 20; i++) {
    ASSERT_EQ(write(own.mine, "mine", 4), 4);
    EXPECT_EQ(peer.recv_all(own.theirs, 4), "mine");
    expect_echo(c.theirs, "child's");
  }
  until_asleep(child);  // in its read, and not inside the stack
  ASSERT_EQ(kill(child, SIGKILL), 0);
  (void)status_of(child);
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_DONTWAIT).error, EAGAIN) << "this process has it too";
  close(c.mine);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
}

TEST_P(Exec, FailingLeavesThreadsAsTheyWere) {
  Connection c = connect_pair();
  keep(c.mine);
  std::atomic<int> thread_id{0};
  char got[8] = {};
  std::thread reader([&] {
    thread_id = gettid();
    EXPECT_EQ(read(c.mine, got, 4), 4);
  });
  while (thread_id == 0) sched_yield();
  until_asleep(thread_id);
  const std::string file = scratch_file("no-program");
  const int fd = open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
  ASSERT_EQ(write(fd, "no program at all", 17), 17);
  close(fd);
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(execl(file.c_str(), "no-program", nullptr), -1);
    EXPECT_EQ(errno, ENOEXEC);
  }
  const std::string torn = scratch_file("torn");  // looks like one until the kernel has the whole of it
  const int from = open("/bin/true", O_RDONLY | O_CLOEXEC), to = open(torn.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
  char page[4096];
  ASSERT_EQ(read(from, page, sizeof page), static_cast<ssize_t>(sizeof page));
  ASSERT_EQ(write(to, page, sizeof page), static_cast<ssize_t>(sizeof page));
  close(from);  // `to` stays open for writing: ETXTBSY
  EXPECT_EQ(execl(torn.c_str(), "torn", nullptr), -1);
  EXPECT_EQ(errno, ETXTBSY);
  close(to);
  peer.send(c.theirs, "read");
  reader.join();
  EXPECT_STREQ(got, "read");
  ASSERT_EQ(write(c.mine, "on", 2), 2);
  EXPECT_EQ(peer.recv_all(c.theirs, 2), "on");
}

// The kernel ends the other threads, also those that wait for the very connection.
TEST_P(Exec, ByAThreadBesideOthers) {
  Connection c = connect_pair();
  keep(c.mine);
  int executed[2];
  ASSERT_EQ(pipe2(executed, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    std::vector<std::thread> threads;
    std::atomic<int> thread_id{0};
    threads.emplace_back([&] {
      thread_id = gettid();
      char byte;
      (void)!read(c.mine, &byte, 1);
    });
    while (thread_id == 0) sched_yield();
    until_asleep(thread_id);
    threads.emplace_back([&] {
      std::vector<std::string> words{"exec_next", "echo", std::to_string(c.mine)};
      execv(next_program().c_str(), pointers(words).data());
      _exit(97);
    });
    for (std::thread& thread : threads) thread.join();
    _exit(95);
  }
  close(c.mine);
  close(executed[1]);
  char byte;
  ASSERT_EQ(read(executed[0], &byte, 1), 0) << "closed by exec";
  close(executed[0]);
  expect_echo(c.theirs, "the thread that is left");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(status_of(child), 0);
}

}  // namespace
