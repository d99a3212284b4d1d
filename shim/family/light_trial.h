// Whether sending is cheaper while idle processors sleep lightly: it is tried.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. What a server sends over a wire that ends in this machine's kernel wakes the client, and whoever wakes a halted processor
// pays for it: in a virtual machine the interrupt is an exit, 6 us of 11 for a small frame. A client that has little to do halts after
// each answer, and so the server, which has no processor to spare, is the slower the faster its client is. No wait of the server's tells of
// that (processors.h counts those that are answered within their spin): it never waits.
//
// How. From time to time a moment is light, and what a message costs to be given to the kernel is compared with the moment before. If it
// was cheaper by an eighth, it stays light for a while, and then it is tried again. If not (the client keeps its processor busy; processors
// that are woken without an exit), the next trial is later each time.
#pragma once

#include <cstdint>

namespace shim {

// Begins as zeros.
class LightTrial {
 public:
  static constexpr uint32_t kEnough = 100;  // messages in a moment, from which on it says something

  // At a moment's end: whether it was light, for whatever reason, how many messages it had, and what they cost together, in any unit.
  // Returns whether the next one is to be light.
  [[nodiscard]] bool judge(uint64_t now_ns, bool was_light, uint64_t messages, uint64_t cost) noexcept {
    if (messages < kEnough) {
      if (state_ == State::light) next_ns_ = 0;  // the next load is tried at once
      state_ = State::dark;
      return false;
    }
    const uint64_t each = cost / messages;
    switch (state_) {
      case State::dark:
        if (was_light || now_ns < next_ns_) return false;  // what was light is nothing to compare with
        dark_each_ = each;
        state_ = State::trial;
        return true;
      case State::trial:
        if (each <= dark_each_ - dark_each_ / 8) {
          state_ = State::light;
          next_ns_ = now_ns + kKeptNs;
          doublings_ = 0;
          return true;
        }
        state_ = State::dark;
        next_ns_ = now_ns + (kShortestPauseNs << doublings_);
        if (doublings_ < kMostDoublings) doublings_++;
        return false;
      case State::light:
        if (now_ns < next_ns_) return true;
        state_ = State::dark;
        return false;
    }
    return false;
  }

 private:
  enum class State : uint8_t { dark, trial, light };
  static constexpr uint64_t kKeptNs = 10'000'000'000, kShortestPauseNs = 1'000'000'000;
  static constexpr uint8_t kMostDoublings = 5;

  State state_ = State::dark;
  uint8_t doublings_ = 0;
  uint64_t next_ns_ = 0;  // of the next trial, or the end of what it has brought
  uint64_t dark_each_ = 0;
};

}  // namespace shim
