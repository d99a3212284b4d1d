// Nobody sleeps through a frame: the waits of shim/family/wait.h and netstack/wake_bells.h as a model, every interleaving of three threads.
// SPDX-License-Identifier: BSD-3-Clause
//
// A thread here waits for one connection for ever. It looks (lock, poll, check), else prepares its sleep (arm, poll, check, mark), sleeps,
// and cleans up, as wait.cc and waiter.cc do it; eventfds are written after the lock is free, by whoever finds them due. The kernel puts a
// frame into the ring, then looks at a bell. Steps are as fine as what others can see: a store, a compare-and-exchange, a read of the ring;
// to take the lock is one step with what comes first under it, to leave it with what comes last (Lipton, Reduction, 1975). Memory is
// sequentially consistent, which the barriers of wake_bells.h provide where it matters.
//
// What no owner does is left open, so all of it is tried: each frame rings whichever bell, the common one among them (homes may be wrong,
// or not there), and a bell that is not armed may be found late or not. Where homes are right a thread that has received something may also
// never come back (it works); until the service looks (10 ms) a frame that rang the bell of such a one, and was another's, would lie there.
//
// A state in which nobody can go on and no frame is to come is an end: then everything must have been received. That the model would notice
// is seen from protocols that are wrong on purpose.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <numeric>
#include <string_view>
#include <unordered_set>

#include "tests/lib/rounds.h"

namespace {

constexpr int kThreads = 3, kCommon = kThreads, kMostWatchers = 2;
constexpr uint8_t kNobody = 0xff;

enum Bell : uint8_t { awake, armed, rung };
enum Step : uint8_t {
  look,
  prepare,
  arm_common,
  empty_own,
  arm_own,
  poll_last,
  deliver,
  write_events,
  sleep,
  settle,
  hand_on,
  rearm,
  work
};

struct Thread {
  Step step = look, next = look;  // next: after the lock has been left
  bool takes_watch = false, watches = false, sleeps_on_bell = false, sleeping = false, notified = false;
  bool event = false, wake_bit = false, ready = false;
  uint8_t to_write = 0;  // whose eventfds
};

struct Buffer {
  Bell state = awake;
  uint8_t unread = 0;     // records that have not been consumed
  uint8_t uncounted = 0;  // written, and not yet in `rings`
};

struct Kernel {
  uint8_t owner = kNobody, bell = 0, stage = 0;
};

struct State {
  Thread thread[kThreads];
  Buffer bell[kThreads + 1];
  uint8_t ring[kThreads] = {};  // frames that lie there, by whom they are for
  uint8_t to_come = 0;
  uint8_t lock = kNobody;
  bool wakes_due = false;
  Kernel kernel;
};
static_assert(std::has_unique_object_representations_v<State>);

struct Protocol {
  bool bells = true;
  bool right_homes = false, may_work = false;
  bool bell_before_frame = false;  // wrong on purpose, from here on
  bool poll_before_arm = false;
  bool no_successor = false;
};

class Model {
 public:
  explicit Model(const Protocol& protocol) : protocol_(protocol) {}

  // The number of states, or 0: in some end a frame has not been received.
  size_t explore(int frames) {
    State first;
    first.to_come = static_cast<uint8_t>(frames);
    reach(first);
    while (!open_.empty()) {
      const State state = open_.front();
      open_.pop_front();
      const size_t reached = steps_;
      for (int i = 0; i < kThreads; i++) advance(state, i);
      advance_kernel(state);
      if (steps_ == reached && !is_good_end(state)) return 0;
    }
    return seen_.size();
  }

 private:
  struct Hash {
    size_t operator()(const State& state) const {
      return std::hash<std::string_view>()({reinterpret_cast<const char*>(&state), sizeof state});
    }
  };
  struct Equal {
    bool operator()(const State& a, const State& b) const { return memcmp(&a, &b, sizeof a) == 0; }
  };

  void reach(const State& state) {
    steps_++;
    const State same = in_order(state);
    if (seen_.insert(same).second) open_.push_back(same);
  }

  // Threads differ by nothing but their numbers: one state stands for those that only exchange them.
  static State in_order(const State& state) {
    int order[kThreads];
    std::iota(order, order + kThreads, 0);
    const auto comes_first = [&](int a, int b) {
      int difference = memcmp(&state.thread[a], &state.thread[b], sizeof(Thread));
      if (difference == 0) difference = memcmp(&state.bell[a], &state.bell[b], sizeof(Buffer));
      return difference != 0 ? difference < 0 : state.ring[a] < state.ring[b];
    };
    std::sort(order, order + kThreads, comes_first);
    State same = state;
    for (int i = 0; i < kThreads; i++) {
      const int old = order[i];
      same.thread[i] = state.thread[old];
      same.bell[i] = state.bell[old];
      same.ring[i] = state.ring[old];
      same.thread[i].to_write = 0;
      for (int j = 0; j < kThreads; j++) same.thread[i].to_write |= (state.thread[old].to_write >> order[j] & 1) << j;
      if (state.lock == old) same.lock = static_cast<uint8_t>(i);
      if (state.kernel.owner == old) same.kernel.owner = static_cast<uint8_t>(i);
      if (state.kernel.owner != kNobody && state.kernel.bell == old) same.kernel.bell = static_cast<uint8_t>(i);
    }
    return same;
  }

  static bool is_good_end(const State& state) {
    for (int i = 0; i < kThreads; i++) {
      if (state.thread[i].step != work && (state.ring[i] != 0 || state.thread[i].ready)) return false;
    }
    return true;
  }

  static int watchers(const State& state) {
    int count = 0;
    for (const Thread& thread : state.thread) count += thread.watches ? 1 : 0;
    return count;
  }

  static void notify(State& state, int i) {
    Thread& thread = state.thread[i];
    if (!thread.sleeping || thread.notified) return;
    thread.notified = true;
    if (thread.sleeps_on_bell && state.bell[i].state == rung) return;
    thread.wake_bit = state.wakes_due = true;
  }

  static void poll(State& state) {
    for (int i = 0; i < kThreads; i++) {
      if (state.ring[i] == 0) continue;
      state.ring[i] = 0;
      state.thread[i].ready = true;
      notify(state, i);
    }
  }

  static void empty(Buffer& bell) { bell.unread = bell.uncounted; }

  static void leave_for(State& state, Thread& thread, Step next) {
    state.lock = kNobody;
    thread.step = deliver;
    thread.next = next;
  }

  bool may_wake(const State& state, int i) const {
    const Thread& thread = state.thread[i];
    if (thread.event) return true;
    if (!protocol_.bells) return thread.watches && (state.ring[0] | state.ring[1] | state.ring[2]) != 0;
    return state.bell[i].unread != 0 || (thread.watches && state.bell[kCommon].unread != 0);
  }

  // One step of a thread, if it can go on.
  void advance(State state, int i) {
    Thread& thread = state.thread[i];
    if (thread.step == look || thread.step == prepare || thread.step == settle) {
      if (state.lock != kNobody) return;
      state.lock = static_cast<uint8_t>(i);
    }
    if (thread.step == work || (thread.step == sleep && !may_wake(state, i))) return;
    if (thread.step == look) {
      look_once(state, i);
    } else if (thread.step <= poll_last) {
      prepare_sleep(state, i);
    } else if (thread.step <= write_events) {
      wake_others(state, thread);
    } else {
      wake_up(state, i);
    }
    reach(state);
  }

  void look_once(State& state, int i) {
    Thread& thread = state.thread[i];
    poll(state);
    leave_for(state, thread, thread.ready ? look : prepare);
    if (thread.ready && protocol_.may_work) {
      State busy = state;
      busy.thread[i].ready = false;
      busy.thread[i].next = work;
      reach(busy);
    }
    thread.ready = false;
  }

  void prepare_sleep(State& state, int i) const {
    Thread& thread = state.thread[i];
    if (thread.step == prepare) {
      if (protocol_.poll_before_arm) poll(state);
      thread.takes_watch = watchers(state) < kMostWatchers;
      if (protocol_.bells && thread.takes_watch) empty(state.bell[kCommon]);
      thread.step = protocol_.bells ? arm_common : poll_last;
    } else if (thread.step == arm_common) {
      if (thread.takes_watch) state.bell[kCommon].state = armed;
      thread.step = empty_own;
    } else if (thread.step == empty_own) {
      empty(state.bell[i]);
      thread.step = arm_own;
    } else if (thread.step == arm_own) {
      state.bell[i].state = armed;
      thread.step = poll_last;
    } else {
      if (!protocol_.poll_before_arm) poll(state);
      if (thread.ready) {
        state.bell[i].state = awake;
        if (thread.takes_watch && watchers(state) == 0) state.bell[kCommon].state = awake;
      } else {
        thread.sleeps_on_bell = protocol_.bells;
        thread.watches = thread.takes_watch;
        thread.sleeping = true;
      }
      leave_for(state, thread, thread.ready ? look : sleep);
      thread.ready = thread.takes_watch = false;
    }
  }

  static void wake_others(State& state, Thread& thread) {
    if (thread.step == deliver) {
      for (int other = 0; state.wakes_due && other < kThreads; other++) {
        if (state.thread[other].wake_bit) thread.to_write |= static_cast<uint8_t>(1 << other);
        state.thread[other].wake_bit = false;
      }
      state.wakes_due = false;
      thread.step = thread.to_write != 0 ? write_events : thread.next;
      return;
    }
    for (int other = 0; other < kThreads; other++) {
      if ((thread.to_write >> other & 1) != 0) state.thread[other].event = true;
    }
    thread.to_write = 0;
    thread.step = thread.next;
  }

  void wake_up(State& state, int i) const {
    Thread& thread = state.thread[i];
    if (thread.step == sleep) {
      thread.event = false;
      thread.step = settle;
    } else if (thread.step == settle) {
      if (thread.sleeps_on_bell) state.bell[i].state = awake;
      thread.sleeps_on_bell = false;
      if (thread.watches) {
        thread.step = hand_on;
      } else {
        end_sleep(state, thread);
      }
    } else if (thread.step == rearm) {
      if (protocol_.bells) state.bell[kCommon].state = armed;
      end_sleep(state, thread);
    } else {
      thread.watches = false;
      if (watchers(state) > 0) {
        if (protocol_.bells) empty(state.bell[kCommon]);
        thread.step = rearm;
        return;
      }
      state.bell[kCommon].state = awake;
      thread.sleeping = false;
      promote(state);
      end_sleep(state, thread);
    }
  }

  static void end_sleep(State& state, Thread& thread) {
    thread.sleeping = false;
    if (thread.notified) thread.wake_bit = false;
    thread.notified = false;
    leave_for(state, thread, look);
  }

  void promote(State& state) const {
    if (protocol_.no_successor) return;
    for (int i = 0; i < kThreads; i++) {
      if (!state.thread[i].sleeping || state.thread[i].notified) continue;
      notify(state, i);
      return;
    }
  }

  // One step of the processor that serves the link.
  void advance_kernel(const State& before) {
    const Kernel& kernel = before.kernel;
    if (kernel.owner == kNobody) {
      for (uint8_t owner = 0; before.to_come > 0 && owner < kThreads; owner++) {
        for (uint8_t bell = 0; bell <= (protocol_.bells ? kCommon : 0); bell++) {
          if (protocol_.bells && protocol_.right_homes && bell != owner && bell != kCommon) continue;
          State state = before;
          state.to_come--;
          state.kernel = {owner, bell, 0};
          reach(state);
        }
      }
      return;
    }
    State state = before;
    Buffer& bell = state.bell[kernel.bell];
    const int stage = kernel.stage;
    state.kernel.stage++;
    if (stage == (protocol_.bell_before_frame ? 3 : 0)) {
      state.ring[kernel.owner]++;
      if (!protocol_.bells || protocol_.bell_before_frame) state.kernel = {};
    } else if (stage == (protocol_.bell_before_frame ? 0 : 1)) {
      if (bell.state == armed) {
        bell.state = rung;
      } else {
        if (kernel.bell != kCommon) {
          State late = before;
          late.kernel.bell = kCommon;
          reach(late);
        }
        state.kernel.stage = 3;
        if (!protocol_.bell_before_frame) state.kernel = {};
      }
    } else if (stage == (protocol_.bell_before_frame ? 1 : 2)) {
      bell.unread++;
      bell.uncounted = 1;
    } else {
      bell.uncounted = 0;
      if (!protocol_.bell_before_frame) state.kernel = {};
    }
    reach(state);
  }

  const Protocol protocol_;
  std::unordered_set<State, Hash, Equal> seen_;
  std::deque<State> open_;
  size_t steps_ = 0;
};

// Two are enough for all that was ever found wrong; with three it takes minutes.
int frames() { return static_cast<int>(tests::rounds(2)); }

TEST(WakeModel, NoFrameIsSleptThroughWithBells) { EXPECT_GT(Model({}).explore(frames()), 10000u); }

TEST(WakeModel, WhoWorksLeavesTheOthersTheirBells) { EXPECT_GT(Model({.right_homes = true, .may_work = true}).explore(frames()), 10000u); }

TEST(WakeModel, NoFrameIsSleptThroughOnTheWireItself) { EXPECT_GT(Model({.bells = false, .may_work = true}).explore(3), 10000u); }

TEST(WakeModel, WouldNoticeABellBeforeItsFrame) { EXPECT_EQ(Model({.bell_before_frame = true}).explore(2), 0u); }

TEST(WakeModel, WouldNoticeALookBeforeArming) { EXPECT_EQ(Model({.poll_before_arm = true}).explore(2), 0u); }

TEST(WakeModel, WouldNoticeAPlaceThatIsNotHandedOn) {
  EXPECT_EQ(Model({.bells = false, .may_work = true, .no_successor = true}).explore(3), 0u);
}

}  // namespace
