// Acknowledgements owed: when what came in is acknowledged, and by which segment.
// SPDX-License-Identifier: BSD-3-Clause
//
// RFC 1122, 4.2.3.2 and RFC 5681, 4.2: an acknowledgement may be delayed, but no more than two full segments may stay unacknowledged. lwIP
// acknowledges every second segment at once, in a segment of its own, while the program's answer (which would carry it) comes some
// microseconds later. So here, as in Linux's __tcp_ack_snd_check() and inet_csk_schedule_ack():
//
//  - up to two full segments' worth of bytes the acknowledgement waits for lwIP's timer, or for data that goes the other way;
//  - beyond that it is due before the next poll: the program may answer before that, and the answer says it too. Where a frame costs little
//    it leaves at once: a sender that is lwIP opens its window by two segments for each at most;
//  - where a connection begins, or goes on after a pause, the first acknowledgements are due as well, as long as the program has not been
//    seen to answer (Linux: quick-ack mode, which ends in pingpong mode). The peer may hold back a short segment until then (Nagle).
//
// Bytes are counted, not segments, since a segment may hold 64 KB (GRO).
#pragma once

#include <cstdint>

#include "base/list.h"
#include "lwip/priv/tcp_priv.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

class Tcp;

class DelayedAcks {
 public:
  explicit DelayedAcks(Tcp& tcp) noexcept;

  // lwIP is about to process a segment with so many bytes.
  void begin_segment(uint32_t bytes) noexcept { segment_bytes_ = bytes; }
  // That segment is to be acknowledged (lwIP's tcp_ack()).
  void acknowledge(tcp_pcb* pcb) noexcept;
  // Sends at once what is due to this connection, if anything is.
  void send(tcp_pcb* pcb) noexcept;
  // What no segment has said since goes out with this turn's flush.
  void send_all() noexcept;
  [[nodiscard]] bool empty() const noexcept { return due_.empty(); }
  void reset() noexcept;

 private:
  // Due before the next poll.
  void schedule(tcp_pcb* pcb) noexcept;

  Tcp& tcp_;
  base::List<DelayedAck> due_;
  uint32_t segment_bytes_ = 0;
  const bool frames_are_dear_;
};

}  // namespace netstack
