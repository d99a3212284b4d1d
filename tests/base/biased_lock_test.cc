// The biased lock: exclusion while the favour changes hands, between threads and, once it is forbidden, between processes.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/biased_lock.h"

using base::BiasedLock;

namespace {

struct Shared {
  BiasedLock lock;
  long counter = 0;
  std::atomic<int> stage{0};
};

class BiasedLockTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(BiasedLock::prepare_favour());
    (void)shared_->lock.lock();
    shared_->lock.allow_favour();
    shared_->lock.unlock();
  }
  void turns(int count) {
    for (int i = 0; i < count; i++) {
      (void)shared_->lock.lock();
      shared_->counter++;
      shared_->lock.unlock();
    }
  }
  Shared* shared_ = new (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared();
};

TEST_F(BiasedLockTest, WhoTakesItAllTheTimeIsFavoured) {
  EXPECT_FALSE(shared_->lock.favours_me());
  turns(2000);
  EXPECT_TRUE(shared_->lock.favours_me());
  turns(100);
  EXPECT_EQ(2100, shared_->counter);
  std::thread([&] {
    turns(1);
    EXPECT_FALSE(shared_->lock.favours_me());
  }).join();
  EXPECT_FALSE(shared_->lock.favours_me());
  turns(2000);
  EXPECT_TRUE(shared_->lock.favours_me());
  shared_->lock.forbid_favour();
  EXPECT_FALSE(shared_->lock.favours_me());
  turns(2000);
  EXPECT_FALSE(shared_->lock.favours_me());
  EXPECT_EQ(6101, shared_->counter);
}

TEST_F(BiasedLockTest, AnotherWaitsForTheFavouriteInside) {
  turns(2000);
  ASSERT_TRUE(shared_->lock.favours_me());
  (void)shared_->lock.lock();
  std::thread other([&] {
    shared_->stage = 1;
    turns(1);
    shared_->stage = 2;
  });
  while (shared_->stage == 0) std::this_thread::yield();
  while (shared_->lock.favours_me()) std::this_thread::yield();  // deposed, and still inside
  EXPECT_EQ(2000, shared_->counter);
  EXPECT_EQ(1, shared_->stage);
  shared_->lock.unlock();
  other.join();
  EXPECT_EQ(2001, shared_->counter);
}

// As favourite and otherwise.
TEST_F(BiasedLockTest, TellsWhetherAnythingHasChanged) {
  for (const int streak : {0, 2000}) {
    turns(streak);
    ASSERT_EQ(streak > 0, shared_->lock.favours_me());
    const uint64_t before = shared_->lock.changes();
    (void)shared_->lock.lock();
    EXPECT_EQ(before, shared_->lock.changes()) << "not before it ends";
    shared_->lock.unlock(BiasedLock::Turn::unchanged);
    EXPECT_EQ(before, shared_->lock.changes());
    turns(1);
    EXPECT_NE(before, shared_->lock.changes());
  }
}

// One thread is the favourite most of the time, others come between at any point of its way in and out.
TEST_F(BiasedLockTest, TurnsAreNeverLost) {
  constexpr int kOthers = 3, kVisits = 3000;
  std::atomic<int> left{kOthers};
  long own = 0, favoured = 0;
  std::vector<std::thread> others;
  for (int t = 0; t < kOthers; t++) {
    others.emplace_back([&, t] {
      for (int i = 0; i < kVisits; i++) {
        turns(1);
        for (volatile int pause = (i * 7919 + t * 104729) % 20000; pause > 0;) {
          pause = pause - 1;
        }
      }
      left--;
    });
  }
  // The others may leave it no thousand turns in a row: then it is the favourite behind them.
  constexpr long kLongest = 10'000'000;
  while (left > 0 || (favoured == 0 && own < kLongest)) {
    turns(10);
    own += 10;
    favoured += shared_->lock.favours_me();
  }
  for (std::thread& other : others) other.join();
  EXPECT_EQ(own + kOthers * kVisits, shared_->counter);
  EXPECT_GT(favoured, 0);
}

// A favourite that loses the processor at some instruction of its way in, for so long that another thread becomes one.
enum Stage { kOnItsWay, kStopped, kGoesOn };
struct Stop {
  int after;  // so many instructions
  std::atomic<int> stage{kOnItsWay};
};
Stop* stop = nullptr;
constexpr auto kLongest = std::chrono::milliseconds(5);  // where it is in already nobody else comes in

void on_instruction(int, siginfo_t*, void* context) {
  if (stop->after-- > 0) return;
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~0x100;
  stop->stage = kStopped;
  const auto end = std::chrono::steady_clock::now() + kLongest;
  while (stop->stage == kStopped && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  stop->stage = kGoesOn;
}

// The trap flag of this thread.
void trap_each_instruction() {
  asm volatile("lea -128(%%rsp), %%rsp; pushfq; orl $0x100, (%%rsp); popfq; lea 128(%%rsp), %%rsp" ::: "cc", "memory");
}
void trap_no_instruction() {
  asm volatile("lea -128(%%rsp), %%rsp; pushfq; andl $~0x100, (%%rsp); popfq; lea 128(%%rsp), %%rsp" ::: "cc", "memory");
}

TEST_F(BiasedLockTest, AFormerFavouriteOnItsWayInLeavesTheNextInPeace) {
  constexpr int kInstructions = 40;
  struct sigaction action{}, before{};
  action.sa_sigaction = on_instruction;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(0, sigaction(SIGTRAP, &action, &before));
  int next_ones = 0;
  for (int after = 0; after < kInstructions && !HasFailure(); after++) {
    turns(2000);
    ASSERT_TRUE(shared_->lock.favours_me());
    Stop here{after};
    stop = &here;
    std::atomic<bool> inside{false};
    std::thread other([&] {
      while (here.stage == kOnItsWay) std::this_thread::yield();
      turns(2000);
      (void)shared_->lock.lock();
      inside = true;
      next_ones += shared_->lock.favours_me();
      here.stage = kGoesOn;
      const auto end = std::chrono::steady_clock::now() + kLongest;
      while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
      inside = false;
      shared_->lock.unlock();
    });
    trap_each_instruction();
    (void)shared_->lock.lock();
    trap_no_instruction();
    EXPECT_FALSE(inside) << "stopped after " << after << " instructions";
    shared_->lock.unlock();
    here.stage = kGoesOn;
    other.join();
  }
  EXPECT_GT(next_ones, 0);
  ASSERT_EQ(0, sigaction(SIGTRAP, &before, nullptr));
}

TEST_F(BiasedLockTest, ForbiddenItIsRobustAmongProcesses) {
  turns(2000);
  shared_->lock.forbid_favour();
  const pid_t pid = fork();
  if (pid == 0) {
    base::forget_thread_id();
    turns(50'000);
    (void)shared_->lock.lock();
    _exit(0);
  }
  long deaths = 0;
  for (int i = 0; i < 50'000; i++) {
    deaths += shared_->lock.lock() == BiasedLock::Taken::owner_died;
    shared_->counter++;
    shared_->lock.unlock();
  }
  int status;
  ASSERT_EQ(pid, waitpid(pid, &status, 0));
  deaths += shared_->lock.lock() == BiasedLock::Taken::owner_died;
  shared_->lock.unlock();
  EXPECT_EQ(102'000, shared_->counter);
  EXPECT_EQ(1, deaths);
}

}  // namespace
