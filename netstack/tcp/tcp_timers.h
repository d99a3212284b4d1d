// When lwIP's TCP timers run: only while something is pending.
// SPDX-License-Identifier: BSD-3-Clause
//
// A tick (40 ms) visits the armed connections: lwIP's list of active PCBs exists for its duration only and holds just them. Every second
// tick is one of lwIP's slow ones (retransmission, RFC 6298; persist, RFC 9293, 3.8.6.1; keepalive, RFC 9293, 3.8.4; FIN-WAIT-2 and
// LAST-ACK). An idle connection costs nothing, as with Linux's timer wheel. A process that was away for long gets one tick, not a burst of
// them: what the peers sent meanwhile is processed first, and no retransmission timer jumps.
#pragma once

#include <cstdint>

#include "lwip/priv/tcp_priv.h"
#include "netstack/lwip/clock.h"

namespace netstack {

class Tcp;

class TcpTimers {
 public:
  TcpTimers(Tcp& tcp, uint32_t time_wait_ms) noexcept;

  void start() noexcept { last_slow_tick_ = tcp_ticks; }
  // Something of this connection is pending: its timers run from now on. Takes the clock if the timers stood still.
  void arm(tcp_pcb* pcb) noexcept;
  // The time of this turn; but asks the clock if nothing has been polling because nothing was pending.
  [[nodiscard]] uint64_t fresh_now_ns() noexcept;
  [[nodiscard]] bool running() const noexcept { return next_tick_ns_ != Clock::kNever; }
  void run_due() noexcept;
  [[nodiscard]] uint64_t next_ns() const noexcept;
  // The PCB is about to be freed.
  void forget(const tcp_pcb* pcb) noexcept {
    if (ticking_ == pcb) ticking_ = nullptr;
  }
  void reset() noexcept { ticking_ = nullptr, next_tick_ns_ = next_parked_ns_ = Clock::kNever; }

 private:
  static constexpr int kMaxTimeWait = 16384;  // Linux: tcp_max_tw_buckets

  void run_tick() noexcept;
  [[nodiscard]] bool needs_tick(tcp_pcb* pcb) noexcept;
  [[nodiscard]] bool choose_ticking() noexcept;
  void acknowledge_late(tcp_pcb* pcb) noexcept;
  void park(tcp_pcb* pcb) noexcept;
  void wake_parked() noexcept;
  void expire_time_wait() noexcept;
  [[nodiscard]] uint64_t keepalive_due_ns(const tcp_pcb* pcb) const noexcept;

  Tcp& tcp_;
  uint64_t next_tick_ns_ = Clock::kNever;
  uint64_t next_parked_ns_ = Clock::kNever;
  tcp_pcb* ticking_ = nullptr;  // the connection the tick asks about; null again if that ended it
  uint32_t last_slow_tick_ = 0;
  uint32_t time_wait_ticks_;
};

}  // namespace netstack
