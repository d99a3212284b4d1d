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
//    Where a frame costs a kernel call, that of a short segment waits for the program to read it (kUnreadNs at most: natively it costs the
//    peer's processor, here ours), and then for the thread that has read it, which answers or comes here for more. Other threads come and
//    go here meanwhile: they send it when it has waited for kAnswerNs.
//
// Bytes are counted, not segments, since a segment may hold 64 KB (GRO).
#pragma once

#include <cstdint>

#include "base/biased_lock.h"
#include "base/list.h"
#include "lwip/priv/tcp_priv.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

class Tcp;

class DelayedAcks {
 public:
  DelayedAcks(Tcp& tcp, const base::BiasedLock& lock) noexcept;

  // lwIP is about to process a segment with so many bytes.
  void begin_segment(uint32_t bytes) noexcept { segment_bytes_ = bytes; }
  // That segment is to be acknowledged (lwIP's tcp_ack()).
  void acknowledge(tcp_pcb* pcb) noexcept;
  // The calling thread has read or seen everything that has come, and may be about to answer.
  void await_answer(tcp_pcb* pcb) noexcept;
  // Sends at once what is due to this connection, if anything is.
  void send(tcp_pcb* pcb) noexcept;
  // What no segment has said since goes out with this turn's flush.
  void send_all() noexcept;
  // When it has to be called because of that.
  [[nodiscard]] uint64_t next_ns() const noexcept;
  void reset() noexcept;

 private:
  static constexpr uint64_t kUnreadNs = 10'000'000, kAnswerNs = 1'000'000;

  // Due before the next poll.
  void schedule(tcp_pcb* pcb) noexcept;
  void await_reader(tcp_pcb* pcb) noexcept;
  void send_due(DelayedAck* link) noexcept;

  Tcp& tcp_;
  const base::BiasedLock& lock_;
  base::List<DelayedAck> due_;
  base::List<DelayedAck> unread_;   // these two in the order in which they become due
  base::List<DelayedAck> awaited_;
  uint32_t segment_bytes_ = 0;
  const bool frames_are_dear_;
};

}  // namespace netstack
