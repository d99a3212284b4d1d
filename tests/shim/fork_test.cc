// Who may do what while a member forks, which may take the kernel long.
// SPDX-License-Identifier: BSD-3-Clause
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim_bed.h"

namespace shim_test {
namespace {

constexpr int kPatienceMs = 20'000;

void forks() { hook().before_fork(SIGCHLD); }
void has_forked(int64_t pid) { hook().after_fork_parent(SIGCHLD, pid); }

shim::ProcessSlot& slot_of_child() {
  for (shim::ProcessSlot& slot : shim::all_slots()) {
    if (slot.state.load() == shim::SlotState::forking) return slot;
  }
  abort();
}

TEST(Fork, OtherMembersGoOn) {
  {
    Listening listening;
    int near, orders[2], answers[2];
    FakeStream* far = listening.connect(&near);
    ASSERT_EQ(pipe(orders), 0);
    ASSERT_EQ(pipe(answers), 0);
    const int child = forked();
    if (child == 0) {
      char byte;
      (void)!read(orders[0], &byte, 1);
      const bool written = call(SYS_write, near, arg("c"), 1) == 1;
      (void)!write(answers[1], "w", 1);
      hook().before_exit(0);
      _exit(written ? 0 : 1);
    }
    forks();
    EXPECT_EQ(write(orders[1], "g", 1), 1);
    pollfd answer{answers[0], POLLIN, 0};
    EXPECT_EQ(poll(&answer, 1, kPatienceMs), 1);
    has_forked(-EAGAIN);
    int status;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(far->fill, 1u);
    EXPECT_EQ(call(SYS_close, near), 0);
    far_close(far);
    for (const int fd : {orders[0], orders[1], answers[0], answers[1]}) close(fd);
  }
  expect_all_closed();
}

// What they change of the process's own memory would be copied as it is at that moment.
TEST(Fork, OtherThreadsOfTheProcessStayOut) {
  {
    Listening listening;
    std::atomic<bool> asks{false}, inside{false};
    forks();
    std::thread other([&] {
      asks = true;
      const shim::Guard guard;
      inside = true;
    });
    while (!asks) std::this_thread::yield();
    // It is not in now, and it cannot be when somebody else has had the lock in the meantime.
    const int child = fork();
    if (child == 0) {
      hook().after_fork_child(SIGCHLD);
      for (int i = 0; i < 1000; i++) const shim::Guard guard;
      hook().before_exit(0);
      _exit(0);
    }
    int status;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "the child has no such thread, and goes on";
    EXPECT_FALSE(inside);
    has_forked(child);
    other.join();
    EXPECT_TRUE(inside);
    EXPECT_EQ(shim::family->processes.load(), 1u);
  }
  expect_all_closed();
}

// A child that is not heard of is given up after two seconds, but not while its parent has not come back from fork().
TEST(Fork, MayTakeLong) {
  constexpr uint64_t kMinuteNs = 60'000'000'000;
  {
    Listening listening;
    forks();
    shim::ProcessSlot& slot = slot_of_child();
    slot.since_ns -= kMinuteNs;
    EXPECT_FALSE(shim::service_none_but_this());
    EXPECT_EQ(slot.state.load(), shim::SlotState::forking);
    slot.since_ns += kMinuteNs;
    has_forked(-EAGAIN);
    EXPECT_EQ(shim::family->processes.load(), 1u);
  }
  expect_all_closed();
}

// The slot of a child that has come and gone may be another's.
TEST(Fork, AChildMayBeGoneBeforeItsParentHearsOfIt) {
  {
    Listening listening;
    forks();
    shim::ProcessSlot& slot = slot_of_child();
    const int child = fork();
    if (child == 0) {
      hook().after_fork_child(SIGCHLD);
      hook().before_exit(0);
      _exit(0);
    }
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    EXPECT_EQ(slot.state.load(), shim::SlotState::free);
    has_forked(child);
    EXPECT_EQ(slot.state.load(), shim::SlotState::free);
    EXPECT_EQ(shim::family->processes.load(), 1u);
  }
  expect_all_closed();
}

}  // namespace
}  // namespace shim_test
