// The robust lock: exclusion among threads and processes, and what its next owner learns when the last one died.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/permitted.h"
#include "base/robust_lock.h"

using base::RobustLock;

namespace {

struct Shared {
  RobustLock lock;
  long counter = 0;
  std::atomic<int> stage{0};
};

class RobustLockTest : public testing::Test {
 protected:
  // A child that runs `work` and never returns.
  template <class F>
  static pid_t child(F work) {
    const pid_t pid = fork();
    if (pid == 0) {
      base::forget_thread_id();
      work();
      _exit(0);
    }
    return pid;
  }
  static int wait_for(pid_t pid) {
    int status = 0;
    EXPECT_EQ(pid, waitpid(pid, &status, 0));
    return status;
  }
  void await_stage(int stage) {
    while (shared_->stage.load() < stage) std::this_thread::yield();
  }

  Shared* shared_ = new (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared();
};

TEST_F(RobustLockTest, HeldByItsTakerOnly) {
  EXPECT_FALSE(shared_->lock.held());
  EXPECT_EQ(RobustLock::Taken::clean, shared_->lock.lock());
  EXPECT_TRUE(shared_->lock.held());
  std::thread other([&] {
    EXPECT_FALSE(shared_->lock.held());
    EXPECT_FALSE(shared_->lock.try_lock());
  });
  other.join();
  shared_->lock.unlock();
  EXPECT_TRUE(shared_->lock.try_lock());
  shared_->lock.unlock();
}

TEST_F(RobustLockTest, ThreadsExclude) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; i++) {
        (void)shared_->lock.lock();
        shared_->counter++;
        shared_->lock.unlock();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(80'000, shared_->counter);
}

TEST_F(RobustLockTest, ProcessesExclude) {
  std::vector<pid_t> children;
  for (int t = 0; t < 4; t++) {
    children.push_back(child([&] {
      for (int i = 0; i < 20'000; i++) {
        (void)shared_->lock.lock();
        shared_->counter++;
        shared_->lock.unlock();
      }
    }));
  }
  for (const pid_t pid : children) EXPECT_EQ(0, wait_for(pid));
  EXPECT_EQ(80'000, shared_->counter);
}

TEST_F(RobustLockTest, DeadOwnerIsReportedOnce) {
  EXPECT_EQ(0, wait_for(child([&] { (void)shared_->lock.lock(); })));
  EXPECT_EQ(RobustLock::Taken::owner_died, shared_->lock.lock());
  shared_->lock.unlock();
  EXPECT_EQ(RobustLock::Taken::clean, shared_->lock.lock());
  shared_->lock.unlock();
}

TEST_F(RobustLockTest, KilledOwnerWhileAnotherWaits) {
  const pid_t owner = child([&] {
    (void)shared_->lock.lock();
    shared_->stage = 1;
    while (true) (void)pause();
  });
  await_stage(1);
  std::thread waiter([&] {
    shared_->stage = 2;
    EXPECT_EQ(RobustLock::Taken::owner_died, shared_->lock.lock());
    shared_->lock.unlock();
  });
  await_stage(2);
  EXPECT_EQ(0, kill(owner, SIGKILL));
  waiter.join();
  (void)wait_for(owner);
  EXPECT_EQ(RobustLock::Taken::clean, shared_->lock.lock());
  shared_->lock.unlock();
}

TEST_F(RobustLockTest, ZombieOwnerCountsAsDead) {
  const pid_t owner = child([&] { (void)shared_->lock.lock(); });
  siginfo_t info{};
  ASSERT_EQ(0, waitid(P_PID, static_cast<id_t>(owner), &info, WEXITED | WNOWAIT));  // dead, not yet reaped
  EXPECT_EQ(RobustLock::Taken::owner_died, shared_->lock.lock());
  shared_->lock.unlock();
  (void)wait_for(owner);
}

TEST_F(RobustLockTest, ManyDeathsInARow) {
  for (int round = 0; round < 50; round++) {
    const pid_t killer = child([&] {
      if (shared_->lock.lock() == RobustLock::Taken::owner_died) shared_->counter++;
      (void)kill(getpid(), SIGKILL);
    });
    EXPECT_TRUE(WIFSIGNALED(wait_for(killer)));
  }
  EXPECT_EQ(49, shared_->counter);
  EXPECT_EQ(RobustLock::Taken::owner_died, shared_->lock.lock());
  shared_->lock.unlock();
}

// Several come upon the same dead owner at once: one of them learns of the death, and they never hold the lock together.
TEST_F(RobustLockTest, WaitersBehindOneDeadOwnerExclude) {
  constexpr int kRounds = 300, kFewestRounds = 10;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);  // on a busy machine each switch waits for others
  for (int round = 0; round < kRounds && (round < kFewestRounds || std::chrono::steady_clock::now() < end); round++) {
    EXPECT_EQ(0, wait_for(child([&] { (void)shared_->lock.lock(); })));
    shared_->stage = 0;
    std::atomic<int> deaths{0}, inside{0}, together{0};
    std::vector<std::thread> waiters;
    for (int i = 0; i < 4; i++) {
      waiters.emplace_back([&] {
        shared_->stage++;
        await_stage(4);
        for (int turn = 0; turn < 20; turn++) {
          if (shared_->lock.lock() == RobustLock::Taken::owner_died) deaths++;
          if (inside.fetch_add(1) != 0) together++;
          for (int spin = 0; spin < 50; spin++) __builtin_ia32_pause();
          inside.fetch_sub(1);
          shared_->lock.unlock();
        }
      });
    }
    for (std::thread& waiter : waiters) waiter.join();
    ASSERT_EQ(1, deaths) << "round " << round;
    ASSERT_EQ(0, together) << "round " << round;
  }
}

// A member that its program has shut in: it may do nothing but end. The owner stays inside for longer than any of the waiter's patience.
TEST_F(RobustLockTest, WaitsWithoutTheCallsThatAFilterKillsFor) {
  static uint64_t deadly[8];
  for (const int call : {SYS_sched_yield, SYS_futex, SYS_openat, SYS_clone, SYS_ptrace, SYS_kill, SYS_wait4, SYS_tgkill, SYS_fcntl}) {
    deadly[call / 64] |= uint64_t{1} << call % 64;
  }
  EXPECT_EQ(RobustLock::Taken::clean, shared_->lock.lock());
  const pid_t waiter = child([&] {
    sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
    const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
    (void)base::thread_id();
    base::set_deadly_calls(deadly);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(1);
    shared_->stage = 1;
    const bool clean = shared_->lock.lock() == RobustLock::Taken::clean;
    shared_->stage = 2;
    shared_->lock.unlock();
    _exit(clean ? 0 : 2);
  });
  await_stage(1);
  const timespec longer_than_help{0, 20'000'000};
  (void)nanosleep(&longer_than_help, nullptr);
  ASSERT_EQ(shared_->stage.load(), 1);
  shared_->lock.unlock();
  EXPECT_EQ(wait_for(waiter), 0);
}

}  // namespace
