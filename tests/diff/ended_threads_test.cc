// Threads that used sockets first, slept in them, and have ended: nobody looks at their memory any more, whatever the others do.
// SPDX-License-Identifier: BSD-3-Clause
//
// Stack, thread-local variables and control block of a thread lie in one mapping of the test's (pthread_attr_setstack(3)). Once the thread
// has ended all rights are taken from it, and it stays where it is: who still reads there ends the program.

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>

#include "tests/lib/asleep.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

extern char** environ;

namespace {

class MappedThread {
 public:
  explicit MappedThread(std::function<void()> body) : body_(std::move(body)) {
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    EXPECT_EQ(pthread_attr_setstack(&attributes, memory_, kBytes), 0);
    EXPECT_EQ(pthread_create(&thread_, &attributes, run, this), 0);
    pthread_attr_destroy(&attributes);
    while (tid_ == 0) sched_yield();
  }
  ~MappedThread() {
    void* result = nullptr;
    EXPECT_EQ(pthread_join(thread_, &result), 0);
    EXPECT_EQ(mprotect(memory_, kBytes, PROT_NONE), 0);
  }
  MappedThread(const MappedThread&) = delete;
  MappedThread& operator=(const MappedThread&) = delete;

  [[nodiscard]] pthread_t handle() const { return thread_; }
  void until_asleep() const { testing_lib::until_asleep(tid_); }

 private:
  static constexpr size_t kBytes = 256 * 1024;

  static void* run(void* given) {
    auto* self = static_cast<MappedThread*>(given);
    self->tid_ = gettid();
    self->body_();
    return nullptr;
  }

  std::function<void()> body_;
  void* memory_ = nullptr;
  pthread_t thread_{};
  std::atomic<pid_t> tid_{0};
};

void in_ended_thread(std::function<void()> body) { MappedThread thread(std::move(body)); }

class EndedThreads : public DiffTest {
 protected:
  Connection connect_in_thread() {
    Connection c;
    in_ended_thread([&] { c = connect_pair(Way::connected); });
    return c;
  }

  void echo(const Connection& c) {
    const std::string sent(3000, 'e');
    ASSERT_EQ(write(c.mine, sent.data(), sent.size()), static_cast<ssize_t>(sent.size()));
    ASSERT_EQ(peer.recv_all(c.theirs, sent.size()), sent);
    peer.send(c.theirs, sent);
    ASSERT_EQ(read_all(c.mine, sent.size()), sent);
  }

  // What the others do afterwards: the first thread, one more, a child, and nobody for a while, so that what comes is the library's.
  void go_on(const Connection& c) {
    echo(c);
    in_ended_thread([&] { echo(c); });
    const pid_t child = fork();
    if (child == 0) {
      const bool good = write(c.mine, "child", 5) == 5 && wait_for(c.mine, POLLIN) == POLLIN;
      _exit(good ? 0 : 1);
    }
    EXPECT_EQ(peer.recv_all(c.theirs, 5), "child");
    const std::string large(30'000, 'l');
    EXPECT_EQ(peer.send(c.theirs, large).result, static_cast<int64_t>(large.size()));
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(read_all(c.mine, large.size()), large);
    close(c.mine);
    EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
    peer.close(c.theirs);
    const Connection next = connect_pair();
    echo(next);
    close(next.mine);
  }
};

TEST_F(EndedThreads, Connected) { go_on(connect_in_thread()); }

TEST_F(EndedThreads, Accepted) {
  sockaddr_in at{};
  int listener = -1;
  Connection c;
  in_ended_thread([&] { listener = listen_here(&at); });
  {
    MappedThread acceptor([&] { c.mine = accept(listener, nullptr, nullptr); });
    acceptor.until_asleep();
    c.theirs = peer.socket();
    ASSERT_EQ(peer.connect(c.theirs, at).result, 0);
  }
  ASSERT_GE(c.mine, 0);
  go_on(c);
}

TEST_F(EndedThreads, SleptInReadAndWrite) {
  const Connection c = connect_in_thread();
  char byte = 0;
  {
    MappedThread reader([&] { EXPECT_EQ(read(c.mine, &byte, 1), 1); });
    reader.until_asleep();
    peer.send(c.theirs, "x");
  }
  EXPECT_EQ(byte, 'x');
  const std::string large(8'000'000, 'w');
  {
    MappedThread writer([&] {
      for (size_t done = 0; done < large.size();) {
        const ssize_t count = write(c.mine, large.data() + done, large.size() - done);
        ASSERT_GT(count, 0);
        done += static_cast<size_t>(count);
      }
    });
    writer.until_asleep();
    EXPECT_EQ(peer.recv_all(c.theirs, large.size()).size(), large.size());
  }
  in_ended_thread([&] {
    const timeval soon{0, 20'000};
    ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon), 0);
    char none;
    EXPECT_EQ(read(c.mine, &none, 1), -1);
    EXPECT_EQ(errno, EAGAIN);
    const timeval never{};  // the others wait as long as a busy machine takes
    ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof never), 0);
  });
  go_on(c);
}

TEST_F(EndedThreads, WaitedForEvents) {
  const Connection c = connect_in_thread();
  int set = -1;
  in_ended_thread([&] {
    set = epoll_create1(0);
    epoll_event event{EPOLLIN, {.u64 = 7}};
    ASSERT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
    EXPECT_EQ(epoll_wait(set, &event, 1, 10), 0);
    pollfd one{c.mine, POLLIN, 0};
    EXPECT_EQ(poll(&one, 1, 10), 0);
  });
  {
    MappedThread waiter([&] {
      epoll_event event{};
      EXPECT_EQ(epoll_wait(set, &event, 1, -1), 1);
      EXPECT_EQ(event.data.u64, 7u);
    });
    MappedThread other([&] { EXPECT_EQ(wait_for(c.mine, POLLIN), POLLIN); });
    waiter.until_asleep();
    other.until_asleep();
    peer.send(c.theirs, "x");
  }
  epoll_event event{};
  EXPECT_EQ(epoll_wait(set, &event, 1, 30000), 1);
  EXPECT_EQ(read_all(c.mine, 1), "x");
  EXPECT_EQ(epoll_wait(set, &event, 1, 10), 0);
  go_on(c);
}

void do_nothing(int) {}

TEST_F(EndedThreads, WereInterrupted) {
  struct sigaction action {};
  action.sa_handler = do_nothing;  // without SA_RESTART
  ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  const Connection c = connect_in_thread();
  {
    MappedThread reader([&] {
      char byte;
      EXPECT_EQ(read(c.mine, &byte, 1), -1);
      EXPECT_EQ(errno, EINTR);
    });
    reader.until_asleep();
    EXPECT_EQ(pthread_kill(reader.handle(), SIGUSR1), 0);
  }
  go_on(c);
}

TEST_F(EndedThreads, WereCancelled) {
  const char* const hook = getenv("ZPS_HOOK");
  if (hook != nullptr && strcmp(hook, "symbols") == 0) GTEST_SKIP() << "exchanged functions are no cancellation points: docs/hook.md";
  const Connection c = connect_in_thread();
  for (const bool waits_for_events : {false, true}) {
    MappedThread waiter([&] {
      char byte;
      (void)!(waits_for_events ? wait_for(c.mine, POLLIN, -1) : read(c.mine, &byte, 1));
    });
    waiter.until_asleep();
    EXPECT_EQ(pthread_cancel(waiter.handle()), 0);
  }
  go_on(c);
}

// A child that shares the thread's memory for a while, and one that is its copy.
TEST_F(EndedThreads, MadeProcesses) {
  const Connection c = connect_in_thread();
  in_ended_thread([&] {
    pid_t child = -1;
    char program[] = "/bin/true";
    char* arguments[] = {program, nullptr};
    ASSERT_EQ(posix_spawn(&child, program, nullptr, nullptr, arguments, environ), 0);
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  });
  in_ended_thread([&] {
    const pid_t child = fork();
    if (child == 0) _exit(write(c.mine, "f", 1) == 1 ? 0 : 1);
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  });
  EXPECT_EQ(peer.recv_all(c.theirs, 1), "f");
  go_on(c);
}

TEST_F(EndedThreads, HadAStackForSignals) {
  const Connection c = connect_in_thread();
  void* const stack = mmap(nullptr, SIGSTKSZ + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct sigaction action {};
  action.sa_handler = do_nothing;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  ASSERT_EQ(sigaction(SIGUSR2, &action, nullptr), 0);
  {
    MappedThread reader([&] {
      const stack_t own{stack, 0, static_cast<size_t>(SIGSTKSZ) + 65536};
      ASSERT_EQ(sigaltstack(&own, nullptr), 0);
      char byte;
      EXPECT_EQ(read(c.mine, &byte, 1), 1);
    });
    reader.until_asleep();
    EXPECT_EQ(pthread_kill(reader.handle(), SIGUSR2), 0);
    peer.send(c.theirs, "x");
  }
  ASSERT_EQ(mprotect(stack, static_cast<size_t>(SIGSTKSZ) + 65536, PROT_NONE), 0);
  go_on(c);
}

// Many, several at a time: places of ended threads are taken by new ones.
TEST_F(EndedThreads, OneAfterTheOther) {
  const Connection c = connect_in_thread();
  for (int round = 0; round < 20; round++) {
    MappedThread first([&] { EXPECT_EQ(write(c.mine, "12345", 5), 5); });
    MappedThread second([&] { EXPECT_EQ(write(c.mine, "12345", 5), 5); });
  }
  EXPECT_EQ(peer.recv_all(c.theirs, 200).size(), 200u);
  go_on(c);
}

}  // namespace
