// SCM_RIGHTS: a socket that is passed on in a message is one where it is received, and lives as long as somebody could receive it.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "tests/lib/asleep.h"
#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"
#include "tests/lib/rights.h"

using namespace testing_lib;

namespace {

class Rights : public BothWays {
 protected:
  void SetUp() override { ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0); }
  void TearDown() override {
    close(ends[0]);
    close(ends[1]);
  }
  // A child that runs `body`, whose result is its status.
  static pid_t in_child(const std::function<int()>& body) {
    const pid_t child = fork();
    if (child == 0) _exit(body());
    return child;
  }
  static int status_of(pid_t child) {
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }
  static int echo(int fd) {
    char data[4096];
    while (true) {
      const ssize_t count = read(fd, data, sizeof data);
      if (count <= 0) return count == 0 ? 0 : 1;
      if (write(fd, data, static_cast<size_t>(count)) != count) return 2;
    }
  }
  void expect_alive(int mine, int theirs, const std::string& text = "there and back") {
    ASSERT_EQ(write(mine, text.data(), text.size()), static_cast<ssize_t>(text.size())) << strerror(errno);
    EXPECT_EQ(peer.recv_all(theirs, text.size()), text);
    peer.send(theirs, text);
    EXPECT_EQ(read_all(mine, text.size()), text);
  }
  void expect_open(int theirs) { EXPECT_EQ(peer.recv(theirs, 1, MSG_DONTWAIT).error, EAGAIN); }
  void expect_ended(int theirs) {
    const Reply end = peer.recv(theirs, 1);
    EXPECT_EQ(end.result, 0) << strerror(end.error);
  }
  int ends[2];
};
ZPS_BOTH_WAYS(Rights);

TEST_P(Rights, AConnectionGoesOnInAnotherProcess) {
  const Connection first = connect_pair();
  const pid_t child = in_child([&] {
    const int fd = receive_one(ends[1]);
    return fd < 0 ? 90 : echo(fd);
  });
  const Connection c = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  close(c.mine);
  const std::string text = pattern(1, 0, 30000);
  peer.send(c.theirs, text);
  EXPECT_EQ(peer.recv_all(c.theirs, text.size()), text);
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(status_of(child), 0);
  expect_ended(c.theirs);
  expect_alive(first.mine, first.theirs);
}

TEST_P(Rights, AChildPassesWhatItHasAccepted) {
  const Connection first = connect_pair();
  sockaddr_in at{};
  const int listener = listen_here(&at);
  const pid_t child = in_child([&] {
    const int accepted = accept(listener, nullptr, nullptr);
    return accepted >= 0 && pass(ends[1], {accepted}) == 1 ? 0 : 1;
  });
  const int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  EXPECT_EQ(status_of(child), 0);
  const int mine = receive_one(ends[0]);
  ASSERT_GE(mine, 0);
  expect_alive(mine, theirs);
  close(mine);
  expect_ended(theirs);
  expect_alive(first.mine, first.theirs);
}

TEST_P(Rights, AListener) {
  const Connection first = connect_pair();
  const pid_t child = in_child([&] {
    close(first.mine);
    const int listener = receive_one(ends[1]);
    for (int i = 0; i < 2; i++) {
      const int accepted = accept(listener, nullptr, nullptr);
      if (accepted < 0 || echo(accepted) != 0) return 1;
    }
    return 0;
  });
  sockaddr_in at{};
  const int listener = listen_here(&at);
  ASSERT_EQ(pass(ends[0], {listener}), 1);
  close(listener);
  for (int i = 0; i < 2; i++) {
    const int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0);
    peer.send(theirs, "to the child");
    EXPECT_EQ(peer.recv_all(theirs, 12), "to the child");
    peer.close(theirs);
  }
  EXPECT_EQ(status_of(child), 0);
  const int theirs = peer.socket();
  EXPECT_EQ(peer.connect(theirs, at).error, ECONNREFUSED) << "nobody has the listener any more";
}

TEST_P(Rights, ASocketThatIsNotDecidedYet) {
  const Connection first = connect_pair();
  sockaddr_in at{};
  const int theirs = peer.listen(&at);
  const pid_t child = in_child([&] {
    close(first.mine);
    const int fd = receive_one(ends[1]);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) return 1;
    return write(fd, "connected there", 15) == 15 ? 0 : 2;
  });
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(pass(ends[0], {fd}), 1);
  const Reply accepted = peer.accept(theirs);
  EXPECT_EQ(peer.recv_all(static_cast<int>(accepted.result), 15), "connected there");
  EXPECT_EQ(status_of(child), 0);
  sockaddr_in name{}, own = self_address();
  socklen_t bytes = sizeof name;
  EXPECT_EQ(getpeername(fd, reinterpret_cast<sockaddr*>(&name), &bytes), 0) << "it is one socket";
  EXPECT_EQ(name.sin_port, at.sin_port);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes), 0);
  EXPECT_EQ(name.sin_addr.s_addr, own.sin_addr.s_addr);
  expect_open(static_cast<int>(accepted.result));
  close(fd);
  expect_ended(static_cast<int>(accepted.result));
}

TEST_P(Rights, ToOneself) {
  const Connection c = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  close(c.mine);
  expect_open(c.theirs);
  peer.send(c.theirs, "while in flight");
  const Received got = receive(ends[1]);
  ASSERT_EQ(got.fds.size(), 1U);
  EXPECT_EQ(got.bytes, 1);
  EXPECT_EQ(got.flags, 0);
  EXPECT_EQ(got.control, CMSG_SPACE(sizeof(int)));
  EXPECT_EQ(fcntl(got.fds[0], F_GETFD), 0);
  struct stat status{};
  EXPECT_EQ(fstat(got.fds[0], &status), 0);
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(read_all(got.fds[0], 15), "while in flight");
  expect_alive(got.fds[0], c.theirs);
  close(got.fds[0]);
  expect_ended(c.theirs);
}

TEST_P(Rights, ItsFlagsAreTheDescriptions) {
  const Connection c = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  const int fd = receive_one(ends[1], MSG_CMSG_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(c.mine, F_GETFD), 0);
  ASSERT_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(fcntl(c.mine, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  close(c.mine);
  expect_open(c.theirs);
  close(fd);
  expect_ended(c.theirs);
}

TEST_P(Rights, NeverReceived) {
  const Connection first = connect_pair(), c = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  close(c.mine);
  expect_open(c.theirs);
  close(ends[1]);
  expect_ended(c.theirs);
  expect_alive(first.mine, first.theirs);
  ends[1] = -1;
}

TEST_P(Rights, ReadThrowsThemAway) {
  const Connection c = connect_pair(), other = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  ASSERT_EQ(pass(ends[0], {other.mine}), 1);
  close(c.mine);
  close(other.mine);
  char byte;
  ASSERT_EQ(read(ends[1], &byte, 1), 1);
  expect_ended(c.theirs);
  expect_open(other.theirs);
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ASSERT_EQ(recvmsg(ends[1], &message, 0), 1);
  EXPECT_EQ(message.msg_flags, MSG_CTRUNC);
  expect_ended(other.theirs);
}

TEST_P(Rights, APeekReceivesThemToo) {
  const Connection c = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  close(c.mine);
  const int first = receive_one(ends[1], MSG_PEEK), second = receive_one(ends[1], MSG_PEEK), last = receive_one(ends[1]);
  ASSERT_GE(first, 0);
  ASSERT_GE(second, 0);
  ASSERT_GE(last, 0);
  expect_alive(first, c.theirs);
  close(last);
  expect_alive(second, c.theirs);
  close(first);
  expect_open(c.theirs);
  close(second);
  expect_ended(c.theirs);
}

TEST_P(Rights, APeekAndThenNoReceive) {
  const Connection c = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  close(c.mine);
  const int fd = receive_one(ends[1], MSG_PEEK);
  expect_alive(fd, c.theirs);
  close(fd);
  expect_open(c.theirs);
  close(ends[1]);
  ends[1] = -1;
  expect_ended(c.theirs);
}

TEST_P(Rights, ThoseThatDoNotFitAreClosed) {
  const Connection c = connect_pair(), other = connect_pair();
  int plain[2];
  ASSERT_EQ(pipe(plain), 0);
  ASSERT_EQ(pass(ends[0], {c.mine, plain[0], other.mine}), 1);
  close(c.mine);
  close(other.mine);
  const Received got = receive(ends[1], 0, CMSG_SPACE(2 * sizeof(int)));
  EXPECT_EQ(got.flags, MSG_CTRUNC);
  ASSERT_EQ(got.fds.size(), 2U);
  expect_ended(other.theirs);
  expect_alive(got.fds[0], c.theirs);
  ASSERT_EQ(write(plain[1], "x", 1), 1);
  EXPECT_EQ(read_all(got.fds[1], 1), "x");
  for (const int fd : {got.fds[0], got.fds[1], plain[0], plain[1]}) close(fd);
}

TEST_P(Rights, WithoutANumberLeft) {
  const Connection c = connect_pair(), other = connect_pair();
  ASSERT_EQ(pass(ends[0], {c.mine, other.mine}), 1);
  close(other.mine);
  const int lowest = dup(0);
  close(lowest);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit one_more{static_cast<rlim_t>(lowest) + 1, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &one_more), 0);
  const Received got = receive(ends[1]);
  const ssize_t passed = got.fds.size() == 1 ? pass(ends[0], {got.fds[0]}) : -1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(got.flags, MSG_CTRUNC);
  ASSERT_EQ(got.fds.size(), 1U);
  EXPECT_EQ(got.fds[0], lowest);
  EXPECT_EQ(passed, 1);
  expect_ended(other.theirs);
  expect_alive(got.fds[0], c.theirs);
  close(got.fds[0]);
  close(c.mine);
  expect_open(c.theirs);
}

TEST_P(Rights, SeveralMessagesAndDescriptors) {
  std::vector<Connection> all;
  for (int i = 0; i < 9; i++) all.push_back(connect_pair());
  for (int i = 0; i < 9; i += 3) {
    ASSERT_EQ(pass(ends[0], {all[i].mine, all[i + 1].mine, all[i + 2].mine}), 1);
  }
  for (const Connection& c : all) close(c.mine);
  for (int i = 0; i < 9; i += 3) {
    const Received got = receive(ends[1]);
    ASSERT_EQ(got.fds.size(), 3U);
    for (int j = 0; j < 3; j++) {
      expect_alive(got.fds[j], all[i + j].theirs, "number " + std::to_string(i + j));
      close(got.fds[j]);
      expect_ended(all[i + j].theirs);
    }
  }
}

TEST_P(Rights, ManyMessagesInOneCall) {
  const Connection c = connect_pair(), other = connect_pair();
  char bytes[3] = {'a', 'b', 'c'};
  iovec parts[3];
  std::vector<char> control[3];
  mmsghdr messages[3]{};
  for (int i = 0; i < 3; i++) parts[i] = {&bytes[i], 1};
  messages[0].msg_hdr = message_with(control[0], parts[0], {c.mine});
  messages[1].msg_hdr.msg_iov = &parts[1];
  messages[1].msg_hdr.msg_iovlen = 1;
  messages[2].msg_hdr = message_with(control[2], parts[2], {other.mine, ends[0]});
  int datagrams[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams), 0);
  ASSERT_EQ(sendmmsg(datagrams[0], messages, 3, 0), 3);
  EXPECT_EQ(messages[2].msg_len, 1U);
  close(c.mine);
  close(other.mine);
  for (int i = 0; i < 3; i++) {
    control[i].assign(64, 0);
    messages[i].msg_hdr.msg_control = control[i].data();
    messages[i].msg_hdr.msg_controllen = control[i].size();
  }
  ASSERT_EQ(recvmmsg(datagrams[1], messages, 3, 0, nullptr), 3);
  EXPECT_EQ(std::string(bytes, 3), "abc");
  const Received first = parse(messages[0].msg_hdr, 1), second = parse(messages[1].msg_hdr, 1), third = parse(messages[2].msg_hdr, 1);
  ASSERT_EQ(first.fds.size(), 1U);
  EXPECT_TRUE(second.fds.empty());
  ASSERT_EQ(third.fds.size(), 2U);
  expect_alive(first.fds[0], c.theirs);
  expect_alive(third.fds[0], other.theirs);
  for (const int fd : {first.fds[0], third.fds[0], third.fds[1], datagrams[0], datagrams[1]}) close(fd);
  expect_ended(c.theirs);
  expect_ended(other.theirs);
}

TEST_P(Rights, BesideCredentials) {
  const Connection c = connect_pair();
  const int on = 1;
  ASSERT_EQ(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
  ASSERT_EQ(pass(ends[0], {c.mine}, 0, true), 1);
  close(c.mine);
  const Received got = receive(ends[1]);
  EXPECT_EQ(got.sender, getpid());
  ASSERT_EQ(got.fds.size(), 1U);
  expect_alive(got.fds[0], c.theirs);
  close(got.fds[0]);
}

TEST_P(Rights, ByAThreadThatWaits) {
  const Connection c = connect_pair();
  int fd = -1;
  std::atomic<pid_t> id{0};
  std::thread reader([&] {
    id = gettid();
    fd = receive_one(ends[1]);
  });
  while (id == 0) sched_yield();
  until_asleep(id);
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  close(c.mine);
  reader.join();
  ASSERT_GE(fd, 0);
  expect_alive(fd, c.theirs);
  close(fd);
}

TEST_P(Rights, TheSenderIsKilled) {
  const Connection c = connect_pair();
  const pid_t child = in_child([&] {
    if (pass(ends[0], {c.mine}) != 1) return 1;
    (void)!write(ends[0], "!", 1);
    raise(SIGKILL);
    return 2;
  });
  close(c.mine);
  EXPECT_EQ(status_of(child), SIGKILL);
  expect_open(c.theirs);
  const int fd = receive_one(ends[1]);
  ASSERT_GE(fd, 0);
  expect_alive(fd, c.theirs);
  close(fd);
  expect_ended(c.theirs);
}

TEST_P(Rights, TheReceiverIsKilled) {
  const Connection first = connect_pair(), c = connect_pair();
  int gate[2];
  ASSERT_EQ(pipe(gate), 0);
  const pid_t child = in_child([&] {
    char byte;
    close(ends[0]);
    close(c.mine);
    if (read(gate[0], &byte, 1) != 1) return 1;
    raise(SIGKILL);
    return 2;
  });
  close(ends[1]);
  ends[1] = -1;
  ASSERT_EQ(pass(ends[0], {c.mine}), 1);
  close(c.mine);
  expect_open(c.theirs);
  ASSERT_EQ(write(gate[1], "x", 1), 1);
  EXPECT_EQ(status_of(child), SIGKILL);
  expect_ended(c.theirs);
  expect_alive(first.mine, first.theirs);
}

TEST_P(Rights, WhatCannotBeSentStaysAndEndsAtOnce) {
  const Connection c = connect_pair();
  int datagrams[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams), 0);
  while (send(datagrams[0], "x", 1, MSG_DONTWAIT) == 1) continue;
  EXPECT_EQ(pass(datagrams[0], {c.mine}, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  close(datagrams[1]);
  EXPECT_EQ(pass(datagrams[0], {c.mine}, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
  close(datagrams[0]);
  EXPECT_EQ(pass(ends[0], {c.mine, 9999}), -1);
  EXPECT_EQ(errno, EBADF);
  expect_alive(c.mine, c.theirs);
  close(c.mine);
  expect_ended(c.theirs);
}

// From here on these calls are the end of this process.
int forbid(unsigned first, unsigned second) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 0, 1),              BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{std::size(code), code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 0 : 1;
}

TEST_P(Rights, AConfinedProcessReceivesSocketsOfTheKernels) {
  ASSERT_EQ(pass(ends[0], {ends[1]}), 1);
  const pid_t child = in_child([&] { return forbid(SYS_getsockopt, SYS_fstat) == 0 && receive_one(ends[1]) >= 0 ? 0 : 1; });
  EXPECT_EQ(status_of(child), 0);
}

TEST_P(Rights, AConfinedProcessExecutes) {
  const pid_t child = in_child([&] {
    if (forbid(SYS_getsockopt, SYS_faccessat2) == 0) execl("/bin/true", "true", nullptr);
    return 1;
  });
  EXPECT_EQ(status_of(child), 0);
}

// Whoever sends it decides what is in the queue of a socket that looks like one of the stack's on its way, and what the kernel adds.
TEST_P(Rights, CredentialsAreNoDescriptors) {
  const Connection c = connect_pair();
  int look_alike[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, look_alike), 0);
  const int on = 1;
  ASSERT_EQ(setsockopt(look_alike[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
  char label[64] = "a socket of zpstack's, for processes of one family alone\n";
  ASSERT_EQ(write(look_alike[1], label, sizeof label), static_cast<ssize_t>(sizeof label));
  const int user = static_cast<int>(getuid());
  const bool was_open = fcntl(user, F_GETFD) >= 0;
  if (!was_open) {
    ASSERT_EQ(dup2(c.mine, user), user);
  }
  ASSERT_EQ(pass(ends[0], {look_alike[0]}), 1);
  for (const int fd : receive(ends[1]).fds) close(fd);
  EXPECT_GE(fcntl(user, F_GETFD), 0) << "the user's number was taken for a descriptor's";
  if (!was_open) close(user);
  expect_alive(c.mine, c.theirs);
  close(look_alike[0]);
  close(look_alike[1]);
}

TEST_P(Rights, TakenFromAProcess) {
  const Connection c = connect_pair();
  int gate[2];
  ASSERT_EQ(pipe(gate), 0);
  const pid_t child = in_child([&] {
    char byte;
    close(gate[1]);
    return static_cast<int>(read(gate[0], &byte, 1));
  });
  const int process = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  ASSERT_GE(process, 0);
  close(c.mine);
  const int fd = static_cast<int>(syscall(SYS_pidfd_getfd, process, c.mine, 0));
  ASSERT_GE(fd, 0) << strerror(errno);
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  expect_alive(fd, c.theirs);
  close(gate[1]);
  EXPECT_EQ(status_of(child), 0);
  expect_alive(fd, c.theirs);
  close(fd);
  close(process);
  expect_ended(c.theirs);
}

TEST_P(Rights, LengthsThatNoMessageHas) {
  const Connection c = connect_pair();
  char byte = 'p';
  iovec part{&byte, 1};
  std::vector<char> control;
  msghdr message = message_with(control, part, {c.mine});
  message.msg_controllen = SIZE_MAX;
  CMSG_FIRSTHDR(&message)->cmsg_len = SIZE_MAX - 1;
  EXPECT_EQ(sendmsg(ends[0], &message, 0), -1);
  EXPECT_EQ(errno, ENOBUFS);
  expect_alive(c.mine, c.theirs);
}

TEST_P(Rights, ASet) {
  const Connection c = connect_pair();
  const int set = epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 0x1122334455667788}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  const pid_t child = in_child([&] {
    close(set);
    const int fd = receive_one(ends[1]);
    epoll_event got{};
    if (epoll_wait(fd, &got, 1, 30000) != 1) return 1;
    return got.data.u64 == 0x1122334455667788 ? 0 : 2;
  });
  ASSERT_EQ(pass(ends[0], {set}), 1);
  close(set);
  peer.send(c.theirs, "ready");
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(read_all(c.mine, 5), "ready");
  expect_alive(c.mine, c.theirs);
}

}  // namespace
