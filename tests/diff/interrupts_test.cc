// What ends a wait: a signal beside a wake-up, handlers that wait themselves, negative timeouts, masks, cancellation.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "tests/lib/asleep.h"
#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

std::atomic<int> handled;
std::function<void()> in_handler;
void on_signal(int) {
  handled = handled + 1;
  if (in_handler) in_handler();
}

class Interrupts : public BothWays {
 protected:
  static void handle(int number, int flags, std::function<void()> then = {}) {
    in_handler = std::move(then);
    handled = 0;
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = flags;
    sigaction(number, &action, nullptr);
  }
  void TearDown() override { in_handler = {}; }
  // A connection whose send queue is full, to the last byte, and stays it.
  Connection full_pair() {
    Connection c = connect_pair();
    const std::vector<char> block(1 << 20);
    for (int quiet = 0; quiet < 7; poll(nullptr, 0, 100)) {  // the peer's window may still grow
      quiet++;
      for (const size_t size : {block.size(), size_t{1000}, size_t{1}}) {
        while (send(c.mine, block.data(), size, MSG_DONTWAIT) > 0) quiet = 0;
      }
    }
    return c;
  }
};
ZPS_BOTH_WAYS(Interrupts);

// A call in a thread of its own, which sleeps in it when the constructor returns.
struct Sleeper {
  explicit Sleeper(std::function<long()> call) : thread([this, call] {
    tid = gettid();
    errno = 0;
    result = call();
    error = errno;
    done = true;
  }) {
    while (tid == 0) sched_yield();
    until_asleep(tid);
  }
  ~Sleeper() {
    if (thread.joinable()) thread.join();
  }
  void signal(int number) { pthread_kill(thread.native_handle(), number); }
  std::atomic<pid_t> tid{0};
  std::atomic<bool> done{false};
  long result = -2;
  int error = 0;
  std::thread thread;
};

// The wake-up that is none of the sleeper's business and the signal come together: the handler may run before, in or after the kernel's
// sleep.
TEST_P(Interrupts, ASignalBesideAWakeUp) {
  handle(SIGUSR1, 0);
  for (int i = 0; i < 30; i++) {
    Connection c = connect_pair();
    Connection other = connect_pair();
    Sleeper reader([&] {
      char byte;
      return read(c.mine, &byte, 1);
    });
    if (i % 2 == 0) {
      EXPECT_EQ(shutdown(c.mine, SHUT_WR), 0);
    } else {
      EXPECT_EQ(dup2(other.mine, c.mine), c.mine);
    }
    reader.signal(SIGUSR1);
    reader.thread.join();
    ASSERT_EQ(reader.result, -1) << i;
    ASSERT_EQ(reader.error, EINTR) << i;
    close(c.mine);
    close(other.mine);
    peer.call(PeerOp::forget_all, -1);
  }
}

// Every kind of wait, each woken for nothing at the moment of the signal.
TEST_P(Interrupts, EveryWaitHearsOfASignal) {
  handle(SIGUSR1, SA_RESTART);
  sockaddr_in at{};
  const int listener = listen_here(&at);
  Connection c = connect_pair(), full = full_pair();
  const int set = epoll_create1(0);
  epoll_event event{EPOLLPRI, {}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  const timeval limit{60, 0};
  for (const int fd : {listener, c.mine, full.mine}) {
    ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
  }
  char byte;
  const std::function<long()> calls[] = {
      [&] { return read(c.mine, &byte, 1); },
      [&] { return recv(c.mine, &byte, 1, MSG_PEEK); },
      [&] { return recv(c.mine, &byte, 1, MSG_WAITALL); },
      [&] { return write(full.mine, &byte, 1); },
      [&] { return accept(listener, nullptr, nullptr); },
      [&] {
        epoll_event got{};
        return epoll_wait(set, &got, 1, -1);
      },
      [&] {
        pollfd one{c.mine, POLLPRI, 0};
        return poll(&one, 1, -1);
      },
      [&] {
        fd_set wanted;
        FD_ZERO(&wanted);
        FD_SET(c.mine, &wanted);
        return select(c.mine + 1, nullptr, nullptr, &wanted, nullptr);
      },
  };
  int number = 0;
  for (const auto& call : calls) {
    for (int i = 0; i < 3; i++) {
      Sleeper sleeper(call);
      // Whoever watches the sockets is woken by this, and finds that it is not for him.
      for (const int fd : {c.mine, full.mine}) shutdown(fd, SHUT_WR + 7);
      const int low = 1;
      setsockopt(c.mine, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
      sleeper.signal(SIGUSR1);
      sleeper.thread.join();
      EXPECT_EQ(sleeper.result, -1) << "call " << number;
      EXPECT_EQ(sleeper.error, EINTR) << "call " << number;
    }
    number++;
  }
}

// The first handler decides whether the call goes on; one that interrupts it has no say.
TEST_P(Interrupts, TheFirstHandlerDecides) {
  handle(SIGUSR2, 0);
  handle(SIGUSR1, SA_RESTART, [] {
    if (handled == 1) raise(SIGUSR2);
  });
  Connection c = connect_pair();
  char byte = 0;
  Sleeper reader([&] { return read(c.mine, &byte, 1); });
  reader.signal(SIGUSR1);
  while (handled < 2) sched_yield();
  until_asleep(reader.tid);
  EXPECT_FALSE(reader.done);
  peer.send(c.theirs, "x");
  reader.thread.join();
  EXPECT_EQ(reader.result, 1) << strerror(reader.error);
}

// What a handler does with sockets of its own is nothing to the call that it interrupted.
TEST_P(Interrupts, AHandlerThatWaitsItself) {
  Connection c = connect_pair(), other = connect_pair();
  std::atomic<int> stage{0};
  handle(SIGUSR1, SA_RESTART, [&] {
    pollfd many[100];
    for (pollfd& one : many) one = {other.mine, POLLIN, 0};
    EXPECT_EQ(poll(many, 100, 30000), 100);
    char two[2];
    const iovec parts[2] = {{two, 1}, {two + 1, 1}};
    EXPECT_EQ(readv(other.mine, parts, 2), 1);
    fd_set reads;
    FD_ZERO(&reads);
    FD_SET(c.mine, &reads);
    timeval soon{0, 5000};
    EXPECT_EQ(select(c.mine + 1, &reads, nullptr, nullptr, &soon), 0);
    stage = stage + 1;
  });
  std::vector<char> memory(40, '.');
  Sleeper reader([&] {
    std::vector<iovec> parts;
    for (char& byte : memory) parts.push_back({&byte, 1});
    return readv(c.mine, parts.data(), static_cast<int>(parts.size()));
  });
  for (int i = 1; i <= 3; i++) {
    reader.signal(SIGUSR1);
    while (handled < i) sched_yield();
    until_asleep(reader.tid);
    peer.send(other.theirs, "h");
    while (stage < i) sched_yield();
    until_asleep(reader.tid);
    ASSERT_FALSE(reader.done) << reader.result << " " << strerror(reader.error);
  }
  peer.send(c.theirs, "forty bytes in forty parts, each in order");
  reader.thread.join();
  EXPECT_EQ(reader.result, 40) << strerror(reader.error);
  EXPECT_EQ(std::string(memory.data(), 40), "forty bytes in forty parts, each in orde");
}

// A restarted call looks its descriptor up again.
TEST_P(Interrupts, AHandlerThatClosesOrReplaces) {
  Connection c = connect_pair(), other = connect_pair();
  handle(SIGUSR1, SA_RESTART, [&] { close(c.mine); });
  char byte = 0;
  {
    Sleeper reader([&] { return read(c.mine, &byte, 1); });
    reader.signal(SIGUSR1);
    reader.thread.join();
    EXPECT_EQ(reader.result, -1);
    EXPECT_EQ(reader.error, EBADF);
  }
  Connection next = connect_pair();
  handle(SIGUSR1, SA_RESTART, [&] { EXPECT_EQ(dup2(other.mine, next.mine), next.mine); });
  Sleeper reader([&] { return read(next.mine, &byte, 1); });
  reader.signal(SIGUSR1);
  while (handled == 0) sched_yield();
  peer.send(other.theirs, "o");
  reader.thread.join();
  EXPECT_EQ(reader.result, 1);
  EXPECT_EQ(byte, 'o');
}

// The file's bytes wait in a buffer of the thread's, which the handler uses too.
TEST_P(Interrupts, SendfileUnderAHandlerThatSelects) {
  Connection c = connect_pair();
  constexpr size_t kSize = 8000000;
  const int file = open(scratch_file("content").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  const std::string content = pattern(31, 0, kSize);
  ASSERT_EQ(write(file, content.data(), content.size()), static_cast<ssize_t>(kSize));
  handle(SIGUSR1, SA_RESTART, [&] {
    fd_set reads;
    FD_ZERO(&reads);
    for (int fd = 3; fd < 1000; fd++) {
      if (fcntl(fd, F_GETFD) >= 0) FD_SET(fd, &reads);
    }
    timeval now{0, 1};
    select(1000, &reads, nullptr, nullptr, &now);
  });
  std::atomic<size_t> sent{0};
  Sleeper sender([&] {
    off_t offset = 0;
    while (sent < kSize) {
      const ssize_t n = sendfile(c.mine, file, &offset, kSize - sent);
      if (n <= 0) return -1l;
      sent = sent + static_cast<size_t>(n);
    }
    return 0l;
  });
  const int job = peer.start(PeerOp::check_pattern, c.theirs, 31, kSize, 20000);
  for (int i = 0; i < 300 && !sender.done; i++) {
    sender.signal(SIGUSR1);
    poll(nullptr, 0, 1);
  }
  sender.thread.join();
  EXPECT_EQ(sender.result, 0) << strerror(sender.error);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kSize));
  close(file);
}

// ppoll and pselect let signals in even if they do not wait; epoll_pwait only if it waits.
TEST_P(Interrupts, MasksThatLetASignalIn) {
  handle(SIGUSR1, SA_RESTART);
  Connection c = connect_pair();
  sigset_t blocked, none;
  sigemptyset(&none);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &blocked, nullptr), 0);
  const timespec zero{0, 0};
  pollfd one{c.mine, POLLIN, 0};
  raise(SIGUSR1);
  EXPECT_EQ(ppoll(&one, 1, &zero, nullptr), 0);
  EXPECT_EQ(ppoll(&one, 1, &zero, &blocked), 0);
  EXPECT_EQ(handled, 0);
  EXPECT_EQ(ppoll(&one, 1, &zero, &none), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_EQ(handled, 1);
  EXPECT_EQ(ppoll(&one, 1, &zero, &none), 0) << "none is left";
  raise(SIGUSR1);
  fd_set reads;
  FD_ZERO(&reads);
  FD_SET(c.mine, &reads);
  EXPECT_EQ(pselect(c.mine + 1, &reads, nullptr, nullptr, &zero, &none), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_EQ(handled, 2);
  EXPECT_TRUE(FD_ISSET(c.mine, &reads)) << "untouched";
  const int set = epoll_create1(0);
  epoll_event event{EPOLLIN, {}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  raise(SIGUSR1);
  EXPECT_EQ(epoll_pwait(set, &event, 1, 0, &none), 0);
  EXPECT_EQ(handled, 2);
  EXPECT_EQ(epoll_pwait(set, &event, 1, 60000, &none), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_EQ(handled, 3);
  // What is there comes first.
  raise(SIGUSR1);
  peer.send(c.theirs, "x");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(ppoll(&one, 1, &zero, &none), 1);
  EXPECT_EQ(epoll_pwait(set, &event, 1, 60000, &none), 1);
  EXPECT_EQ(handled, 3);
  ASSERT_EQ(pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr), 0);
  EXPECT_EQ(handled, 4);
}

// A negative timeout is one that is over.
TEST_P(Interrupts, NegativeTimeouts) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  Connection c = connect_pair(), full = full_pair();
  for (const timeval never : {timeval{-1, 0}, timeval{-5, 999999}, timeval{INT64_MIN, 7}}) {
    for (const int fd : {listener, c.mine, full.mine}) {
      for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
        ASSERT_EQ(setsockopt(fd, SOL_SOCKET, option, &never, sizeof never), 0);
        timeval told{1, 1};
        socklen_t size = sizeof told;
        ASSERT_EQ(getsockopt(fd, SOL_SOCKET, option, &told, &size), 0);
        EXPECT_EQ(told.tv_sec, 0);
        EXPECT_EQ(told.tv_usec, 0);
      }
    }
    char bytes[2];
    EXPECT_EQ(recv(c.mine, bytes, 2, 0), -1);
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_EQ(recv(c.mine, bytes, 2, MSG_PEEK), -1);
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_EQ(accept(listener, nullptr, nullptr), -1);
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_EQ(write(full.mine, bytes, 2), -1);
    EXPECT_EQ(errno, EAGAIN);
  }
  peer.send(c.theirs, "1");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  char bytes[2];
  EXPECT_EQ(recv(c.mine, bytes, 2, MSG_WAITALL), 1) << "what is there";
  // Accepted sockets inherit it, and a positive or zero one takes it back.
  const int theirs = peer.socket();
  const int job = peer.start_connect(theirs, at);
  ASSERT_TRUE(wait_for(listener, POLLIN));
  const int accepted = accept(listener, nullptr, nullptr);
  ASSERT_GE(accepted, 0);
  EXPECT_EQ(peer.finish(job).result, 0);
  EXPECT_EQ(read(accepted, bytes, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  const timeval none{0, 0};
  ASSERT_EQ(setsockopt(accepted, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none), 0);
  Sleeper reader([&] { return read(accepted, bytes, 1); });
  EXPECT_FALSE(reader.done);
  peer.send(theirs, "z");
  reader.thread.join();
  EXPECT_EQ(reader.result, 1);
}

TEST_P(Interrupts, TimeoutsThatAreRefusedOrHuge) {
  Connection c = connect_pair();
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    for (const timeval wrong : {timeval{0, -1}, timeval{0, 1000000}, timeval{-1, -1}, timeval{-1, 1000000}}) {
      EXPECT_EQ(setsockopt(c.mine, SOL_SOCKET, option, &wrong, sizeof wrong), -1);
      EXPECT_EQ(errno, EDOM);
    }
  }
  // These are longer than any test: the reader is asleep in each, and a signal ends it.
  for (const int64_t seconds : {INT64_MAX, INT64_MAX / 1000, int64_t{100000000000000}, int64_t{10000000000}}) {
    const timeval huge{seconds, 999999};
    ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &huge, sizeof huge), 0);
    handle(SIGUSR1, 0);
    char byte;
    Sleeper reader([&] { return read(c.mine, &byte, 1); });
    EXPECT_FALSE(reader.done) << huge.tv_sec;
    reader.signal(SIGUSR1);
    reader.thread.join();
    EXPECT_EQ(reader.error, EINTR) << huge.tv_sec;
  }
}

// connect() waits as SO_SNDTIMEO says; a second one joins the attempt that is under way, and a handler with SA_RESTART makes it a second
// one.
TEST_P(Interrupts, Connecting) {
  // Nobody answers for an address of the peer's network that nobody has: three seconds until the host is unreachable.
  sockaddr_in nobody = peer_address(htons(9));
  nobody.sin_addr.s_addr = htonl(ntohl(nobody.sin_addr.s_addr) + 100);
  const auto* to = reinterpret_cast<const sockaddr*>(&nobody);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  timeval limit{-1, 0};
  ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
  EXPECT_EQ(connect(fd, to, sizeof nobody), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  EXPECT_EQ(connect(fd, to, sizeof nobody), -1);
  EXPECT_EQ(errno, EALREADY);
  limit = {0, 20000};
  ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
  EXPECT_EQ(connect(fd, to, sizeof nobody), -1);
  EXPECT_EQ(errno, EALREADY);
  limit = {0, 0};
  ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
  handle(SIGUSR1, 0);
  handle(SIGUSR2, SA_RESTART);
  {
    Sleeper second([&] { return connect(fd, to, sizeof nobody); });
    second.signal(SIGUSR2);
    while (handled < 1) sched_yield();
    until_asleep(second.tid);
    EXPECT_FALSE(second.done);
    second.signal(SIGUSR1);
    second.thread.join();
    EXPECT_EQ(second.result, -1);
    EXPECT_EQ(second.error, EINTR);
  }
  close(fd);
}

struct Cancelled {
  std::function<void()> call;
  std::atomic<pid_t> tid{0};
  std::atomic<int> cleaned{0};
};

void clean_up(void* opaque) { static_cast<Cancelled*>(opaque)->cleaned = 1; }

void* cancelled_main(void* opaque) {
  auto* self = static_cast<Cancelled*>(opaque);
  pthread_cleanup_push(clean_up, self);
  self->tid = gettid();
  for (;;) self->call();
  pthread_cleanup_pop(0);
  return nullptr;
}

TEST_P(Interrupts, Cancellation) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  Connection c = connect_pair(), full = full_pair();
  const int set = epoll_create1(0);
  epoll_event event{EPOLLIN, {}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  static char byte;
  static Connection where, where_full;
  where = c;
  where_full = full;
  const std::function<void()> calls[] = {
      [] { (void)!read(where.mine, &byte, 1); },
      [] { (void)!write(where_full.mine, &byte, 1); },
      [=] { (void)accept(listener, nullptr, nullptr); },
      [=] {
        epoll_event got{};
        (void)epoll_wait(set, &got, 1, -1);
      },
      [] {
        pollfd one{where.mine, POLLIN, 0};
        (void)poll(&one, 1, -1);
      },
  };
  for (int round = 0; round < 5; round++) {
    for (const auto& call : calls) {
      Cancelled given{call};
      pthread_t thread;
      ASSERT_EQ(pthread_create(&thread, nullptr, cancelled_main, &given), 0);
      while (given.tid == 0) sched_yield();
      if (round != 0) until_asleep(given.tid);
      ASSERT_EQ(pthread_cancel(thread), 0);
      void* result = nullptr;
      ASSERT_EQ(pthread_join(thread, &result), 0);
      EXPECT_EQ(result, PTHREAD_CANCELED);
      EXPECT_EQ(given.cleaned, 1);
    }
  }
  peer.send(c.theirs, "fine");
  EXPECT_EQ(read_all(c.mine, 4), "fine");
}

}  // namespace
