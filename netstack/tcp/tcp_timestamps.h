// The timestamps option, RFC 7323: lwIP 2.1.3 sends and echoes it; what receiving it is for is done here.
// SPDX-License-Identifier: BSD-3-Clause
//
//  - PAWS (section 5): a segment whose timestamp is older than the last one is an old duplicate, acknowledged and dropped. But not a reset,
//    not a pure acknowledgement that says nothing new (Linux: tcp_disordered_ack()), and not after 24 days without one (section 5.5).
//  - TS.Recent (section 4.3) is what lwIP echoes. It follows RFC 1323, which let an old duplicate set it back.
//  - RTTM (section 4): after a retransmission lwIP has no round trip to measure (Karn); the echo tells which transmission was acknowledged.
//  - TIME-WAIT ends for a SYN with a newer timestamp, RFC 6191 (Linux: tcp_timewait_state_process()).
//
// Our own clock counts milliseconds from an offset that is the same for all connections between two addresses, so that it grows from one to
// the next, and otherwise says nothing about the machine (Linux: secure_tcp_ts_off()).
//
// A stack at the other end of a memory wire is like this one: its connections live in milliseconds, its TIME-WAITs are known by their
// sequence numbers, and twelve bytes more in each segment would be all that it got. So they are not offered there, but taken up if the peer
// offers them.
#pragma once

#include <cstdint>

#include "lwip/priv/tcp_priv.h"

namespace netstack {

class Clock;

struct Timestamps {
  uint32_t value, echo;
};

// Whether timestamp `a` was made before `b` (RFC 7323, 5.2).
[[nodiscard]] inline bool is_older(uint32_t a, uint32_t b) noexcept { return static_cast<int32_t>(a - b) < 0; }

// Finds the option among the first `option_bytes` bytes of options, which lie behind the header.
[[nodiscard]] bool find_timestamps(const tcp_hdr& header, uint32_t option_bytes, Timestamps* out) noexcept;

// A connection's part. It lies in the PCB's last ext-arg: the offset of our clock, and the second in which TS.Recent was last renewed.
class TcpTimestamps {
 public:
  // A connection begins, active or passive.
  static void start(tcp_pcb& pcb, const uint64_t seed[2], bool offers) noexcept;
  [[nodiscard]] static uint32_t now(const tcp_pcb& pcb, const Clock& clock) noexcept;
  // The same for a connection that has no PCB yet.
  [[nodiscard]] static uint32_t now(const ip_addr_t& local, const ip_addr_t& peer, const uint64_t seed[2], const Clock& clock) noexcept;
  // Takes notice of what a segment of a connection with timestamps says. False: PAWS rejects it.
  [[nodiscard]] static bool accept(tcp_pcb& pcb, const tcp_hdr& header, uint32_t payload, const Timestamps& stamps,
                                   const Clock& clock) noexcept;

 private:
  static constexpr int kPlace = 5;
  static constexpr uint32_t kOutdatedSeconds = 24 * 24 * 60 * 60;

  struct State {
    uint32_t offset, renewed_s;  // renewed_s: 0 if never
  };
  [[nodiscard]] static State state(const tcp_pcb& pcb) noexcept;
  static void set(tcp_pcb& pcb, State state) noexcept;
};

}  // namespace netstack
