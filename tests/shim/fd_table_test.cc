// Descriptors, their copies and what the last close does.
// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <linux/close_range.h>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

#include "base/high_fd.h"
#include "shim/family/family.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim_bed.h"
#include "tests/lib/killed.h"

namespace shim_test {
namespace {

TEST(FdTable, KernelDescriptorsPass) {
  Listening listening;
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  char byte;
  EXPECT_TRUE(passes(SYS_read, pipes[0], arg(&byte), 1));
  EXPECT_TRUE(passes(SYS_write, pipes[1], arg(&byte), 1));
  EXPECT_TRUE(passes(SYS_read, -1, arg(&byte), 1));
  EXPECT_TRUE(passes(SYS_read, 1l << 40, arg(&byte), 1));
  close(pipes[0]);
  close(pipes[1]);
}

TEST(FdTable, DupKeepsTheConnectionUntilTheLastClose) {
  {
    Listening listening;
    int near;
    FakeStream* far = listening.connect(&near);
    const long copy = call(SYS_dup, near);
    ASSERT_GE(copy, 0);
    EXPECT_EQ(call(SYS_close, near), 0);
    EXPECT_EQ(call(SYS_write, copy, arg("x"), 1), 1);
    EXPECT_FALSE(far->end_seen);
    EXPECT_EQ(call(SYS_close, copy), 0);
    EXPECT_TRUE(far->end_seen);
    EXPECT_EQ(call(SYS_close, copy), -EBADF);
    far_close(far);
  }
  expect_all_closed();
}

TEST(FdTable, Dup2OntoASocketClosesItAndOntoItselfDoesNothing) {
  {
    Listening listening;
    int first, second;
    FakeStream* far_first = listening.connect(&first);
    FakeStream* far_second = listening.connect(&second);
    EXPECT_EQ(call(SYS_dup2, first, first), first);
    EXPECT_EQ(call(SYS_dup2, first, second), second);
    EXPECT_TRUE(far_second->end_seen);
    far_write(far_first, "y");
    char byte = 0;
    EXPECT_EQ(call(SYS_read, second, arg(&byte), 1), 1);
    EXPECT_EQ(byte, 'y');
    EXPECT_EQ(call(SYS_dup3, first, first, 0), -EINVAL);
    // A kernel descriptor takes the number: the socket is gone from it.
    const int null_fd = open("/dev/null", O_RDONLY);
    EXPECT_EQ(call(SYS_dup3, null_fd, second, O_CLOEXEC), second);
    EXPECT_EQ(call(SYS_read, second, arg(&byte), 1), 0);
    EXPECT_FALSE(far_first->end_seen);
    EXPECT_EQ(call(SYS_close, first), 0);
    EXPECT_TRUE(far_first->end_seen);
    EXPECT_EQ(call(SYS_close, second), 0);
    close(null_fd);
    far_close(far_first);
    far_close(far_second);
  }
  expect_all_closed();
}

TEST(FdTable, CloseRangeClosesSocketsAndLeavesTheHiddenOnes) {
  {
    Listening listening;
    int near;
    FakeStream* far = listening.connect(&near);
    const int hidden = shim::family->wake_fd[0];
    EXPECT_EQ(call(SYS_close, hidden), -EBADF);
    EXPECT_EQ(call(SYS_dup2, near, hidden), -EBADF);
    EXPECT_EQ(call(SYS_fcntl, hidden, F_GETFD), -EBADF);
    const long copy = call(SYS_fcntl, near, F_DUPFD_CLOEXEC, 900);
    ASSERT_GE(copy, 900);
    EXPECT_EQ(call(SYS_close_range, 900, ~0u, 0), 0);
    EXPECT_EQ(call(SYS_read, copy, 0, 0), -EBADF);
    EXPECT_GE(fcntl(hidden, F_GETFD), 0);
    EXPECT_EQ(call(SYS_close, near), 0);
    far_close(far);
  }
  expect_all_closed();
}

TEST(FdTable, FlagsAreTheProgramsOwn) {
  Listening listening;
  EXPECT_EQ(call(SYS_fcntl, listening.fd, F_GETFL) & O_NONBLOCK, 0) << "the placeholder is, the program's view is not";
  EXPECT_EQ(call(SYS_fcntl, listening.fd, F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(call(SYS_fcntl, listening.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  EXPECT_EQ(call(SYS_accept4, listening.fd, 0, 0, 0), -EAGAIN);
  EXPECT_EQ(call(SYS_accept4, listening.fd, 0, 0, 1), -EINVAL);
}

TEST(FdTable, AForkedChildHoldsTheConnectionToo) {
  {
    Listening listening;
    int near, pipes[2];
    FakeStream* far = listening.connect(&near);
    ASSERT_EQ(pipe(pipes), 0);
    const int child = forked();
    if (child == 0) {
      char byte;
      (void)!read(pipes[0], &byte, 1);
      const bool written = call(SYS_write, near, arg("c"), 1) == 1;
      hook().before_exit(0);
      _exit(written ? 0 : 1);
    }
    EXPECT_EQ(shim::family->processes.load(), 2u);
    EXPECT_EQ(call(SYS_close, near), 0);
    EXPECT_FALSE(far->end_seen) << "the child has it";
    EXPECT_EQ(write(pipes[1], "g", 1), 1);
    int status;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(far->fill, 1u);
    EXPECT_TRUE(far->end_seen);
    EXPECT_EQ(shim::family->processes.load(), 1u);
    far_close(far);
    close(pipes[0]);
    close(pipes[1]);
  }
  expect_all_closed();
}

TEST(FdTable, AKilledChildIsFoundAndItsSocketsAreClosed) {
  {
    Listening listening;
    int near;
    FakeStream* far = listening.connect(&near);
    int pipes[2];
    ASSERT_EQ(pipe(pipes), 0);
    const int child = forked();
    if (child == 0) {
      (void)!write(pipes[1], "r", 1);
      while (true) pause();
    }
    char byte;
    ASSERT_EQ(read(pipes[0], &byte, 1), 1);
    EXPECT_EQ(call(SYS_close, near), 0);
    EXPECT_FALSE(far->end_seen);
    ASSERT_EQ(kill(child, SIGKILL), 0);
    // The service looks every 100 ms; a zombie counts as dead.
    FakeStack::get().wait_until([] { return shim::family->processes.load() == 1; });
    EXPECT_TRUE(far->end_seen);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    far_close(far);
    close(pipes[0]);
    close(pipes[1]);
  }
  expect_all_closed();
}

TEST(FdTable, ADeathInsideTheLockIsMended) {
  {
    Listening listening;
    int near;
    FakeStream* far = listening.connect(&near);
    const long set = call(SYS_epoll_create1, 0);
    ASSERT_EQ(control(static_cast<int>(set), EPOLL_CTL_ADD, near, EPOLLIN, 7), 0);
    const int before = FakeStack::get().recoveries;
    const int child = forked();
    if (child == 0) {
      new shim::Guard();
      // Half-done work: a list that leads nowhere, an object nobody holds, a wrong count.
      (void)shim::files().sockets.allocate(AF_INET);
      static_cast<shim::Socket*>(shim::peek(near))->refs = 1000;
      static_cast<shim::EpollFile*>(shim::peek(set))->items.front()->next = nullptr;
      kill(getpid(), SIGKILL);
    }
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    far_write(far, "alive");
    EXPECT_EQ(FakeStack::get().recoveries, before + 1);
    EXPECT_EQ(next_event(static_cast<int>(set)), static_cast<uint32_t>(EPOLLIN));
    FakeStack::get().wait_until([] { return shim::family->processes.load() == 1; });
    EXPECT_EQ(call(SYS_close, near), 0);
    EXPECT_TRUE(far->end_seen) << "the count is right again";
    EXPECT_EQ(call(SYS_close, set), 0);
    far_close(far);
  }
  expect_all_closed();
}

// Whoever mends dies as well, anywhere on its way.
TEST(FdTable, ADeathInTheMendingIsMended) {
  constexpr int kSamples = 10;
  std::mt19937 random(std::random_device{}());
  uint64_t all_ns = 10'000'000'000;
  for (int sample = 0; sample <= kSamples; sample++) {
    Listening listening;
    int near;
    FakeStream* far = listening.connect(&near);
    const long set = call(SYS_epoll_create1, 0);
    ASSERT_EQ(control(static_cast<int>(set), EPOLL_CTL_ADD, near, EPOLLIN, 7), 0);
    const uint64_t most_ns = sample == 0 ? all_ns : random() % all_ns;
    const uint64_t took_ns = kill_after(most_ns, [] { return forked(); }, [] {
      const shim::Guard guard;  // not for longer than it takes: who forks needs the lock before it can kill
      shim::recover_family(guard.stack());
    });
    if (sample == 0) all_ns = took_ns;
    far_write(far, "alive");
    EXPECT_EQ(next_event(static_cast<int>(set)), static_cast<uint32_t>(EPOLLIN)) << "killed after " << most_ns << " of " << all_ns << " ns";
    FakeStack::get().wait_until([] { return shim::family->processes.load() == 1; });
    EXPECT_EQ(call(SYS_close, near), 0);
    EXPECT_TRUE(far->end_seen);
    EXPECT_EQ(call(SYS_close, set), 0);
    far_close(far);
  }
  expect_all_closed();
}

}  // namespace
}  // namespace shim_test
