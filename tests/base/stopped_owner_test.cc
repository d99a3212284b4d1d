// The lock's owner is stopped, inside or elsewhere: the others go on, and the stop stays one.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <csignal>
#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/clock.h"
#include "base/robust_lock.h"
#include "base/stopped_owner.h"

using base::RobustLock;

namespace {

struct Shared {
  RobustLock lock;
  std::atomic<bool> inside{false};
  std::atomic<long> turns{0};
};

char state_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t end = text.rfind(") ");
  return end == std::string::npos ? '?' : text[end + 2];
}

void await_state(pid_t pid, char state) {
  while (state_of(pid) != state) std::this_thread::yield();
}

class StoppedOwner : public testing::Test {
 protected:
  void SetUp() override { base::set_process_tag(1); }
  void TearDown() override {
    for (const pid_t pid : children_) {
      (void)kill(pid, SIGKILL);
      (void)waitpid(pid, nullptr, __WALL);
    }
    base::set_patience_ms(1000);
    base::set_process_tag(0);
  }

  // A member that is inside for half of its time.
  pid_t member(uint32_t tag, const std::function<void()>& prepare = [] {}) {
    const pid_t pid = fork();
    if (pid == 0) {
      base::forget_thread_id();
      base::set_process_tag(tag);
      prepare();
      while (true) turn();
    }
    children_.push_back(pid);
    return pid;
  }
  void turn() {
    if (shared_->lock.lock() == RobustLock::Taken::owner_died) _exit(3);
    if (shared_->inside.exchange(true)) _exit(4);
    pass();
    shared_->inside = false;
    shared_->lock.unlock();
    shared_->turns++;
    pass();
  }
  static void pass() {
    for (int i = 0; i < 500; i++) __builtin_ia32_pause();
  }
  // A member that is stopped inside.
  pid_t stopped_inside(const std::function<void()>& prepare = [] {}) {
    const pid_t pid = member(2, [&] {
      prepare();
      (void)shared_->lock.lock();
      shared_->inside = true;
      (void)raise(SIGSTOP);
      shared_->inside = false;
      shared_->lock.unlock();
    });
    while (!shared_->inside) std::this_thread::yield();
    await_state(pid, 'T');
    return pid;
  }
  uint64_t take_ns() {
    const uint64_t begin = base::monotonic_ns();
    taken_ = shared_->lock.lock();
    const uint64_t took = base::monotonic_ns() - begin;
    shared_->lock.unlock();
    return took;
  }

  Shared* shared_ = new (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared();
  RobustLock::Taken taken_{};
  std::vector<pid_t> children_;
};

TEST_F(StoppedOwner, IsLetOutAndStaysStopped) {
  const pid_t owner = stopped_inside();
  (void)take_ns();
  EXPECT_EQ(RobustLock::Taken::clean, taken_);
  await_state(owner, 'T');
  const long before = shared_->turns;
  for (int i = 0; i < 20; i++) (void)take_ns();
  EXPECT_EQ(before, shared_->turns) << "it was let out, no more";
  int status = 0;
  EXPECT_EQ(owner, waitpid(owner, &status, WNOHANG | WUNTRACED)) << "told once that it was stopped";
  EXPECT_EQ(0, waitpid(owner, &status, WNOHANG | WUNTRACED | WCONTINUED)) << "and nothing else";
  ASSERT_EQ(0, kill(owner, SIGCONT));
  while (shared_->turns == before) std::this_thread::yield();
}

// No tracing: of a process that is not dumpable, by one without the capability.
TEST_F(StoppedOwner, IsContinuedAndStopsAgainWhereItMayNotBeTraced) {
  if (setresuid(65534, 65534, 0) != 0) GTEST_SKIP() << "needs root";
  const pid_t owner = stopped_inside([] { (void)prctl(PR_SET_DUMPABLE, 0); });
  (void)take_ns();
  EXPECT_EQ(RobustLock::Taken::clean, taken_);
  await_state(owner, 'T');
  const long before = shared_->turns;
  (void)take_ns();
  EXPECT_EQ(before, shared_->turns);
  ASSERT_EQ(0, kill(owner, SIGCONT));
  while (shared_->turns == before) std::this_thread::yield();
  ASSERT_EQ(0, setresuid(0, 0, 0));
}

// Its debugger holds it, and nothing but the end of it helps.
TEST_F(StoppedOwner, IsKilledWhenADebuggerHoldsItForTooLong) {
  base::set_patience_ms(100);
  const pid_t owner = member(2, [&] {
    (void)ptrace(PTRACE_TRACEME, 0, 0, 0);
    (void)shared_->lock.lock();
    (void)raise(SIGSTOP);
  });
  int status;
  ASSERT_EQ(owner, waitpid(owner, &status, 0));
  ASSERT_TRUE(WIFSTOPPED(status));
  (void)take_ns();
  EXPECT_EQ(RobustLock::Taken::owner_died, taken_);
}

// A control group of its own, of version 2.
class Group {
 public:
  Group() {
    for (const char* mounted : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      const std::string path = std::string(mounted) + "/zpstack-test-" + std::to_string(getpid());
      if (access((std::string(mounted) + "/cgroup.procs").c_str(), W_OK) != 0 || mkdir(path.c_str(), 0755) != 0) continue;
      if (access((path + "/cgroup.freeze").c_str(), W_OK) == 0) path_ = path;
      if (path_.empty()) (void)rmdir(path.c_str());
      break;
    }
  }
  ~Group() {
    if (!path_.empty()) (void)rmdir(path_.c_str());
  }
  [[nodiscard]] bool made() const { return !path_.empty(); }
  void write(const char* file, const std::string& text) const { std::ofstream(path_ + "/" + file) << text; }
  [[nodiscard]] bool frozen() const {
    std::ifstream file(path_ + "/cgroup.events");
    return std::string((std::istreambuf_iterator<char>(file)), {}).find("frozen 1") != std::string::npos;
  }

 private:
  std::string path_;
};

TEST_F(StoppedOwner, IsKilledWhenItIsFrozenForTooLong) {
  const Group group;
  if (!group.made()) GTEST_SKIP() << "no control groups of version 2 that may be written to";
  base::set_patience_ms(100);
  const pid_t owner = member(2, [&] {
    (void)shared_->lock.lock();
    shared_->inside = true;
    while (shared_->turns == 0) pass();
  });
  while (!shared_->inside) std::this_thread::yield();
  group.write("cgroup.procs", std::to_string(owner));
  group.write("cgroup.freeze", "1");
  while (!group.frozen()) std::this_thread::yield();
  (void)take_ns();
  EXPECT_EQ(RobustLock::Taken::owner_died, taken_);
  int status = 0;
  EXPECT_EQ(owner, waitpid(owner, &status, 0));
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(StoppedOwner, IsWaitedForIfThatIsWished) {
  base::set_patience_ms(0);
  const pid_t owner = member(2, [&] {
    (void)ptrace(PTRACE_TRACEME, 0, 0, 0);
    (void)shared_->lock.lock();
    (void)raise(SIGSTOP);
    shared_->lock.unlock();
  });
  ASSERT_EQ(owner, waitpid(owner, nullptr, 0));
  std::atomic<bool> has{false};
  std::thread waiter([&] {
    (void)take_ns();
    has = true;
  });
  await_state(owner, 't');
  EXPECT_FALSE(has);
  ASSERT_EQ(0, ptrace(PTRACE_DETACH, owner, 0, 0));
  waiter.join();
  EXPECT_EQ(RobustLock::Taken::clean, taken_);
}

// Wherever it is stopped, among others who take the lock all the time; some are killed as well.
TEST_F(StoppedOwner, AnyMomentWillDo) {
  std::vector<pid_t> members;
  for (uint32_t tag = 2; tag < 5; tag++) members.push_back(member(tag));
  uint64_t longest = 0;
  for (int round = 0; round < 300; round++) {
    const pid_t victim = members[static_cast<size_t>(round) % members.size()];
    const long before = shared_->turns;
    while (shared_->turns < before + 20) std::this_thread::yield();
    ASSERT_EQ(0, kill(victim, SIGSTOP));
    await_state(victim, 'T');
    for (int i = 0; i < 3; i++) longest = std::max(longest, take_ns());
    ASSERT_EQ(RobustLock::Taken::clean, taken_) << round;
    ASSERT_EQ(0, kill(victim, SIGCONT));
  }
  std::cout << "longest wait " << static_cast<double>(longest) / 1e6 << " ms\n";
  for (const pid_t pid : members) EXPECT_EQ(0, waitpid(pid, nullptr, WNOHANG)) << "it has met a dead owner, or somebody inside";
}

}  // namespace
