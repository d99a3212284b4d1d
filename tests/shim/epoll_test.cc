// epoll sets with stack sockets and kernel descriptors.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "shim/files/epoll_file.h"
#include "shim/family/family.h"
#include "shim/files/file_pools.h"
#include "shim_bed.h"

namespace shim_test {
namespace {

class Epoll : public testing::Test {
 protected:
  void SetUp() override {
    listening_ = new Listening();
    set_ = static_cast<int>(call(SYS_epoll_create1, 0));
    ASSERT_GE(set_, 0);
    far_ = listening_->connect(&near_);
  }
  void TearDown() override {
    (void)call(SYS_close, near_);
    EXPECT_EQ(call(SYS_close, set_), 0);
    far_close(far_);
    delete listening_;
    expect_all_closed();
  }
  std::string take(int count) {
    std::string got(static_cast<size_t>(count), '\0');
    const long result = call(SYS_read, near_, arg(got.data()), count);
    got.resize(result < 0 ? 0 : static_cast<size_t>(result));
    return got;
  }

  Listening* listening_;
  int set_, near_;
  FakeStream* far_;
};

TEST_F(Epoll, LevelIsReportedUntilItIsGone) {
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 0xdead'beef'0123'4567), 0);
  EXPECT_EQ(next_event(set_), 0u);
  far_write(far_, "ab");
  uint64_t data = 0;
  EXPECT_EQ(next_event(set_, &data), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(data, 0xdead'beef'0123'4567u);
  EXPECT_EQ(take(1), "a");
  EXPECT_EQ(next_event(set_), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(take(1), "b");
  EXPECT_EQ(next_event(set_), 0u);
}

TEST_F(Epoll, EdgesAreReportedOnceEach) {
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN | EPOLLET, 1), 0);
  far_write(far_, "a");
  EXPECT_EQ(next_event(set_), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(next_event(set_), 0u);
  far_write(far_, "b");
  EXPECT_EQ(next_event(set_), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(take(8), "ab");
  EXPECT_EQ(next_event(set_), 0u);
}

TEST_F(Epoll, OneShotRestsUntilItIsChanged) {
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN | EPOLLONESHOT, 1), 0);
  far_write(far_, "a");
  EXPECT_EQ(next_event(set_), static_cast<uint32_t>(EPOLLIN));
  far_write(far_, "b");
  EXPECT_EQ(next_event(set_), 0u);
  ASSERT_EQ(control(set_, EPOLL_CTL_MOD, near_, EPOLLIN | EPOLLONESHOT, 2), 0);
  uint64_t data;
  EXPECT_EQ(next_event(set_, &data), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(data, 2u);
}

TEST_F(Epoll, OneSocketInTwoSetsAndTwiceThroughDup) {
  const int other = static_cast<int>(call(SYS_epoll_create1, 0));
  const int copy = static_cast<int>(call(SYS_dup, near_));
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 1), 0);
  EXPECT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 1), -EEXIST);
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, copy, EPOLLIN, 2), 0);
  ASSERT_EQ(control(other, EPOLL_CTL_ADD, near_, EPOLLIN, 3), 0);
  far_write(far_, "x");
  epoll_event events[4];
  ASSERT_EQ(call(SYS_epoll_wait, set_, arg(events), 4, 0), 2);
  EXPECT_EQ(events[0].data.u64 + events[1].data.u64, 3u);
  EXPECT_EQ(next_event(other), static_cast<uint32_t>(EPOLLIN));
  // A number that is closed stays registered as long as the description lives.
  EXPECT_EQ(call(SYS_close, copy), 0);
  EXPECT_EQ(call(SYS_epoll_wait, set_, arg(events), 4, 0), 2);
  EXPECT_EQ(call(SYS_close, near_), 0);
  EXPECT_EQ(call(SYS_epoll_wait, set_, arg(events), 4, 0), 0);
  EXPECT_EQ(next_event(other), 0u);
  EXPECT_EQ(call(SYS_close, other), 0);
}

TEST_F(Epoll, KernelDescriptorsShareTheSetFairly) {
  const int kernel = eventfd(1, EFD_NONBLOCK);
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 1), 0);
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, kernel, EPOLLIN, 2), 0);
  far_write(far_, "x");
  bool seen[3] = {};
  epoll_event events[4];
  for (uint32_t i = 0; i < 2 * shim::kKernelEveryTurns; i++) {
    const long count = call(SYS_epoll_wait, set_, arg(events), 4, 0);
    ASSERT_GT(count, 0);
    for (long j = 0; j < count; j++) seen[events[j].data.u64] = true;
  }
  EXPECT_TRUE(seen[1] && seen[2]);
  EXPECT_EQ(control(set_, EPOLL_CTL_DEL, kernel, 0, 0), 0);
  close(kernel);
}

TEST_F(Epoll, MaxEventsRotates) {
  int more[3];
  FakeStream* far[3];
  for (int i = 0; i < 3; i++) {
    far[i] = listening_->connect(&more[i]);
    ASSERT_EQ(control(set_, EPOLL_CTL_ADD, more[i], EPOLLIN, static_cast<uint64_t>(i)), 0);
    far_write(far[i], "x");
  }
  int times[3] = {};
  for (int i = 0; i < 9; i++) {
    uint64_t data;
    ASSERT_NE(next_event(set_, &data), 0u);
    times[data]++;
  }
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(times[i], 3);
    EXPECT_EQ(call(SYS_close, more[i]), 0);
    far_close(far[i]);
  }
}

TEST_F(Epoll, ASetInASetIsReadableWhenItsSocketsAre) {
  const int outer = static_cast<int>(call(SYS_epoll_create1, 0));
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 1), 0);
  ASSERT_EQ(control(outer, EPOLL_CTL_ADD, set_, EPOLLIN, 2), 0);
  EXPECT_EQ(control(outer, EPOLL_CTL_ADD, outer, EPOLLIN, 2), -EINVAL);
  EXPECT_EQ(next_event(outer), 0u);
  for (int round = 0; round < 3; round++) {
    far_write(far_, "x");
    EXPECT_EQ(next_event(outer), static_cast<uint32_t>(EPOLLIN));
    EXPECT_EQ(next_event(set_), static_cast<uint32_t>(EPOLLIN));
    EXPECT_EQ(take(1), "x");
    EXPECT_EQ(next_event(outer), 0u);
  }
  EXPECT_EQ(call(SYS_close, outer), 0);
}

TEST_F(Epoll, HangUpIsReportedUnasked) {
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, 0, 1), 0);
  ASSERT_EQ(call(SYS_shutdown, near_, SHUT_WR), 0);
  {
    far_->write_closed = true;
    (void)far_->shutdown(SHUT_WR);
  }
  ASSERT_EQ(control(set_, EPOLL_CTL_MOD, near_, 0, 1), 0);
  EXPECT_EQ(next_event(set_), static_cast<uint32_t>(EPOLLHUP));
}

TEST_F(Epoll, ASleeperIsWokenByAnotherThread) {
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 1), 0);
  std::thread other([&] {
    while (shim_test::hook().on_syscall == nullptr) {
    }
    far_write(far_, "wake");
  });
  EXPECT_EQ(next_event(set_, nullptr, 10'000), static_cast<uint32_t>(EPOLLIN));
  other.join();
}

// A member died: what was removed stays removed, what was there is there.
TEST_F(Epoll, RecoveryForgetsWhatWasRemoved) {
  int kept;
  FakeStream* far = listening_->connect(&kept);
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 1), 0);
  ASSERT_EQ(control(set_, EPOLL_CTL_ADD, kept, EPOLLIN, 2), 0);
  ASSERT_EQ(control(set_, EPOLL_CTL_DEL, near_, 0, 0), 0);
  far_write(far_, "x");
  far_write(far, "x");
  {
    shim::Guard guard;
    shim::recover_family(guard.stack());
    EXPECT_EQ(shim::files().items.in_use(), 1u);
  }
  uint64_t data = 0;
  EXPECT_EQ(next_event(set_, &data), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(data, 2u);
  EXPECT_EQ(control(set_, EPOLL_CTL_DEL, near_, 0, 0), -ENOENT);
  EXPECT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN, 3), 0);
  EXPECT_EQ(call(SYS_close, kept), 0);
  far_close(far);
  EXPECT_EQ(next_event(set_, &data), static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(data, 3u);
}

TEST_F(Epoll, RemovedRegistrationsDoNotAddUp) {
  const uint32_t before = shim::files().items.in_use();
  int sets[8];
  for (int& set : sets) {
    set = static_cast<int>(call(SYS_epoll_create1, 0));
    ASSERT_EQ(control(set, EPOLL_CTL_ADD, near_, EPOLLIN, 1), 0);
  }
  for (const int set : sets) ASSERT_EQ(control(set, EPOLL_CTL_DEL, near_, 0, 0), 0);
  EXPECT_LE(shim::files().items.in_use(), before + 1);
  for (const int set : sets) EXPECT_EQ(call(SYS_close, set), 0);
  EXPECT_EQ(shim::files().items.in_use(), before);
}

TEST_F(Epoll, WrongArgumentsAreRefusedAsByLinux) {
  epoll_event event;
  EXPECT_EQ(call(SYS_epoll_wait, set_, arg(&event), 0, 0), -EINVAL);
  EXPECT_EQ(call(SYS_epoll_wait, set_, 1, 1, 0), -EFAULT);
  EXPECT_EQ(control(set_, EPOLL_CTL_MOD, near_, EPOLLIN, 0), -ENOENT);
  EXPECT_EQ(control(set_, EPOLL_CTL_DEL, near_, EPOLLIN, 0), -ENOENT);
  EXPECT_EQ(control(set_, 9, near_, EPOLLIN, 0), -EINVAL);
  EXPECT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0), -EINVAL);
  EXPECT_EQ(control(set_, EPOLL_CTL_ADD, near_, EPOLLIN | EPOLLEXCLUSIVE, 0), 0);
  EXPECT_EQ(control(set_, EPOLL_CTL_MOD, near_, EPOLLIN, 0), -EINVAL);
  EXPECT_EQ(control(set_, EPOLL_CTL_DEL, near_, 0, 0), 0);
  EXPECT_EQ(call(SYS_epoll_ctl, set_, EPOLL_CTL_ADD, near_, 0), -EFAULT);
  EXPECT_EQ(control(near_, EPOLL_CTL_ADD, set_, EPOLLIN, 0), -EINVAL);
}

}  // namespace
}  // namespace shim_test
