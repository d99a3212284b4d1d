// The lock among processes that are stopped, continued, killed, forked and given other priorities at any moment, a turn after the other.
// SPDX-License-Identifier: BSD-3-Clause
//
// Each member has two threads that take turns all the time. A turn writes two words one after the other: they differ to others only if the
// lock lets two in, or does not tell of a death. ZPS_TEST_ROUNDS: how many turns.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <random>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/biased_lock.h"
#include "base/clock.h"
#include "tests/lib/rounds.h"

using base::BiasedLock;

namespace {

constexpr size_t kMembers = 4;
constexpr long kBurst = 16;  // turns between two naps, or who stirs would hardly run
constexpr long kPatience = 200'000;  // naps, for the machine may be busy; who was frozen himself has not waited

struct Shared {
  BiasedLock lock;
  std::atomic<uint64_t> first{0}, second{0};  // behind the lock
  std::atomic<long> turns{0}, deaths{0}, broken{0};
  std::atomic<uint32_t> next_tag{2};
  std::atomic<pid_t> member[kMembers]{};
  std::atomic<bool> forks[kMembers]{};  // the member is to go on as a child of itself
};

class LockStorm : public testing::Test {
 protected:
  void SetUp() override {
    base::set_process_tag(1);
    ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
    shared_->lock.forbid_favour();
    for (size_t i = 0; i < kMembers; i++) make(i);
  }
  void TearDown() override {
    for (auto& member : shared_->member) end(member);
    while (waitpid(-1, nullptr, __WALL | WNOHANG) > 0) {
    }
    base::set_process_tag(0);
  }

  // A member's whole life, in a process that was forked just now.
  [[noreturn]] void live(size_t place) {
    base::forget_thread_id();
    base::set_process_tag(shared_->next_tag++);
    shared_->member[place] = getpid();
    std::thread other([this] {
      while (true) burst();
    });
    while (true) {
      burst();
      if (!shared_->forks[place].load(std::memory_order_relaxed) || !shared_->forks[place].exchange(false)) continue;
      const pid_t child = fork();
      if (child == 0) live(place);
      if (child > 0) _exit(0);
      shared_->forks[place] = true;
    }
  }
  void burst() {
    for (long i = 0; i < kBurst; i++) turn();
    nap();
  }
  static void nap() {
    const timespec time{0, 50'000};
    (void)nanosleep(&time, nullptr);
  }
  void turn() {
    const bool died = shared_->lock.lock() == BiasedLock::Taken::owner_died;
    if (died) shared_->deaths++;
    if (!died && shared_->first != shared_->second) shared_->broken++;
    const uint64_t next = shared_->first.load(std::memory_order_relaxed) + 1;
    shared_->first.store(next, std::memory_order_relaxed);
    for (int i = 0; i < 20; i++) __builtin_ia32_pause();
    shared_->second.store(next, std::memory_order_relaxed);
    shared_->lock.unlock();
    shared_->turns++;
  }

  void make(size_t place) {
    const pid_t pid = fork();
    if (pid == 0) live(place);
    shared_->member[place] = pid;
  }
  static void end(pid_t pid) {
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, nullptr, __WALL);
  }
  template <class F>
  [[nodiscard]] static bool comes(F condition) {
    for (long naps = 0; !condition(); naps++) {
      if (naps == kPatience) return false;
      nap();
    }
    return true;
  }
  [[nodiscard]] bool others_go_on() const {
    return comes([this, before = shared_->turns.load()] { return shared_->turns >= before + 20; });
  }

  Shared* shared_ = new (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared();
};

using Random = std::mt19937;

void change_priority(pid_t pid, Random& random) {
  static constexpr int kPolicies[] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_FIFO};
  const int policy = kPolicies[random() % std::size(kPolicies)];
  const sched_param parameter{policy == SCHED_FIFO ? 1 : 0};
  (void)sched_setscheduler(pid, policy, &parameter);  // where it may not be, it stays
  (void)setpriority(PRIO_PROCESS, static_cast<id_t>(pid), static_cast<int>(random() % 20));
}

TEST_F(LockStorm, KeepsTurnsApartAndGoingOn) {
  const long wanted = tests::rounds(200'000);
  const auto seed = static_cast<unsigned>(base::monotonic_ns());
  Random random(seed);
  long stops = 0, kills = 0, forks = 0, priorities = 0;
  while (shared_->turns < wanted || stops == 0 || kills == 0 || forks == 0 || priorities == 0) {
    const size_t place = random() % kMembers;
    const pid_t victim = shared_->member[place];
    switch (random() % 8) {
      case 0:
        end(victim);
        make(place);
        kills++;
        break;
      case 1:
        shared_->forks[place] = true;
        ASSERT_TRUE(comes([&] { return shared_->member[place] != victim; })) << "no fork; seed " << seed;
        forks++;
        break;
      case 2:
      case 3:
        change_priority(victim, random);
        priorities++;
        break;
      default:
        (void)kill(victim, SIGSTOP);
        stops++;
        ASSERT_TRUE(others_go_on()) << "one is stopped, and nobody has a turn; seed " << seed;
        (void)kill(victim, SIGCONT);
    }
    ASSERT_TRUE(others_go_on()) << "seed " << seed;
    ASSERT_EQ(0, shared_->broken) << "two had the lock, or a death was not told; seed " << seed;
  }
  for (auto& member : shared_->member) end(member);
  if (shared_->lock.lock() == BiasedLock::Taken::owner_died) shared_->deaths++;
  shared_->lock.unlock();
  EXPECT_EQ(shared_->lock.lock(), BiasedLock::Taken::clean);
  shared_->lock.unlock();
  std::cout << shared_->turns << " turns, " << stops << " stops, " << kills << " kills, " << shared_->deaths << " of them inside, " << forks
            << " forks, " << priorities << " other priorities\n";
}

}  // namespace
