// Signal-driven I/O: O_ASYNC with F_SETOWN, F_SETOWN_EX and F_SETSIG, which events bring a signal, and what it says.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <asm/ioctls.h>
#include <linux/sockios.h>

#include <thread>
#include <vector>

#include "tests/lib/asleep.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr int kPollIn = POLLIN | POLLRDNORM, kPollOut = POLLOUT | POLLWRNORM | POLLWRBAND, kPollPri = POLLPRI | POLLRDBAND;

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : signals) sigaddset(&set, number);
  return set;
}

// Signals that are blocked in this thread and those it begins, and waited for.
class Awaited {
 public:
  explicit Awaited(std::initializer_list<int> signals) : set_(set_of(signals)) { pthread_sigmask(SIG_BLOCK, &set_, nullptr); }
  // The next one's number, 0 if none comes within half a minute.
  int next(siginfo_t* info = nullptr) const {
    siginfo_t own;
    const timespec most{30, 0};
    int number;
    do number = sigtimedwait(&set_, info != nullptr ? info : &own, &most);
    while (number < 0 && errno == EINTR);  // by a stop of the process
    return number > 0 ? number : 0;
  }
  // The next that speaks of `band`; others are about something that came before.
  siginfo_t next_of(long band) const {
    siginfo_t info{};
    while (next(&info) != 0 && info.si_band != band) {
    }
    return info;
  }
  bool none() const {
    siginfo_t info;
    const timespec at_once{0, 0};
    return sigtimedwait(&set_, &info, &at_once) < 0;
  }

 private:
  sigset_t set_;
};

void make_async(int fd, int owner = getpid(), int signal = 0) {
  EXPECT_EQ(fcntl(fd, F_SETOWN, owner), 0) << strerror(errno);
  EXPECT_EQ(fcntl(fd, F_SETSIG, signal), 0);
  EXPECT_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC), 0);
  EXPECT_NE(fcntl(fd, F_GETFL) & O_ASYNC, 0);
}

class Sigio : public BothWays {
 protected:
  void end(const Connection& c) {
    close(c.mine);
    peer.close(c.theirs);
  }
  void expect_bytes(int fd, const std::string& text) { EXPECT_EQ(read_all(fd, text.size()), text); }
};
ZPS_BOTH_WAYS(Sigio);

TEST_P(Sigio, EachArrival) {
  const Awaited sigio{SIGIO};
  Connection c = connect_pair();
  peer.send(c.theirs, "a");
  expect_bytes(c.mine, "a");
  EXPECT_TRUE(sigio.none());
  make_async(c.mine);
  for (int i = 0; i < 20; i++) {
    peer.send(c.theirs, "b");
    EXPECT_EQ(sigio.next(), SIGIO) << i;
    expect_bytes(c.mine, "b");
  }
  EXPECT_EQ(fcntl(c.mine, F_SETFL, fcntl(c.mine, F_GETFL) & ~O_ASYNC), 0);
  peer.send(c.theirs, "c");
  expect_bytes(c.mine, "c");
  EXPECT_TRUE(sigio.none());
  int on = 1;
  EXPECT_EQ(ioctl(c.mine, FIOASYNC, &on), 0);
  peer.send(c.theirs, "d");
  EXPECT_EQ(sigio.next(), SIGIO);
  end(c);
}

TEST_P(Sigio, AQueuedSignalSaysWhatHappened) {
  const int signal = SIGRTMIN + 3;
  const Awaited queued{signal};
  Connection c = connect_pair();
  make_async(c.mine, getpid(), signal);
  peer.send(c.theirs, "a");
  siginfo_t info = queued.next_of(kPollIn);
  EXPECT_EQ(info.si_signo, signal);
  EXPECT_EQ(info.si_fd, c.mine);
  EXPECT_EQ(info.si_band, kPollIn);
  EXPECT_TRUE(info.si_code == POLL_IN || (on_stack() && info.si_code == SI_SIGIO)) << "known difference sigio-code";
  peer.send(c.theirs, "X", MSG_OOB);
  info = queued.next_of(kPollPri);
  EXPECT_EQ(info.si_fd, c.mine);
  EXPECT_EQ(info.si_band, kPollPri);
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(queued.next_of(kPollIn).si_fd, c.mine);
  end(c);
}

TEST_P(Sigio, TheEndOfBothDirections) {
  const int signal = SIGRTMIN + 3;
  const Awaited queued{signal};
  Connection c = connect_pair();
  make_async(c.mine, getpid(), signal);
  EXPECT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_TRUE(queued.none()) << "its own call is no news";
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(queued.next_of(POLLHUP | POLLERR).si_fd, c.mine);
  end(c);
}

TEST_P(Sigio, AReset) {
  const int signal = SIGRTMIN + 3;
  const Awaited queued{signal};
  Connection c = connect_pair();
  make_async(c.mine, getpid(), signal);
  peer.reset(c.theirs);
  EXPECT_EQ(queued.next_of(POLLERR).si_fd, c.mine);
  close(c.mine);
}

TEST_P(Sigio, RoomToWrite) {
  const int signal = SIGRTMIN + 3;
  const Awaited queued{signal};
  Connection c = connect_pair();
  make_async(c.mine, getpid(), signal);
  const std::vector<char> much(100'000, 'm');
  size_t sent = 0;
  for (ssize_t n; (n = send(c.mine, much.data(), much.size(), MSG_DONTWAIT)) > 0;) sent += static_cast<size_t>(n);
  EXPECT_EQ(errno, EAGAIN);
  const int job = peer.start(PeerOp::drain, c.theirs);
  EXPECT_EQ(queued.next_of(kPollOut).si_fd, c.mine);
  close(c.mine);
  EXPECT_GE(peer.finish(job).result, static_cast<int64_t>(sent));
  peer.close(c.theirs);
}

TEST_P(Sigio, ACopyOfTheDescriptor) {
  const int signal = SIGRTMIN + 3;
  const Awaited queued{signal};
  Connection c = connect_pair();
  const int copy = dup(c.mine);
  make_async(copy, getpid(), signal);
  close(c.mine);
  peer.send(c.theirs, "a");
  EXPECT_EQ(queued.next_of(kPollIn).si_fd, copy);
  close(copy);
  peer.close(c.theirs);
}

// Linux has no room for what a signal says: SIGIO comes in its place.
TEST_P(Sigio, AFullQueue) {
  const int signal = SIGRTMIN + 3;
  const Awaited both{signal, SIGIO};
  Connection c = connect_pair();
  make_async(c.mine, getpid(), signal);
  rlimit before;
  EXPECT_EQ(getrlimit(RLIMIT_SIGPENDING, &before), 0);
  const rlimit none{0, before.rlim_max};
  EXPECT_EQ(setrlimit(RLIMIT_SIGPENDING, &none), 0);
  peer.send(c.theirs, "a");
  EXPECT_EQ(both.next(), SIGIO);
  EXPECT_EQ(setrlimit(RLIMIT_SIGPENDING, &before), 0);
  expect_bytes(c.mine, "a");
  end(c);
}

TEST_P(Sigio, AThreadOwnsIt) {
  const Awaited sigio{SIGIO};
  Connection c = connect_pair();
  std::thread owner([&] {
    const f_owner_ex self{F_OWNER_TID, gettid()};
    EXPECT_EQ(fcntl(c.mine, F_SETOWN_EX, &self), 0);
    EXPECT_EQ(fcntl(c.mine, F_SETFL, O_RDWR | O_ASYNC), 0);
    peer.send(c.theirs, "a");
    EXPECT_EQ(sigio.next(), SIGIO);
  });
  owner.join();
  EXPECT_TRUE(sigio.none());
  end(c);
}

// Who waits for the owner's signal in its stead is another process, and all are of one family.
TEST_P(Sigio, AChildOwnsIt) {
  const Awaited sigio{SIGIO};
  Connection c = connect_pair();
  const pid_t child = fork();
  if (child == 0) _exit(sigio.next() == SIGIO ? 0 : 1);
  make_async(c.mine, child);
  peer.send(c.theirs, "a");
  expect_bytes(c.mine, "a");
  peer.send(c.theirs, "b");
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(sigio.none());
  end(c);
}

TEST_P(Sigio, AProcessGroupOwnsIt) {
  const Awaited sigio{SIGIO};
  Connection c = connect_pair();
  make_async(c.mine, -getpgrp());
  EXPECT_EQ(fcntl(c.mine, F_GETOWN), -getpgrp());
  peer.send(c.theirs, "a");
  EXPECT_EQ(sigio.next(), SIGIO);
  end(c);
}

// A reader that waits has no need of it.
TEST_P(Sigio, NotForWhoReads) {
  const Awaited sigio{SIGIO};
  Connection c = connect_pair();
  make_async(c.mine);
  const pid_t reader = gettid();
  std::thread later([&] {
    until_asleep(reader);
    peer.send(c.theirs, "a");
  });
  expect_bytes(c.mine, "a");
  later.join();
  EXPECT_TRUE(sigio.none());
  end(c);
}

std::atomic<int> handled{0};
void count_signal(int) { handled++; }

// The program does nothing but wait for a signal: nobody is in a call of the stack.
TEST_P(Sigio, AHandlerInAProgramThatPauses) {
  struct sigaction action{}, before;
  action.sa_handler = count_signal;
  EXPECT_EQ(sigaction(SIGIO, &action, &before), 0);
  const sigset_t set = set_of({SIGIO});
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, &set, &mask);
  Connection c = connect_pair();
  make_async(c.mine);
  handled = 0;
  peer.send(c.theirs, "a");
  while (handled == 0) sigsuspend(&mask);
  expect_bytes(c.mine, "a");
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  EXPECT_EQ(sigaction(SIGIO, &before, nullptr), 0);
  end(c);
}

class SigioElsewhere : public DiffTest {};

TEST_F(SigioElsewhere, AConnectionIsThere) {
  const int signal = SIGRTMIN + 3;
  const Awaited queued{signal};
  sockaddr_in at{};
  const int listener = peer.listen(&at);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  make_async(fd, getpid(), signal);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  EXPECT_EQ(queued.next_of(kPollOut).si_fd, fd);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  close(fd);
  peer.close(listener);
}

TEST_F(SigioElsewhere, AListener) {
  const int signal = SIGRTMIN + 3;
  const Awaited queued{signal};
  sockaddr_in at{};
  const int listener = listen_here(&at);
  make_async(listener, getpid(), signal);
  const int theirs = peer.socket();
  EXPECT_EQ(peer.connect(theirs, at).result, 0);
  EXPECT_EQ(queued.next_of(kPollIn).si_fd, listener);
  const int mine = accept(listener, nullptr, nullptr);
  EXPECT_GE(mine, 0);
  EXPECT_EQ(fcntl(mine, F_GETFL) & O_ASYNC, 0) << "not inherited";
  EXPECT_EQ(fcntl(mine, F_GETOWN), 0);
  close(mine);
  close(listener);
  peer.close(theirs);
}

TEST_P(Sigio, WhatIsToldOfIt) {
  Connection c = connect_pair();
  EXPECT_EQ(fcntl(c.mine, F_GETOWN), 0);
  EXPECT_EQ(fcntl(c.mine, F_SETOWN, getpid()), 0);
  EXPECT_EQ(fcntl(c.mine, F_GETOWN), getpid());
  EXPECT_EQ(fcntl(c.mine, F_SETSIG, 1000), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(fcntl(c.mine, F_SETSIG, SIGUSR1), 0);
  EXPECT_EQ(fcntl(c.mine, F_GETSIG), SIGUSR1);
  f_owner_ex owner{F_OWNER_TID, gettid()};
  EXPECT_EQ(fcntl(c.mine, F_SETOWN_EX, &owner), 0);
  owner = {};
  EXPECT_EQ(fcntl(c.mine, F_GETOWN_EX, &owner), 0);
  EXPECT_EQ(owner.type, F_OWNER_TID);
  EXPECT_EQ(owner.pid, gettid());
  int group = -getpgrp();
  EXPECT_EQ(ioctl(c.mine, SIOCSPGRP, &group), 0);
  EXPECT_EQ(fcntl(c.mine, F_GETOWN), -getpgrp());
  int told = 0;
  EXPECT_EQ(ioctl(c.mine, FIOGETOWN, &told), 0);
  EXPECT_EQ(told, group);
  int self = getpid();
  EXPECT_EQ(ioctl(c.mine, FIOSETOWN, &self), 0);
  EXPECT_EQ(ioctl(c.mine, SIOCGPGRP, &told), 0);
  EXPECT_EQ(told, self);
  EXPECT_EQ(fcntl(c.mine, F_SETOWN, 1 << 29), -1);
  EXPECT_EQ(errno, ESRCH);
  end(c);
}

}  // namespace
