// splice() between pipes and connections, both ways: counts, modes, offsets, ends, errors, time, signals, and every byte once.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>
#include <vector>

#include "tests/lib/asleep.h"
#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

std::atomic<int> sigpipes;
void on_sigpipe(int) { sigpipes = sigpipes + 1; }
std::atomic<int> alarms;
void on_alarm(int) { alarms = alarms + 1; }

class Splice : public BothWays {
 protected:
  void SetUp() override {
    ASSERT_EQ(pipe(ends_), 0);
    sigpipes = 0;
    signal(SIGPIPE, on_sigpipe);
  }
  void TearDown() override {
    for (const int end : ends_) close(end);
  }
  [[nodiscard]] long in(int socket, size_t count, unsigned flags = 0) const {
    return splice(socket, nullptr, ends_[1], nullptr, count, flags);
  }
  [[nodiscard]] long out(int socket, size_t count, unsigned flags = 0) const {
    return splice(ends_[0], nullptr, socket, nullptr, count, flags);
  }
  [[nodiscard]] int held() const {
    int bytes = -1;
    EXPECT_EQ(ioctl(ends_[0], FIONREAD, &bytes), 0);
    return bytes;
  }
  void fill_pipe() const {
    const std::vector<char> page(4096, 'f');
    ASSERT_EQ(fcntl(ends_[1], F_SETFL, O_NONBLOCK), 0);
    while (write(ends_[1], page.data(), page.size()) > 0) {
    }
    ASSERT_EQ(fcntl(ends_[1], F_SETFL, 0), 0);
  }
  // What is left of the peer's window when it is less than a segment is used when the sender's timer has run (RFC 9293, 3.8.6.2.1).
  static void fill_socket(int fd) {
    const std::vector<char> block(1 << 20);
    for (int quiet = 0; quiet < 14; poll(nullptr, 0, 50)) {
      quiet++;
      for (const size_t size : {block.size(), size_t{1000}, size_t{1}}) {
        while (send(fd, block.data(), size, MSG_DONTWAIT) > 0) quiet = 0;
      }
    }
  }
  int ends_[2] = {-1, -1};
};
ZPS_BOTH_WAYS(Splice);

#define EXPECT_REFUSED(error, call) \
  EXPECT_EQ(call, -1);              \
  EXPECT_EQ(errno, error) << strerror(errno)

TEST_P(Splice, BothDirections) {
  Connection c = connect_pair();
  ASSERT_EQ(write(ends_[1], "through the pipe", 16), 16);
  EXPECT_EQ(out(c.mine, 7, SPLICE_F_MOVE), 7);
  EXPECT_EQ(out(c.mine, 100, SPLICE_F_MORE), 9) << "what the pipe has";
  EXPECT_EQ(peer.recv_all(c.theirs, 7), "through");
  ASSERT_EQ(write(ends_[1], "!", 1), 1);
  EXPECT_EQ(out(c.mine, 1), 1);
  EXPECT_EQ(peer.recv_all(c.theirs, 10), " the pipe!");
  peer.send(c.theirs, "and back");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(in(c.mine, 3), 3);
  EXPECT_EQ(in(c.mine, 100), 5);
  EXPECT_EQ(read_all(ends_[0], 8), "and back");
  EXPECT_EQ(in(c.mine, 0), 0);
  EXPECT_EQ(out(c.mine, 0), 0);
}

TEST_P(Splice, EndsOfThings) {
  Connection c = connect_pair();
  peer.send(c.theirs, "last");
  peer.shutdown(c.theirs, SHUT_WR);
  ASSERT_TRUE(wait_for(c.mine, POLLRDHUP) & POLLRDHUP);
  EXPECT_EQ(in(c.mine, 100), 4);
  EXPECT_EQ(in(c.mine, 100), 0) << "the end of the stream";
  EXPECT_EQ(in(c.mine, 100), 0);
  close(ends_[1]);
  EXPECT_EQ(out(c.mine, 100), 4) << "what is left in the pipe";
  EXPECT_EQ(out(c.mine, 100), 0) << "the end of the pipe";
  EXPECT_EQ(peer.recv_all(c.theirs, 4), "last");
  ends_[1] = -1;
  Connection shut = connect_pair();
  ASSERT_EQ(shutdown(shut.mine, SHUT_WR), 0);
  EXPECT_EQ(out(shut.mine, 100), 0) << "there is nothing to write";
  EXPECT_EQ(sigpipes, 0);
}

TEST_P(Splice, WhatIsRefused) {
  Connection c = connect_pair(), other = connect_pair();
  const int file = open(scratch_file("file").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  ASSERT_EQ(write(ends_[1], "kept", 4), 4);
  peer.send(c.theirs, "kept");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  loff_t offset = 0;
  auto* nowhere = reinterpret_cast<loff_t*>(8);
  EXPECT_REFUSED(EINVAL, splice(ends_[0], nullptr, c.mine, &offset, 4, 0));
  EXPECT_REFUSED(ESPIPE, splice(ends_[0], &offset, c.mine, nullptr, 4, 0));
  EXPECT_REFUSED(EINVAL, splice(c.mine, &offset, ends_[1], nullptr, 4, 0));
  EXPECT_REFUSED(ESPIPE, splice(c.mine, nullptr, ends_[1], &offset, 4, 0));
  EXPECT_REFUSED(EFAULT, splice(c.mine, nowhere, ends_[1], nullptr, 4, 0));
  EXPECT_REFUSED(EFAULT, splice(ends_[0], nullptr, c.mine, nowhere, 4, 0));
  EXPECT_REFUSED(EINVAL, splice(c.mine, nullptr, other.mine, nullptr, 4, 0));
  EXPECT_REFUSED(EINVAL, splice(c.mine, nullptr, c.mine, nullptr, 4, 0));
  EXPECT_REFUSED(EINVAL, splice(c.mine, nullptr, file, nullptr, 4, 0));
  EXPECT_REFUSED(EINVAL, splice(file, nullptr, c.mine, nullptr, 4, 0));
  EXPECT_REFUSED(EINVAL, splice(ends_[0], nullptr, c.mine, nullptr, 4, 0x10));
  EXPECT_REFUSED(EINVAL, splice(c.mine, nullptr, ends_[1], nullptr, 4, 0x80000000));
  EXPECT_REFUSED(EBADF, splice(c.mine, nullptr, ends_[0], nullptr, 4, 0));
  EXPECT_REFUSED(EBADF, splice(ends_[1], nullptr, c.mine, nullptr, 4, 0));
  EXPECT_REFUSED(EBADF, splice(-1, nullptr, c.mine, nullptr, 4, 0));
  EXPECT_REFUSED(EBADF, splice(c.mine, nullptr, 997, nullptr, 4, 0));
  EXPECT_REFUSED(EINVAL, splice(c.mine, nullptr, ends_[1], nullptr, SIZE_MAX, 0));
  EXPECT_REFUSED(EINVAL, splice(ends_[0], nullptr, c.mine, nullptr, SIZE_MAX, 0));
  ASSERT_EQ(fcntl(c.mine, F_SETFL, O_APPEND), 0);
  EXPECT_REFUSED(EINVAL, out(c.mine, 4));
  ASSERT_EQ(fcntl(c.mine, F_SETFL, 0), 0);
  EXPECT_EQ(splice(c.mine, nullptr, 997, nullptr, 0, 0x10), 0) << "nothing to do is looked at first";
  // Pipes among themselves, and memory: a socket is no pipe.
  EXPECT_REFUSED(EINVAL, tee(c.mine, ends_[1], 4, 0));
  EXPECT_REFUSED(EINVAL, tee(ends_[0], c.mine, 4, 0));
  char bytes[4];
  const iovec part{bytes, 4};
  EXPECT_REFUSED(EBADF, vmsplice(c.mine, &part, 1, 0));
  EXPECT_EQ(held(), 4);
  EXPECT_EQ(out(c.mine, 4), 4);
  EXPECT_EQ(peer.recv_all(c.theirs, 4), "kept");
  EXPECT_EQ(read_all(c.mine, 4), "kept");
  close(file);
}

TEST_P(Splice, Listeners) {
  sockaddr_in at{};
  const int listener = listen_here(&at), fresh = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(write(ends_[1], "kept", 4), 4);
  for (const int fd : {listener, fresh}) {
    EXPECT_REFUSED(ENOTCONN, in(fd, 4));
    sigpipes = 0;
    EXPECT_REFUSED(EPIPE, out(fd, 4));
    EXPECT_EQ(sigpipes, 1);
  }
  EXPECT_EQ(held(), 4);
  close(listener);
  close(fresh);
}

TEST_P(Splice, NonblockingEverywhere) {
  Connection c = connect_pair();
  // The pipe's side: a flag of the call or of the pipe. The socket's side: its own mode only.
  EXPECT_REFUSED(EAGAIN, out(c.mine, 4, SPLICE_F_NONBLOCK));
  ASSERT_EQ(fcntl(ends_[0], F_SETFL, O_NONBLOCK), 0);
  EXPECT_REFUSED(EAGAIN, out(c.mine, 4));
  ASSERT_EQ(fcntl(c.mine, F_SETFL, O_NONBLOCK), 0);
  EXPECT_REFUSED(EAGAIN, in(c.mine, 4));
  fill_pipe();
  peer.send(c.theirs, "x");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_REFUSED(EAGAIN, in(c.mine, 4, SPLICE_F_NONBLOCK));
  ASSERT_EQ(fcntl(ends_[1], F_SETFL, O_NONBLOCK), 0);
  EXPECT_REFUSED(EAGAIN, in(c.mine, 4));
  EXPECT_EQ(read_all(c.mine, 1), "x") << "still there";
  fill_socket(c.mine);
  const int before = held();
  EXPECT_REFUSED(EAGAIN, out(c.mine, 4));
  EXPECT_EQ(held(), before) << "still there";
  // The flag does not concern the socket: this waits for it.
  ASSERT_EQ(fcntl(c.mine, F_SETFL, 0), 0);
  const timeval limit{0, 50000};
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  uint64_t start = now_ms();
  EXPECT_REFUSED(EAGAIN, out(c.mine, 4, SPLICE_F_NONBLOCK));
  EXPECT_GE(now_ms() - start + 1, 50u);
  EXPECT_EQ(held(), before);
  EXPECT_EQ(read_all(ends_[0], 8192).size(), 8192u);
  start = now_ms();
  EXPECT_REFUSED(EAGAIN, in(c.mine, 4, SPLICE_F_NONBLOCK));
  EXPECT_GE(now_ms() - start + 1, 50u);
}

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
  std::atomic<pid_t> tid{0};
  std::atomic<bool> done{false};
  long result = -2;
  int error = 0;
  std::thread thread;
};

TEST_P(Splice, Waiting) {
  Connection c = connect_pair();
  {
    Sleeper filler([&] { return in(c.mine, 100); });
    EXPECT_FALSE(filler.done);
    peer.send(c.theirs, "late");
    filler.thread.join();
    EXPECT_EQ(filler.result, 4);
  }
  EXPECT_EQ(read_all(ends_[0], 4), "late");
  {
    Sleeper drainer([&] { return out(c.mine, 100); });
    EXPECT_FALSE(drainer.done);
    ASSERT_EQ(write(ends_[1], "later", 5), 5);
    drainer.thread.join();
    EXPECT_EQ(drainer.result, 5);
  }
  EXPECT_EQ(peer.recv_all(c.theirs, 5), "later");
  fill_pipe();
  const int full = held();
  peer.send(c.theirs, "after the pipe");
  Sleeper filler([&] { return in(c.mine, 100); });
  EXPECT_FALSE(filler.done);
  EXPECT_EQ(read_all(ends_[0], static_cast<size_t>(full)).size(), static_cast<size_t>(full));
  filler.thread.join();
  EXPECT_EQ(filler.result, 14);
  EXPECT_EQ(read_all(ends_[0], 14), "after the pipe");
}

TEST_P(Splice, SignalsAndRestart) {
  struct sigaction action {};
  action.sa_handler = on_alarm;
  sigaction(SIGUSR1, &action, nullptr);
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR2, &action, nullptr);
  Connection c = connect_pair();
  const std::function<long()> calls[] = {[&] { return in(c.mine, 100); }, [&] { return out(c.mine, 100); }};
  for (const auto& call : calls) {
    alarms = 0;
    Sleeper sleeper(call);
    pthread_kill(sleeper.thread.native_handle(), SIGUSR2);
    while (alarms == 0) sched_yield();
    until_asleep(sleeper.tid);
    EXPECT_FALSE(sleeper.done);
    pthread_kill(sleeper.thread.native_handle(), SIGUSR1);
    sleeper.thread.join();
    EXPECT_EQ(sleeper.result, -1);
    EXPECT_EQ(sleeper.error, EINTR);
  }
  const timeval limit{60, 0};
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  Sleeper sleeper(calls[0]);
  pthread_kill(sleeper.thread.native_handle(), SIGUSR2);
  sleeper.thread.join();
  EXPECT_EQ(sleeper.error, EINTR) << "a timeout forbids the restart";
}

sigjmp_buf jump;
void jump_out(int) { siglongjmp(jump, 1); }

// A handler may leave for good: the next call finds all in order, and no memory is lost on the way.
TEST_P(Splice, LeftByAJump) {
  Connection c = connect_pair();
  struct sigaction action {};
  action.sa_handler = jump_out;
  action.sa_flags = SA_NODEFER;
  sigaction(SIGALRM, &action, nullptr);
  const auto mappings = [] {
    std::ifstream file("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  };
  static long before;
  static int rounds;
  rounds = 0;
  while (rounds < 100) {
    if (sigsetjmp(jump, 1) == 0) {
      if (rounds == 10) before = mappings();
      const itimerval soon{{0, 0}, {0, 500}};
      setitimer(ITIMER_REAL, &soon, nullptr);
      if ((rounds % 2 == 0 ? in(c.mine, 100) : out(c.mine, 100)) != -2) rounds += 1000;
    }
    rounds++;
  }
  EXPECT_EQ(rounds, 100) << "every round left by the jump";
  EXPECT_LT(mappings(), before + 20);
  peer.send(c.theirs, "fine");
  EXPECT_EQ(in(c.mine, 100), 4);
  EXPECT_EQ(out(c.mine, 100), 4);
  EXPECT_EQ(peer.recv_all(c.theirs, 4), "fine");
}

TEST_P(Splice, NobodyReads) {
  Connection c = connect_pair();
  peer.send(c.theirs, "data");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  close(ends_[0]);
  ends_[0] = -1;
  EXPECT_REFUSED(EPIPE, in(c.mine, 4));
  EXPECT_EQ(sigpipes, 1);
  EXPECT_EQ(read_all(c.mine, 4), "data") << "still there";
  close(ends_[1]);
  ASSERT_EQ(pipe(ends_), 0);
  ASSERT_EQ(write(ends_[1], "kept", 4), 4);
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_REFUSED(EPIPE, out(c.mine, 4));
  EXPECT_EQ(sigpipes, 2);
  EXPECT_EQ(held(), 4);
}

TEST_P(Splice, AfterAReset) {
  Connection c = connect_pair();
  ASSERT_EQ(write(ends_[1], "kept", 4), 4);
  peer.reset(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, POLLERR) & POLLERR);
  EXPECT_REFUSED(ECONNRESET, in(c.mine, 4));
  EXPECT_EQ(in(c.mine, 4), 0);
  Connection d = connect_pair();
  peer.reset(d.theirs);
  ASSERT_TRUE(wait_for(d.mine, POLLERR) & POLLERR);
  EXPECT_REFUSED(ECONNRESET, out(d.mine, 4));
  EXPECT_EQ(sigpipes, 0);
  EXPECT_REFUSED(EPIPE, out(d.mine, 4));
  EXPECT_EQ(sigpipes, 1);
  EXPECT_EQ(held(), 4);
}

// Through small, large and full pipes, by every mode: the peer gets back what it sent.
TEST_P(Splice, AnErrorBehindTheLastByteIsKept) {
  Connection c = connect_pair();
  peer.send(c.theirs, "last");
  ASSERT_EQ(write(c.mine, "unread", 6), 6);
  peer.reset(c.theirs);
  ASSERT_NE(wait_for(c.mine, 0) & POLLERR, 0);
  EXPECT_EQ(in(c.mine, 100), 4);
  EXPECT_REFUSED(ECONNRESET, in(c.mine, 100));
  EXPECT_EQ(in(c.mine, 100), 0);
}

TEST_P(Splice, EveryByteOnce) {
  Random random(17);
  for (const int capacity : {4096, 65536, 1048576}) {
    Connection c = connect_pair();
    ASSERT_GE(fcntl(ends_[0], F_SETPIPE_SZ, capacity), capacity);
    const int64_t total = 3000000;
    const int back = peer.start(PeerOp::check_pattern, c.theirs, 77, total, 50000);
    const int forth = peer.start(PeerOp::send_pattern, c.theirs, 77, total, 30000);
    int64_t filled = 0, drained = 0;
    while (drained < total) {
      const unsigned flags = random.next() % 2 == 0 ? SPLICE_F_NONBLOCK : 0;
      ASSERT_EQ(fcntl(c.mine, F_SETFL, random.next() % 2 == 0 ? O_NONBLOCK : 0), 0);
      if (filled < total && (drained == filled || random.next() % 2 == 0)) {
        ASSERT_EQ(fcntl(ends_[1], F_SETFL, held() > 0 ? O_NONBLOCK : 0), 0);
        const long moved = in(c.mine, random.size(1, 200000), flags);
        ASSERT_EQ(fcntl(ends_[1], F_SETFL, 0), 0);
        ASSERT_TRUE(moved > 0 || errno == EAGAIN) << moved << strerror(errno);
        filled += moved > 0 ? moved : 0;
      } else {
        const long moved = out(c.mine, random.size(1, 200000), flags);
        ASSERT_TRUE(moved > 0 || errno == EAGAIN) << moved << strerror(errno);
        drained += moved > 0 ? moved : 0;
      }
      ASSERT_EQ(held(), filled - drained) << "what was counted is in the pipe";
    }
    EXPECT_EQ(peer.finish(forth).result, total);
    EXPECT_EQ(peer.finish(back).result, total);
    close(c.mine);
  }
}

// Readers of all kinds share one stream: each byte reaches exactly one.
TEST_P(Splice, ReadersBesideIt) {
  Connection c = connect_pair();
  const int64_t total = 3000000;
  std::atomic<int64_t> seen{0};
  std::atomic<uint64_t> sum{0};
  const auto count = [&](const char* data, ssize_t n) {
    uint64_t part = 0;
    for (ssize_t i = 0; i < n; i++) part += static_cast<uint8_t>(data[i]);
    seen += n;
    sum += part;
  };
  const auto mover = [&](bool splices) {
    std::vector<char> buffer(1 << 16);
    int own[2];
    ASSERT_EQ(pipe(own), 0);
    for (;;) {
      ssize_t n = splices ? splice(c.mine, nullptr, own[1], nullptr, 30000, 0) : read(c.mine, buffer.data(), 30000);
      ASSERT_GE(n, 0) << strerror(errno);
      if (n == 0) break;
      ASSERT_EQ(splices ? read(own[0], buffer.data(), buffer.size()) : n, n);
      count(buffer.data(), n);
    }
    close(own[0]);
    close(own[1]);
  };
  const int job = peer.start(PeerOp::send_pattern, c.theirs, 5, total, 30000);
  std::vector<std::thread> movers;
  for (int i = 0; i < 4; i++) movers.emplace_back(mover, i % 2 == 0);
  EXPECT_EQ(peer.finish(job).result, total);
  peer.shutdown(c.theirs, SHUT_WR);
  for (std::thread& one : movers) one.join();
  EXPECT_EQ(seen, total);
  uint64_t expected = 0;
  for (int64_t i = 0; i < total; i++) expected += pattern_byte(5, static_cast<uint64_t>(i));
  EXPECT_EQ(sum, expected);
}

// Several drain one pipe into several connections, and several fill one pipe: nothing is lost, nothing comes twice.
TEST_P(Splice, SeveralAtOnePipe) {
  constexpr int kEach = 1000000;
  Connection to[2] = {connect_pair(), connect_pair()}, from[2] = {connect_pair(), connect_pair()};
  int jobs[4];
  for (int i = 0; i < 2; i++) jobs[i] = peer.start(PeerOp::drain, to[i].theirs);
  std::vector<std::thread> movers;
  std::atomic<int64_t> filled{0}, drained{0};
  for (int i = 0; i < 2; i++) {
    movers.emplace_back([&, i] {
      for (int64_t left = kEach; left > 0;) {
        const long n = splice(from[i].mine, nullptr, ends_[1], nullptr, static_cast<size_t>(left), i == 0 ? SPLICE_F_NONBLOCK : 0);
        if (n < 0 && errno == EAGAIN) continue;
        ASSERT_GT(n, 0) << strerror(errno);
        left -= n;
        filled += n;
      }
    });
    movers.emplace_back([&, i] {
      for (;;) {
        const long n = splice(ends_[0], nullptr, to[i].mine, nullptr, 100000, i == 0 ? SPLICE_F_NONBLOCK : 0);
        if (n < 0 && errno == EAGAIN) continue;
        ASSERT_GE(n, 0) << strerror(errno);
        if (n == 0) break;
        drained += n;
      }
      shutdown(to[i].mine, SHUT_WR);
    });
  }
  for (int i = 0; i < 2; i++) jobs[2 + i] = peer.start(PeerOp::send_pattern, from[i].theirs, 5, kEach, 30000);
  movers[0].join();
  movers[2].join();
  close(ends_[1]);
  ends_[1] = -1;
  movers[1].join();
  movers[3].join();
  EXPECT_EQ(filled, 2 * kEach);
  EXPECT_EQ(drained, 2 * kEach);
  int64_t arrived = 0;
  for (int i = 0; i < 2; i++) arrived += peer.finish(jobs[i]).result;
  EXPECT_EQ(arrived, 2 * kEach);
  for (int i = 2; i < 4; i++) EXPECT_EQ(peer.finish(jobs[i]).result, kEach);
}

TEST_P(Splice, SendfileAndPipes) {
  Connection c = connect_pair();
  peer.send(c.theirs, "into a pipe");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  off_t offset = 0;
  EXPECT_REFUSED(ESPIPE, sendfile(ends_[1], c.mine, &offset, 11));
  EXPECT_EQ(sendfile(ends_[1], c.mine, nullptr, 4), 4);
  EXPECT_EQ(sendfile(ends_[1], c.mine, nullptr, 100), 7);
  EXPECT_EQ(held(), 11);
  EXPECT_REFUSED(EINVAL, sendfile(c.mine, ends_[0], nullptr, 11));
  EXPECT_REFUSED(ESPIPE, sendfile(c.mine, ends_[0], &offset, 11));
  EXPECT_REFUSED(EINVAL, sendfile(c.mine, c.mine, nullptr, 11));
  loff_t none = 0;
  const int file = open(scratch_file("file").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  EXPECT_REFUSED(EINVAL, copy_file_range(file, nullptr, c.mine, nullptr, 11, 0));
  EXPECT_REFUSED(EINVAL, copy_file_range(c.mine, nullptr, file, &none, 11, 0));
  EXPECT_EQ(read_all(ends_[0], 11), "into a pipe");
  close(file);
}

// A FIFO is a pipe too, also one that is open both ways.
TEST_P(Splice, Fifos) {
  Connection c = connect_pair();
  const std::string path = scratch_file("fifo");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const int fifo = open(path.c_str(), O_RDWR);
  ASSERT_EQ(write(fifo, "first in", 8), 8);
  EXPECT_EQ(splice(fifo, nullptr, c.mine, nullptr, 100, 0), 8);
  EXPECT_EQ(peer.recv_all(c.theirs, 8), "first in");
  peer.send(c.theirs, "first out");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(splice(c.mine, nullptr, fifo, nullptr, 100, 0), 9);
  EXPECT_EQ(read_all(fifo, 9), "first out");
  close(fifo);
}

// Edge-triggered loops hear of what comes, and of room, as they do with read() and write().
TEST_P(Splice, EdgesComeBack) {
  Connection c = connect_pair();
  ASSERT_EQ(fcntl(c.mine, F_SETFL, O_NONBLOCK), 0);
  const int set = epoll_create1(0);
  epoll_event event{EPOLLIN | EPOLLOUT | EPOLLET, {}};
  ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  while (epoll_wait(set, &event, 1, 50) > 0) {
  }
  EXPECT_REFUSED(EAGAIN, in(c.mine, 100));
  peer.send(c.theirs, "edge");
  ASSERT_EQ(epoll_wait(set, &event, 1, 30000), 1);
  EXPECT_TRUE(event.events & EPOLLIN);
  EXPECT_EQ(in(c.mine, 100), 4);
  int64_t sent = 0;
  for (int quiet = 0; quiet < 14; poll(nullptr, 0, 50)) {
    quiet++;
    for (;;) {
      if (held() == 0) fill_pipe();
      const long n = out(c.mine, 100000);
      if (n < 0) break;
      sent += n;
      quiet = 0;
    }
    ASSERT_EQ(errno, EAGAIN);
  }
  while (epoll_wait(set, &event, 1, 50) > 0) {
  }
  EXPECT_REFUSED(EAGAIN, out(c.mine, 100000));
  const int job = peer.start(PeerOp::drain, c.theirs);
  ASSERT_EQ(epoll_wait(set, &event, 1, 30000), 1);
  EXPECT_TRUE(event.events & EPOLLOUT);
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(peer.finish(job).result, sent);
  close(set);
}

}  // namespace
