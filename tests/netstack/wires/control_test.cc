// Control by itself: callbacks in whatever member runs them, late descriptors and mappings, a member that dies before it publishes.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <functional>

#include "base/arena.h"
#include "base/high_fd.h"
#include "netstack/wires/control.h"

namespace {

using netstack::Control;

// DPDK's handles are only names here.
rte_intr_handle* handle(long name) { return reinterpret_cast<rte_intr_handle*>(name); }

class ControlTest : public testing::Test {
 protected:
  void SetUp() override {
    arena_ = base::Arena::map_shared(1 << 20);
    ASSERT_NE(arena_, nullptr);
    auto made = Control::create(arena_);
    ASSERT_TRUE(made) << made.error().text;
    control_ = *made;
    calls_ = static_cast<int*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  }

  // Runs `body` in a child; what it returns is whether it was content.
  static bool in_child(const std::function<bool()>& body) {
    const pid_t child = fork();
    if (child == 0) _exit(body() ? 0 : 1);
    int status = -1;
    return waitpid(child, &status, 0) == child && status == 0;
  }
  static void count(void* calls) { ++*static_cast<int*>(calls); }

  base::Arena* arena_ = nullptr;
  Control* control_ = nullptr;
  int* calls_ = nullptr;
};

TEST_F(ControlTest, RunsACallbackInAnyMember) {
  const int event = eventfd(0, EFD_NONBLOCK);
  ASSERT_EQ(control_->add_callback(handle(1), event, count, calls_), 0);
  EXPECT_EQ(control_->run().callbacks, 0);
  ASSERT_EQ(eventfd_write(event, 1), 0);
  EXPECT_EQ(control_->run().callbacks, 1);
  EXPECT_TRUE(in_child([&] { return control_->run().callbacks == 1; }));
  EXPECT_EQ(*calls_, 2);
  EXPECT_EQ(control_->remove_callback(handle(1), count, calls_), 1);
  EXPECT_EQ(control_->remove_callback(handle(1), count, calls_), -ENOENT);
  EXPECT_EQ(control_->run().callbacks, 0);
  EXPECT_EQ(control_->callbacks(), 0);
  close(event);
}

TEST_F(ControlTest, ACallbackMayRemoveItself) {
  static Control* control;
  static int* after_calls;
  control = control_;
  after_calls = calls_;
  const int event = eventfd(1, EFD_NONBLOCK);
  struct Remover {
    static void run(void*) {
      EXPECT_EQ(control->remove_callback(handle(2), run, nullptr), -EAGAIN);
      EXPECT_EQ(control->remove_callback_later(handle(2), run, nullptr, [](rte_intr_handle*, void*) { ++*after_calls; }), 1);
      EXPECT_EQ(*after_calls, 0) << "not before it has returned";
    }
  };
  ASSERT_EQ(control_->add_callback(handle(2), event, Remover::run, nullptr), 0);
  EXPECT_EQ(control_->run().callbacks, 1);
  EXPECT_EQ(*calls_, 1);
  EXPECT_EQ(control_->callbacks(), 0);
  close(event);
}

// The child makes a descriptor and a mapping; the parent gets both, under the same number and address.
TEST_F(ControlTest, BringsLateThingsToOtherMembers) {
  struct Shared {
    int fd;
    char* address;
  };
  auto* shared = reinterpret_cast<Shared*>(calls_);
  ASSERT_TRUE(in_child([&] {
    const int memory = memfd_create("late", MFD_ALLOW_SEALING);
    if (ftruncate(memory, 8192) != 0) return false;
    shared->fd = control_->adopt_fd(memory);
    if (control_->map_region(shared->fd, 8192) != nullptr) return false;  // could be made shorter under us
    if (fcntl(shared->fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) return false;
    if (control_->map_region(shared->fd, 16384) != nullptr) return false;  // is shorter
    shared->address = static_cast<char*>(control_->map_region(shared->fd, 8192));
    if (shared->address == nullptr || !control_->torn()) return false;
    strcpy(shared->address + 4096, "from the child");
    control_->publish();
    return !control_->torn();
  }));
  ASSERT_TRUE(base::is_high_fd(shared->fd));
  control_->catch_up();
  EXPECT_STREQ(shared->address + 4096, "from the child");
  EXPECT_EQ(lseek(shared->fd, 0, SEEK_END), 8192);
  EXPECT_EQ(control_->region_of(shared->fd), shared->address);

  // A member that was forked before the change catches up as well, from the same message; and it takes everything away again.
  ASSERT_TRUE(in_child([&] {
    control_->catch_up();
    if (strcmp(shared->address + 4096, "from the child") != 0) return false;
    if (!control_->unmap_region(shared->address) || !control_->drop_fd(shared->fd)) return false;
    control_->publish();
    return true;
  }));
  control_->catch_up();
  EXPECT_NE(lseek(shared->fd, 0, SEEK_END), 8192) << "the number is a placeholder again";
  EXPECT_EQ(control_->region_of(shared->fd), nullptr);
  EXPECT_EXIT(
      {
        signal(SIGSEGV, [](int) { _exit(7); });
        *reinterpret_cast<volatile char*>(shared->address) = 1;
        _exit(0);
      },
      testing::ExitedWithCode(7), "");
}

TEST_F(ControlTest, KnowsThatAMemberDiedBeforeItPublished) {
  ASSERT_TRUE(in_child([&] { return control_->adopt_fd(eventfd(0, 0)) >= 0; }));
  EXPECT_TRUE(control_->torn());
  control_->publish();
  EXPECT_FALSE(control_->torn());
}

// Whoever begins anew drops what only the dead one had; to it the number is still a placeholder.
TEST_F(ControlTest, DropsWhatDiedWithItsMaker) {
  int* const number = calls_;
  ASSERT_TRUE(in_child([&] {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) return false;
    *number = control_->adopt_fd(pair[0]);
    return *number >= 0;
  }));
  EXPECT_TRUE(control_->drop_fd(*number));
  control_->publish();
  ASSERT_TRUE(in_child([&] {
    *number = control_->adopt_fd(memfd_create("late", 0));
    if (ftruncate(*number, 12288) != 0) return false;
    control_->publish();
    return true;
  }));
  control_->catch_up();
  EXPECT_EQ(lseek(*number, 0, SEEK_END), 12288);
}

TEST_F(ControlTest, RefusesMoreThanItHasRoomFor) {
  int adopted = 0;
  while (control_->adopt_fd(eventfd(0, 0)) >= 0) adopted++;
  EXPECT_EQ(adopted, 16);
  EXPECT_EQ(control_->map_region(0, size_t{1} << 30), nullptr);
  control_->publish();
  EXPECT_TRUE(in_child([&] {
    control_->catch_up();
    return true;
  }));
}

// Whose memory it is cannot keep the next member from mapping it too, nor take pages away.
// The range is for all of them; where one has gone another may come, in every member.
TEST_F(ControlTest, RegionsShareTheRange) {
  const auto region = [&](size_t bytes) {
    const int memory = memfd_create("late", MFD_ALLOW_SEALING);
    EXPECT_EQ(ftruncate(memory, static_cast<off_t>(bytes)), 0);
    EXPECT_EQ(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    return static_cast<char*>(control_->map_region(control_->adopt_fd(memory), bytes));
  };
  constexpr size_t kMiB = size_t{1} << 20;
  char* const first = region(15 * kMiB);
  char* const second = region(15 * kMiB + 1);
  char* const third = region(15 * kMiB);
  ASSERT_TRUE(first != nullptr && second >= first + 15 * kMiB && third > second + 15 * kMiB);
  EXPECT_EQ(region(8 * kMiB), nullptr);
  control_->publish();
  ASSERT_TRUE(in_child([&] {
    control_->catch_up();
    third[1] = 3;
    return control_->unmap_region(second) && region(16 * kMiB) == nullptr && region(14 * kMiB) == second && (control_->publish(), true);
  }));
  control_->catch_up();
  second[14 * kMiB - 1] = 2;
  EXPECT_EQ(third[1], 3);
  EXPECT_EXIT(
      {
        signal(SIGSEGV, [](int) { _exit(7); });
        const_cast<volatile char*>(second)[14 * kMiB] = 1;
        _exit(0);
      },
      testing::ExitedWithCode(7), "");
}

TEST_F(ControlTest, ARegionStaysAsItIs) {
  const int memory = memfd_create("theirs", MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(memory, 8192), 0);
  ASSERT_EQ(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  const int ours = control_->adopt_fd(dup(memory));
  ASSERT_NE(control_->map_region(ours, 8192), nullptr);
  EXPECT_EQ(fcntl(memory, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
  EXPECT_EQ(ftruncate(memory, 0), -1);
  close(memory);

  const int last = memfd_create("last writer", MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(last, 8192), 0);
  ASSERT_EQ(fcntl(last, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE), 0);
  EXPECT_EQ(control_->map_region(control_->adopt_fd(last), 8192), nullptr);

  const int huge = memfd_create("huge", MFD_ALLOW_SEALING | MFD_HUGETLB);
  if (huge < 0) return;  // none here
  ASSERT_EQ(ftruncate(huge, 2 << 20), 0);
  ASSERT_EQ(fcntl(huge, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  EXPECT_EQ(control_->map_region(control_->adopt_fd(huge), 2 << 20), nullptr);
}

// Of a file of huge pages the kernel maps whole ones, and what a mapping that fails was to replace has gone by then: neither may take what
// lies there from others, nor leave a place where the program's own memory could come to lie.
TEST_F(ControlTest, HugePagesHarmNothingElse) {
  const auto small = [&] {
    const int memory = memfd_create("small", MFD_ALLOW_SEALING);
    EXPECT_EQ(ftruncate(memory, 4096), 0);
    EXPECT_EQ(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    return static_cast<char*>(control_->map_region(control_->adopt_fd(memory), 4096));
  };
  constexpr size_t kHugeBytes = 2 << 20;
  constexpr unsigned kHugePages = MFD_HUGETLB | 21U << 26;  // MFD_HUGE_2MB
  const auto huge = [&](size_t bytes) {
    const int memory = memfd_create("huge", kHugePages);
    EXPECT_EQ(ftruncate(memory, 16 * kHugeBytes), 0);
    return control_->map_region(control_->adopt_fd(memory), bytes, true);
  };
  const int probe = memfd_create("huge", kHugePages);
  if (probe < 0) GTEST_SKIP() << "no huge pages here";
  close(probe);
  char* const first = small();
  char* const second = small();
  ASSERT_TRUE(first != nullptr && second == first + 4096);
  second[0] = 1;
  ASSERT_TRUE(control_->unmap_region(first));
  EXPECT_EQ(huge(100), nullptr);
  unsigned char resident;
  ASSERT_EQ(mincore(second, 4096, &resident), 0) << "it is there no more";
  EXPECT_EQ(second[0], 1);
  ASSERT_TRUE(control_->unmap_region(second));
  if (huge(16 * kHugeBytes) != nullptr) return;  // there are so many
  for (size_t at = 0; at < 16 * kHugeBytes; at += kHugeBytes) ASSERT_EQ(mincore(first + at, 4096, &resident), 0) << at;
}

// The peer at the other end of a dropped socket sees its end at once, though other members still hold copies.
TEST_F(ControlTest, DroppingASocketEndsItForThePeer) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
  const int ours = control_->adopt_fd(pair[0]);
  ASSERT_GE(ours, 0);
  control_->publish();
  ASSERT_TRUE(in_child([&] {
    close(pair[1]);
    const bool dropped = control_->drop_fd(ours);
    control_->publish();
    return dropped;
  }));
  char byte;
  EXPECT_EQ(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
  close(pair[1]);
}

TEST_F(ControlTest, TimerAsksForARetry) {
  control_->set_retry_ms(1);
  bool rang = false;
  for (int i = 0; i < 100000 && !rang; i++) rang = control_->run().timer;
  EXPECT_TRUE(rang);
  control_->set_retry_ms(0);
}

}  // namespace
