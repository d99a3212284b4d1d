// What lwIP 2.1.3's state machine does wrong or Linux does otherwise, mended segment by segment, from outside.
// SPDX-License-Identifier: BSD-3-Clause
//
// before_segment() sees each segment after its connection is found and before tcp_process(); after_segment() completes what spans the call.
// A segment is dropped there, or answered with an ACK, or something in the PCB is put right so that lwIP does the right thing by itself.
//
// Dropped or answered in place of lwIP:
//  1. SYN with FIN or RST: no such segment exists. (Linux: tcp_rcv_state_process() discards them.)
//  2. A segment with neither ACK nor RST on a synchronised connection: RFC 9293, 3.10.7.4, fifth. (tcp_rcv_established(): no_ack_flag.)
//  3. SYN on a synchronised connection: answered with a challenge ACK, RFC 5961, 4.2. lwIP asserts. (tcp_send_challenge_ack().)
//  4. Data from outside the window: answered with an ACK, RFC 9293, 3.10.7.4, first. lwIP would let what lies beyond replace queued
//     segments past their bound. A bare ACK from there counts, as the RFC asks for when the window is shut. (tcp_sequence().)
//  5. A reset that is not at RCV.NXT: answered with a challenge ACK if it lies in the window, RFC 5961, 3.2. (tcp_validate_incoming().)
//  6. An ACK of what was never sent, or of what lies further back than any window reached: RFC 5961, 5.2. The first is not answered, or two
//     that disagree would go on for ever. (tcp_ack().)
//  7. Answers to all of these are few, whatever a flood asks for: to what has no data, and in TIME-WAIT, one in half a second (RFC 5961, 7;
//     net.ipv4.tcp_invalid_ratelimit, tcp_oow_rate_limited()); to data one in a turn.
//  8. The last ACK of a handshake with data for which there is no memory: the peer sends it again. (What is for a listener, or for nobody,
//     does not get here: handshakes.h.)
// Put right before lwIP looks:
//  9. An ACK that is due leaves before out-of-order data is answered: RFC 5681, 4.2 wants an immediate duplicate there, and together with
//     the other it would not be one.
// 10. A window probe's byte was taken: lwIP probes with data (RFC 9293, 3.8.6.1), which TcpTimers does not count as sent, since behind a
//     shut window Linux takes no ACK of ours. What the peer acknowledges of it is counted here.
// 11. A retransmitted segment whose ACK is new brings its window with it: lwIP compares sequence numbers only (RFC 9293's SND.WL1), would
//     take the ACK but keep the older, larger window, send past the peer's, and what it then says itself would lie outside and be dropped.
//     (tcp_may_update_window(): an ACK that is new always counts.) So does one that shuts the window and says nothing else: a peer that is
//     short of memory could not take what is sent again and again, and would be given up in the end.
// 12. An ACK that is not new may still open the window: lwIP calls nobody, and what waits in a stream's own queue would go on waiting.
// 13. A simultaneous open, RFC 9293, 3.5, figure 7: lwIP ignores a SYN that crosses its own. (tcp_rcv_synsent_state_process().)
// 19. A duplicate ACK answers nothing that was sent again: lwIP measures that as well (RFC 6298, 3), and where a part of it has been
//     acknowledged takes each of them for the answer: the time-out would not back off.
// Spanning the call:
// 14. Duplicate ACKs are counted up to three, RFC 5681, 3.2, whatever data comes meanwhile: lwIP forgets them on any data segment, so
//     two-way traffic would never retransmit fast.
// 15. A partial acknowledgement retransmits the next hole at once and fast recovery goes on, RFC 6582, 3.2: lwIP leaves it, so each further
//     loss in a window costs a timeout. (tcp_fastretrans_alert(), tcp_try_undo_partial().)
// 16. A pure ACK at the edge of a shut window is acceptable, RFC 9293, 3.10.7.4, first, and one from beyond a window that has shrunk
// counts;
//     neither is answered: lwIP answers each, so two stacks that both have no window would answer each other for ever.
//     (tcp_oow_rate_limited().)
// 17. Data for which there is no memory is not taken, but what it acknowledges counts: that may be what makes room. The window is shut
//     until something is read, or the peer would send it again and again until it gives up. (tcp_data_queue() after tcp_ack();
//     tcp_select_window() with ICSK_ACK_NOMEM.)
// Ended in place of lwIP:
// 18. TIME-WAIT, by a reset at RCV.NXT: RFC 9293, 3.10.7.4, second. lwIP ignores it, as RFC 1337 proposes. But it is how a peer whose SYN
//     looks old (it began anew and has another secret for its sequence numbers) answers the ACK that it gets, and its next SYN is to be
//     taken. (tcp_timewait_state_process(), where net.ipv4.tcp_rfc1337 is 0, as it is by default.)
//
// Repairs that are not about a segment that comes in lie where they act: the acknowledgement that Nagle would hold back
// (LwipStream::output()), a SYN's back-off (RFC 6298, 5.5) and keepalive in FIN-WAIT-2 (LwipStream::before_tick()), the initial window (RFC
// 6928, LwipStream::raise_window()), a FIN that would be split (LwipStream::finish_sending()), a delayed ACK that found no frame
// and a timeout during a fast retransmission (TcpTimers), initial sequence numbers (RFC 6528), TIME-WAIT (RFC 6191) and lists without end
// (tcp_hooks.cc, tcp_demux.h), two segments per ACK (DelayedAcks).
#pragma once

#include <cstdint>

#include "lwip/priv/tcp_priv.h"

namespace netstack {

class Tcp;

class TcpRepairs {
 public:
  explicit TcpRepairs(Tcp& tcp) noexcept : tcp_(tcp) {}

  // ERR_OK: lwIP shall process the segment. `header` is in host order.
  [[nodiscard]] err_t before_segment(tcp_pcb* pcb, const tcp_hdr& header, const pbuf& p) noexcept;
  // A segment that is not taken, as PAWS says (RFC 7323, 5.3, R1) or we do: an acknowledgement is the answer, if one is due.
  [[nodiscard]] err_t reject(tcp_pcb* pcb, const pbuf& p) noexcept;
  void after_segment() noexcept;
  // The PCB is about to be freed.
  void forget(const tcp_pcb* pcb) noexcept {
    if (pending_.pcb == pcb) pending_.pcb = nullptr;
  }
  void reset() noexcept { pending_ = {}; }

 private:
  // What after_segment() has to do, and what it must know of the time before.
  struct Pending {
    tcp_pcb* pcb;
    int dupacks;        // to put back, or -1
    bool recovering;    // the connection was in fast recovery
    uint32_t lastack;   // what was acknowledged before
    uint32_t window_less;  // by so much (modulo 2^32) the window was made smaller for this segment
  };

  void after_segment_of(tcp_pcb* pcb, const Pending& pending) noexcept;
  [[nodiscard]] err_t before_unusual(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept;
  [[nodiscard]] bool rate_limited(tcp_pcb& pcb) const noexcept;
  [[nodiscard]] bool acceptable(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept;
  [[nodiscard]] err_t before_synchronised(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept;
  // For the segment that lwIP looks at next; `pending_` is about it.
  void set_window(tcp_pcb* pcb, uint32_t bytes) noexcept {
    pending_.window_less += pcb->rcv_wnd - bytes;
    pcb->rcv_wnd = bytes;
  }
  void hold_to_budget(tcp_pcb* pcb, uint32_t sequence, uint32_t bytes) noexcept;
  void prepare_recovery(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept;

  Tcp& tcp_;
  Pending pending_{};
};

}  // namespace netstack
