// Whether a thread's waits should spin, or give the processor away: what spinning has brought it lately, and whether others want the
// processor.
// SPDX-License-Identifier: BSD-3-Clause
//
// A spin saves a wake-up of some microseconds if the answer comes while it lasts. It costs all of its time if nothing comes, and more if
// somebody else wanted the processor meanwhile: the client that has the answer, or another member of the family whose frame it was that
// came.
// So a spin counts as answered only if what it waited for came during it; what was there at the first look says nothing about spinning. It
// was in vain if its time is over, and also if it took in what others sleep for: from then on they have work, and this thread has none.
//
// While at least half of the spins, by a moving average, are answered, every wait spins. Else a wait looks once and sleeps; now and then
// one tries again, more and more seldom, and as long as tries are answered the next is one, too.
//
// Answers alone do not tell of members that are ready to run and do not: one of eight processes on a processor that is always answered at
// once keeps it until its slice is over. The clock tells: a spin in which time is missing has lost the processor, and if another member has
// waited there meanwhile, it was to that. Then nobody of the family spins on this processor for a multiple of the time that was missing,
// and sleeps make room. (A mere try says nothing: who is answered all the time takes the processor from it, and rightly. Nor does time that
// was taken by strangers: to them a sleep gives nothing that they have not had.)
//
// Where other threads of the family wait as often, there is more to run than processors, and a spin takes one from the client or from a
// member.
// Nobody spins there. But a sleep has its price as well: the way into the kernel and out of it, and the wake-up by somebody who takes the
// frame in.
// So before it sleeps a wait gives its processor away a few times, to whoever is ready to run, and looks what has come of it. That costs a
// switch, and where the client has run meanwhile, there are requests, several at once. A single-threaded server does the same after a
// spin in vain. (mariadbd with 8 clients, both on both processors, several runs: 0.57 to 0.74 times native with spins, 0.73 to 1.14 with
// this; on one processor 0.85 to 0.9 and 1.16 to 1.22.)
//
// To a stranger that computes a turn is a slice, some milliseconds, in which a sleeper would have been woken: after a long turn a thread
// that is alone sleeps, and gives nothing away for a multiple of what it took.
//
// Known limit: Linux 6.18 takes a slice's worth of its share from whoever yields. A client on the same processor as some fifty members is
// then run after each of their answers, and looks at all of its connections for one.
#pragma once

#include <atomic>
#include <cstdint>

namespace shim {

// Begins as zeros: spins as a rule.
class SpinJudge {
 public:
  // Once per wait.
  [[nodiscard]] bool should_spin() noexcept {
    if (spins_as_a_rule() || skip_ == 0) return true;
    skip_--;
    return false;
  }
  // Whether every wait spins, not only tries.
  [[nodiscard]] bool spins_as_a_rule() const noexcept { return in_vain_ <= kHalf; }
  void answered() noexcept {
    in_vain_ -= in_vain_ / kMemory;
    if (spins_as_a_rule()) doublings_ = 0;
  }
  void in_vain() noexcept {
    in_vain_ += (kAll - in_vain_) / kMemory;
    if (spins_as_a_rule()) return;
    skip_ = kShortestPause << doublings_;
    if (doublings_ < kMostDoublings) doublings_++;
  }

 private:
  static constexpr uint32_t kAll = 1024;
  static constexpr uint32_t kHalf = kAll / 2;
  static constexpr uint32_t kMemory = 8;  // spins
  static constexpr uint32_t kShortestPause = 32, kMostDoublings = 3;  // waits between two tries

  uint32_t in_vain_ = 0;
  uint32_t doublings_ = 0;
  uint32_t skip_ = 0;
};

class GivingWay {
 public:
  static constexpr int kMostTurns = 16;

  // Once per wait. `waits` counts those of the family, more or less.
  void note(std::atomic<uint32_t>& waits) noexcept {
    const uint32_t count = waits.load(std::memory_order_relaxed) + 1;
    waits.store(count, std::memory_order_relaxed);
    const uint32_t since = count - last_ - 1;
    last_ = count;
    others_ += ((since < kMany ? static_cast<int32_t>(since) : kMany) * kOne - others_) / kMemory;
  }
  // Between two waits of this thread there is hardly any of others.
  [[nodiscard]] bool is_alone() const noexcept { return others_ < kOne / 4; }
  [[nodiscard]] bool should(uint64_t now_ns) const noexcept { return now_ns >= until_ns_; }
  // After a turn of `ns`. True: it sleeps now.
  [[nodiscard]] bool was_too_long(uint64_t now_ns, uint64_t ns) noexcept {
    if (ns < kLongNs || !is_alone()) return false;
    until_ns_ = now_ns + kMultiple * ns;
    return true;
  }

 private:
  static constexpr int32_t kOne = 256, kMany = 1024, kMemory = 16;
  static constexpr uint64_t kLongNs = 500'000, kMultiple = 16;

  int32_t others_ = 0;  // waits of others between two of this thread's, a moving average in units of 1/kOne
  uint32_t last_ = 0;
  uint64_t until_ns_ = 0;
};

// By processor, the family's: who waited there last, and until when nobody spins. Processors whose numbers differ by a multiple of kEntries
// share an entry.
class CrowdedProcessors {
 public:
  static constexpr uint64_t kLeastMissingNs = 500'000;  // a slice at the least: not a burst of frames, or a wake-up in vain

  // `thread` waits there. Whether it is crowded.
  [[nodiscard]] bool enter(uint32_t processor, uint32_t thread, uint64_t now_ns) noexcept {
    Entry& entry = entries_[processor % kEntries];
    if (entry.last.load(std::memory_order_relaxed) != thread) entry.last.store(thread, std::memory_order_relaxed);
    return now_ns < entry.until_ns.load(std::memory_order_relaxed);
  }
  // A spin of `thread`, which has entered, got no processor for `missing_ns`, kLeastMissingNs at the least.
  void note(uint32_t processor, uint32_t thread, uint64_t now_ns, uint64_t missing_ns) noexcept {
    Entry& entry = entries_[processor % kEntries];
    if (entry.last.load(std::memory_order_relaxed) == thread) return;
    if (missing_ns > kMostMissingNs) missing_ns = kMostMissingNs;
    entry.until_ns.store(now_ns + kMultiple * missing_ns, std::memory_order_relaxed);
  }

 private:
  static constexpr uint32_t kEntries = 64;
  static constexpr uint64_t kMultiple = 4;
  static constexpr uint64_t kMostMissingNs = 20'000'000;  // whoever was stopped has missed more

  struct alignas(64) Entry {
    std::atomic<uint64_t> until_ns;
    std::atomic<uint32_t> last;
  };
  Entry entries_[kEntries];
};

}  // namespace shim
