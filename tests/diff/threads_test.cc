// Threads: shutdown and close under a reader, many readers and writers on one socket, acceptors in parallel, fork.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tests/lib/asleep.h"
#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Threads : public BothWays {};
ZPS_BOTH_WAYS(Threads);

struct Reader {
  explicit Reader(int fd) : thread([this, fd] {
    tid = gettid();
    char byte;
    result = read(fd, &byte, 1);
    error = errno;
  }) {
    while (tid == 0) sched_yield();
    until_asleep(tid);
  }
  std::atomic<pid_t> tid{0};
  ssize_t result = -2;
  int error = 0;
  std::thread thread;
};

TEST_P(Threads, ShutdownWakesAReader) {
  Connection c = connect_pair();
  Reader reader(c.mine);
  ASSERT_EQ(shutdown(c.mine, SHUT_RDWR), 0);
  reader.thread.join();
  EXPECT_EQ(reader.result, 0);
}

// Linux keeps the open socket alive for the call in progress: the reader goes on and gets what comes.
TEST_P(Threads, CloseUnderAReader) {
  Connection c = connect_pair();
  Reader reader(c.mine);
  ASSERT_EQ(close(c.mine), 0);
  peer.send(c.theirs, "x");
  reader.thread.join();
  EXPECT_EQ(reader.result, 1) << strerror(reader.error);
}

TEST_P(Threads, ShutdownWakesAnAcceptor) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  std::atomic<pid_t> tid{0};
  int result = 0, error = 0;
  std::thread acceptor([&] {
    tid = gettid();
    result = accept(listener, nullptr, nullptr);
    error = errno;
  });
  while (tid == 0) sched_yield();
  until_asleep(tid);
  EXPECT_EQ(shutdown(listener, SHUT_RD), 0);
  acceptor.join();
  EXPECT_EQ(result, -1);
  EXPECT_EQ(error, EINVAL);
}

TEST_P(Threads, OneReadsOneWrites) {
  Connection c = connect_pair();
  const size_t total = 10000000;
  int job = peer.start(PeerOp::echo, c.theirs, total);
  std::thread writer([&] {
    std::vector<uint8_t> out(40000);
    for (size_t sent = 0; sent < total;) {
      size_t part = std::min(out.size(), total - sent);
      fill_pattern(4, sent, out.data(), part);
      ssize_t count = write(c.mine, out.data(), part);
      ASSERT_GT(count, 0);
      sent += static_cast<size_t>(count);
    }
  });
  std::vector<uint8_t> in(40000);
  for (size_t seen = 0; seen < total;) {
    ssize_t count = read(c.mine, in.data(), in.size());
    EXPECT_GT(count, 0) << strerror(errno);
    if (count <= 0) break;
    EXPECT_EQ(pattern_mismatch(4, seen, in.data(), static_cast<size_t>(count)), -1);
    seen += static_cast<size_t>(count);
  }
  writer.join();
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(total));
}

// Four threads read one stream: every byte reaches exactly one of them.
TEST_P(Threads, SeveralReadersShareAStream) {
  Connection c = connect_pair();
  const int64_t total = 4000000;
  int job = peer.start(PeerOp::send_pattern, c.theirs, 5, total, 30000);
  std::atomic<int64_t> seen{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; i++)
    readers.emplace_back([&] {
      std::vector<char> buffer(10000);
      for (;;) {
        ssize_t count = read(c.mine, buffer.data(), buffer.size());
        EXPECT_GE(count, 0) << strerror(errno);
        if (count <= 0) return;
        seen += count;
      }
    });
  EXPECT_EQ(peer.finish(job).result, total);
  peer.shutdown(c.theirs, SHUT_WR);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(seen, total);
}

// Writes of one record each stay whole as long as the send queue has room: TCP's lock is held over a write.
TEST_P(Threads, SeveralWritersKeepRecordsWhole) {
  Connection c = connect_pair();
  constexpr int kRecord = 100, kEach = 50;
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; i++)
    writers.emplace_back([&, i] {
      std::string record(kRecord, static_cast<char>('A' + i));
      for (int n = 0; n < kEach; n++) EXPECT_EQ(write(c.mine, record.data(), record.size()), kRecord);
    });
  std::string all = peer.recv_all(c.theirs, 4 * kEach * kRecord);
  for (std::thread& writer : writers) writer.join();
  ASSERT_EQ(all.size(), static_cast<size_t>(4 * kEach * kRecord));
  int count[4] = {};
  for (size_t at = 0; at < all.size(); at += kRecord) {
    ASSERT_EQ(all.substr(at, kRecord), std::string(kRecord, all[at])) << at;
    count[all[at] - 'A']++;
  }
  for (int n : count) EXPECT_EQ(n, kEach);
}

TEST_P(Threads, SeveralAcceptors) {
  sockaddr_in at{};
  int listener = listen_here(&at, 128);
  std::atomic<int> served{0};
  std::vector<std::thread> acceptors;
  for (int i = 0; i < 4; i++)
    acceptors.emplace_back([&] {
      for (int n = 0; n < 10; n++) {
        int fd = accept(listener, nullptr, nullptr);
        ASSERT_GE(fd, 0) << strerror(errno);
        char byte;
        EXPECT_EQ(read(fd, &byte, 1), 1);
        EXPECT_EQ(write(fd, &byte, 1), 1);
        close(fd);
        served++;
      }
    });
  for (int n = 0; n < 40; n++) {
    int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0) << n;
    peer.send(theirs, "q");
    EXPECT_EQ(peer.recv_all(theirs, 1), "q") << n;
    peer.close(theirs);
  }
  for (std::thread& acceptor : acceptors) acceptor.join();
  EXPECT_EQ(served, 40);
}

// As two workers do that were passed the same bound socket.
TEST_P(Threads, SeveralListen) {
  for (int round = 0; round < 30; round++) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
    std::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; i++)
      threads.emplace_back([&] {
        ready++;
        while (ready < 2) {
        }
        EXPECT_EQ(listen(fd, 8), 0) << strerror(errno);
      });
    for (std::thread& thread : threads) thread.join();
    socklen_t bytes = sizeof any;
    ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&any), &bytes), 0);
    const int theirs = peer.socket();
    EXPECT_EQ(peer.connect(theirs, self_address(any.sin_port)).result, 0);
    sockaddr_in loopback = any;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int near = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(connect(near, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback), 0) << strerror(errno);
    peer.close(theirs);
    close(near);
    close(fd);
  }
}

TEST_P(Threads, OneSetManyWaiters) {
  std::vector<Connection> all;
  int set = epoll_create1(0);
  for (int i = 0; i < 8; i++) {
    all.push_back(connect_pair());
    epoll_event event{EPOLLIN | EPOLLONESHOT, {.u64 = static_cast<uint64_t>(i)}};
    ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, all.back().mine, &event), 0);
  }
  std::mutex lock;
  std::multiset<uint64_t> told;
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; i++)
    waiters.emplace_back([&] {
      for (int n = 0; n < 2; n++) {
        epoll_event event{};
        ASSERT_EQ(epoll_wait(set, &event, 1, 20000), 1);
        std::lock_guard guard(lock);
        told.insert(event.data.u64);
      }
    });
  for (Connection& c : all) peer.send(c.theirs, "x");
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(told.size(), 8u);
  for (uint64_t i = 0; i < 8; i++) EXPECT_EQ(told.count(i), 1u) << i;
}

TEST_P(Threads, ForkSharesTheConnection) {
  Connection c = connect_pair();
  ASSERT_EQ(write(c.mine, "parent ", 7), 7);
  pid_t child = fork();
  if (child == 0) {
    char byte;
    bool good = write(c.mine, "child ", 6) == 6 && read(c.mine, &byte, 1) == 1 && byte == '1';
    close(c.mine);
    _exit(good ? 0 : 1);
  }
  EXPECT_EQ(peer.recv_all(c.theirs, 13), "parent child ");
  peer.send(c.theirs, "1");
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_DONTWAIT).error, EAGAIN) << "the child's exit closes nothing of its parent's";
  peer.send(c.theirs, "2");
  EXPECT_EQ(read_all(c.mine, 1), "2");
  ASSERT_EQ(close(c.mine), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
}

TEST_P(Threads, LastHolderClosesWhenItExits) {
  Connection c = connect_pair();
  pid_t child = fork();
  if (child == 0) {
    char byte;
    ssize_t ignored = read(c.mine, &byte, 1);
    _exit(ignored == 1 ? 0 : 1);
  }
  ASSERT_EQ(close(c.mine), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_DONTWAIT).error, EAGAIN);
  peer.send(c.theirs, "x");
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0) << "exit() closes";
}

}  // namespace
