// lwIP's one-second timers, the neighbour table's and IP reassembly's: they run only while something may be waiting.
// SPDX-License-Identifier: BSD-3-Clause
//
// A packet waits inside lwIP for a neighbour's address (RFC 826; RFC 1122, 2.3.2) or for its other fragments (RFC 791; RFC 1122, 3.3.2),
// and must not wait for ever. So these run while any connection is busy, and for so long after such a packet that it has expired.
#pragma once

#include <cstdint>

#include "netstack/lwip/clock.h"

namespace netstack {

class LinkTimers {
 public:
  explicit LinkTimers(const Clock& clock) noexcept : clock_(clock) {}

  void start() noexcept { next_ns_ = clock_.now_ns() + Clock::kSecondNs; }
  // Fragments or packets for an unresolved neighbour wait inside lwIP.
  void keep_running() noexcept;
  // Makes up for the time that nothing ran.
  void catch_up() noexcept {
    if (clock_.now_ns() >= next_ns_) run();
  }
  // Runs them if they are due; `busy`: some connection is.
  void run_due(bool busy) noexcept {
    if (clock_.now_ns() >= next_ns_ && (busy || waiting())) run();
  }
  [[nodiscard]] uint64_t next_ns() const noexcept { return waiting() ? next_ns_ : Clock::kNever; }
  void reset() noexcept { until_ns_ = 0; }

 private:
  // By when the next turn is due, not by the time it is: a turn that comes late has to come.
  [[nodiscard]] bool waiting() const noexcept { return next_ns_ < until_ns_; }
  void run() noexcept;

  const Clock& clock_;
  uint64_t next_ns_ = 0;
  uint64_t until_ns_ = 0;
};

}  // namespace netstack
