// A program that is reading is not brought more datagrams than its buffer holds, as long as the wire can keep them.
// SPDX-License-Identifier: BSD-3-Clause
//
// On Linux datagrams come while their reader works, one by one, and what does not fit SO_RCVBUF is lost. Here they come when somebody
// polls, a burst at a time, and it is the reader itself who polls between two of its reads: after a pause in which many have gathered on
// the wire each poll would bring more than the one that was read, and most were lost though the reader is fast enough. So while the buffer
// of one that reads could not take a burst, the wire is left alone; but not for long, for there are others, and not when the wire is about
// to lose frames itself. Nor before somebody sleeps: what was left lying there would not wake him.
#pragma once

#include <cstdint>

#include "netstack/lwip/clock.h"
#include "netstack/wire.h"

namespace netstack {

class BusyReaders {
 public:
  static constexpr uint32_t kBurstCost = kBurst * 2304;  // of full frames, as DatagramQueue counts

  explicit BusyReaders(const Clock& clock) noexcept : clock_(clock) {}

  // A datagram has been queued, and the next burst would not fit.
  void note_nearly_full(const void* endpoint) noexcept {
    if (nearly_full_ == nullptr) since_ns_ = clock_.now_ns();
    nearly_full_ = endpoint;
    read_ns_ = clock_.now_ns();
    turns_ = 0;
  }
  // One has been read; `still`: the next burst would not fit yet.
  void note_read(const void* endpoint, bool still) noexcept {
    if (nearly_full_ != endpoint) [[likely]] return;
    read_ns_ = clock_.now_ns();
    turns_ = 0;
    if (!still) nearly_full_ = nullptr;
  }
  // Whether the wire is left alone this time.
  [[nodiscard]] bool hold_back(const Wire& wire) noexcept {
    if (nearly_full_ == nullptr) [[likely]] return false;
    const uint64_t now_ns = clock_.now_ns();
    if (now_ns - read_ns_ >= kPauseNs || ++turns_ > kMostTurns) return nearly_full_ = nullptr, false;
    if (now_ns - since_ns_ < kHoldNs && !wire.crowded()) return true;
    since_ns_ = now_ns;
    return false;
  }
  [[nodiscard]] uint64_t next_timer_ns() const noexcept { return nearly_full_ != nullptr ? since_ns_ + kHoldNs : Clock::kNever; }
  void reset() noexcept { nearly_full_ = nullptr; }

 private:
  static constexpr uint64_t kHoldNs = 200'000, kPauseNs = 500'000;
  static constexpr int kMostTurns = 16;

  const Clock& clock_;
  const void* nearly_full_ = nullptr;
  uint64_t since_ns_ = 0;  // it has been left alone since then
  uint64_t read_ns_ = 0;   // somebody has read, or been told that he can
  int turns_ = 0;          // since then
};

}  // namespace netstack
