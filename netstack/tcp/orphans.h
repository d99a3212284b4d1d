// Connections that nobody holds any more: how long they may still take.
// SPDX-License-Identifier: BSD-3-Clause
//
// A program has closed, and TCP finishes alone. What the peer does about it may be nothing, or hostile: lwIP would probe a shut window for
// as long as each probe is answered, and every one of its retransmission limits grows with the round trip. Linux gives an orphan up
// whatever its peer says, and so it is here:
//
//  - FIN-WAIT-2 lasts a minute from the acknowledgement of the FIN, or what TCP_LINGER2 says, whatever comes meanwhile (tcp_fin_time();
//    tcp_time_wait() with that state). lwIP counts from when the program closed, and less. A time below zero is none: the peer is reset.
//  - In any other state the peer has kPatienceNs to acknowledge something more. (tcp_orphan_retries(): eight retransmissions, about as long
//    at the smallest RTO.) A peer that is slow but goes on is waited for.
//  - While memory is short there is less patience: whoever has been asked kAskedInVain times for nothing makes room for the living
//    (tcp_out_of_resources()). The longest armed are looked at first, and only until there is room.
//
// At first an orphan still has its stream, which holds what is unsent: LwipStream::before_tick(). Later the PCB is alone. lwIP then does
// not touch its `tmr` (TF_RXCLOSED), which here is when its peer last acknowledged something; up to where, and how long FIN-WAIT-2 may
// last, is in the argument that nobody's callbacks get.
#pragma once

#include "lwip/priv/tcp_priv.h"
#include "netstack/lwip/memory_budget.h"

namespace netstack {

class Orphans {
 public:
  static constexpr uint64_t kPatienceNs = 100'000'000'000;

  // The peer takes nothing, and there is no room for such.
  [[nodiscard]] static bool is_in_the_way(const tcp_pcb& pcb, const MemoryBudget& memory) noexcept {
    return (pcb.nrtx >= kAskedInVain || pcb.persist_backoff >= kAskedInVain) && memory.is_short();
  }

  // From here on the PCB has no stream. `fin_wait_s`: TCP_LINGER2.
  static void leave_alone(tcp_pcb& pcb, int fin_wait_s) noexcept {
    tcp_set_flags(&pcb, TF_RXCLOSED);
    note_progress(pcb, fin_wait_s < 0 ? -1 : fin_wait_s * 1000 / TCP_SLOW_INTERVAL);
  }
  [[nodiscard]] static bool is_alone(const tcp_pcb& pcb) noexcept { return pcb.errf == nullptr && pcb.state >= ESTABLISHED; }
  // At each tick of one that is alone: false if its time is up, and it is gone.
  [[nodiscard]] static bool tick(tcp_pcb& pcb, const MemoryBudget& memory) noexcept;

 private:
  static constexpr int kAskedInVain = 3;  // retransmissions, or probes of a shut window: two seconds at least
  static constexpr uint32_t kPatienceTicks = kPatienceNs / 1'000'000 / TCP_SLOW_INTERVAL;

  static void note_progress(tcp_pcb& pcb, int32_t fin_wait_ticks) noexcept {
    pcb.tmr = tcp_ticks;
    pcb.callback_arg = reinterpret_cast<void*>(uintptr_t{static_cast<uint32_t>(fin_wait_ticks)} << 32 | pcb.lastack);
  }
  [[nodiscard]] static uint32_t noted(const tcp_pcb& pcb) noexcept {
    return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pcb.callback_arg));
  }
  [[nodiscard]] static int32_t fin_wait_ticks(const tcp_pcb& pcb) noexcept {
    return static_cast<int32_t>(reinterpret_cast<uintptr_t>(pcb.callback_arg) >> 32);
  }
};

}  // namespace netstack
