// The stack's clock: the time that poll() was given, and lwIP's tick counter as a function of it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/lock_written.h"
#include "lwip/priv/tcp_priv.h"

namespace netstack {

// tcp_ticks follows the time and not how often a timer ran, so nothing has to run while all connections are idle: the first one that is
// busy again finds the right time. A clock never goes back, whatever it is given.
class Clock {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;
  static constexpr uint64_t kSecondNs = 1'000'000'000;
  static constexpr uint64_t kTickNs = uint64_t{TCP_TMR_INTERVAL} * 1'000'000;
  static constexpr uint64_t kSlowTickNs = 2 * kTickNs;

  explicit Clock(uint64_t (*source)()) noexcept : source_(source), now_ns_(source()), origin_ns_(now_ns_) {}

  [[nodiscard]] uint64_t now_ns() const noexcept { return now_ns_; }
  void set(uint64_t now_ns) noexcept {
    if (now_ns > now_ns_) now_ns_ = now_ns;
    tcp_ticks = static_cast<u32_t>((now_ns_ - origin_ns_) / kSlowTickNs) + 1;
  }
  // Asks the source, for what happens outside poll().
  void read() noexcept { set(source_()); }
  // When tcp_ticks is, or was, `tick`.
  [[nodiscard]] uint64_t ns_of_tick(uint32_t tick) const noexcept {
    const auto ahead = static_cast<int32_t>(tick - tcp_ticks);
    const uint64_t current = origin_ns_ + (now_ns_ - origin_ns_) / kSlowTickNs * kSlowTickNs;
    return current + static_cast<uint64_t>(int64_t{ahead} * static_cast<int64_t>(kSlowTickNs));
  }

 private:
  uint64_t (*source_)();
  base::LockWritten<uint64_t> now_ns_;
  uint64_t origin_ns_;  // when lwIP's slow tick was 1
};

}  // namespace netstack
