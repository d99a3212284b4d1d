// The repairs, by their numbers in tcp_repairs.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_repairs.h"

#include "netstack/tcp/tcp.h"

namespace netstack {
namespace {

tcp_pcb_listen mutual_listener = {};  // stands where lwIP wants a listener for a simultaneous open

constexpr uint32_t kInvalidRatelimitMs = 500;

// 13. As SYN-RCVD it is on lwIP's path for a repeated SYN, which sends our own again, now with ACK. What is accepted in the end is the
//     stream that
// connected.
void open_simultaneously(tcp_pcb* pcb, const tcp_hdr& header) noexcept {
  if (pcb->unacked == nullptr) return;
  TCPH_SET_FLAG(pcb->unacked->tcphdr, TCP_ACK);
  pcb->state = SYN_RCVD;
  pcb->rcv_nxt = header.seqno + 1;
  pcb->rcv_ann_right_edge = pcb->rcv_nxt;
  pcb->snd_wl1 = header.seqno - 1;
  pcb->snd_wnd = pcb->snd_wnd_max = header.wnd;
  mutual_listener.accept = LwipStream::on_opened_mutually;
  pcb->listener = &mutual_listener;
}

bool has_space(const pbuf& p, unsigned flags) noexcept { return p.tot_len > 0 || (flags & (TCP_SYN | TCP_FIN)) != 0; }

// What comes in order where nothing is recovered or probed, as nearly all does: none of 2 to 7, 9 to 11 and 14 to 16 is about it.
bool is_ordinary(const tcp_pcb& pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  return header.seqno == pcb.rcv_nxt && (flags | TCP_PSH) == (TCP_ACK | TCP_PSH) && p.tot_len < pcb.rcv_wnd && pcb.state == ESTABLISHED &&
         header.ackno - pcb.lastack <= pcb.snd_nxt - pcb.lastack && pcb.persist_backoff == 0 && pcb.dupacks == 0 &&
         (pcb.flags & TF_INFR) == 0 && !TCP_SEQ_LT(header.seqno, pcb.snd_wl1);
}

}  // namespace

// 7.
bool TcpRepairs::rate_limited(tcp_pcb& pcb) const noexcept {
  const auto now = static_cast<uint32_t>(tcp_.now_ns() / 1'000'000) | 1;
  const uint32_t before = TcpDemux::rejected_ms(pcb);
  if (before != 0 && now - before < kInvalidRatelimitMs) return true;
  TcpDemux::note_rejected(pcb, now);
  return false;
}

err_t TcpRepairs::reject(tcp_pcb* pcb, const pbuf& p) noexcept {
  tcp_.timers.arm(pcb);
  if (p.tot_len > 0 && pcb->errf != nullptr) {
    auto& stream = *static_cast<LwipStream*>(pcb->callback_arg);
    tcp_ack_now(pcb);
    if (!static_cast<DirtyLink&>(stream).linked()) tcp_.output.add(stream);
  } else if (!rate_limited(*pcb)) {
    tcp_ack_now(pcb);
    (void)tcp_output(pcb);
  }
  return ERR_VAL;
}

// 14, 15 and 16, their first halves.
void TcpRepairs::prepare_recovery(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  const bool recovering = tcp_is_flag_set(pcb, TF_INFR);
  const bool counting = recovering || pcb->dupacks > 0;
  const uint32_t ahead = header.seqno - pcb->rcv_nxt;
  const bool beyond = p.tot_len == 0 && (flags & TCP_FIN) == 0 && ahead >= pcb->rcv_wnd && TCP_SEQ_GEQ(header.seqno, pcb->rcv_nxt);
  if (!counting && !beyond) [[likely]] return;
  const bool forgotten = p.tot_len > 0 && header.ackno == pcb->lastack && pcb->dupacks > 0;
  pending_ = {pcb, forgotten ? pcb->dupacks : -1, recovering, pcb->lastack, 0};
  if (beyond) set_window(pcb, ahead + 1);
  tcp_.core.input.finish_for(tcp_);
}

// 17. What lies behind a gap, and what comes where nothing is unread, so that no read() would open the window again, meets a window that is
// shut for this segment only.
void TcpRepairs::hold_to_budget(tcp_pcb* pcb, uint32_t sequence, uint32_t bytes) noexcept {
  auto& stream = *static_cast<LwipStream*>(pcb->callback_arg);
  const uint32_t gap = TCP_SEQ_GT(sequence, pcb->rcv_nxt) ? sequence - pcb->rcv_nxt : 0;
  const uint32_t room = stream.receive_room();
  if (gap + bytes <= room || pcb->rcv_wnd == 0) [[likely]] return;
  if (gap == 0 && stream.readable_bytes() > 0) return stream.shut_window();
  if (gap == 0 && room >= pcb->rcv_wnd) return;  // lwIP takes what the window has room for
  const uint32_t left = gap == 0 ? room : 0;
  if (pending_.pcb == nullptr) pending_ = {pcb, -1, tcp_is_flag_set(pcb, TF_INFR) != 0, pcb->lastack, 0};
  set_window(pcb, left);
  tcp_.core.input.finish_for(tcp_);
}

// 2 to 6, in the order of RFC 9293, 3.10.7.4. False: it is dropped, and answered if that is due.
bool TcpRepairs::acceptable(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  const uint32_t ahead = header.seqno - pcb->rcv_nxt, end = ahead + p.tot_len + ((flags & TCP_FIN) != 0 ? 1 : 0);
  if ((flags & TCP_RST) != 0) {  // 5
    if (ahead != 0 && ahead <= pcb->rcv_wnd) (void)reject(pcb, p);
    return ahead == 0;
  }
  if ((flags & TCP_SYN) != 0) return reject(pcb, p) == ERR_OK;  // 3
  if ((flags & TCP_ACK) == 0) return false;                     // 2
  const bool is_old = TCP_SEQ_LT(ahead, 0);
  if (end == ahead) {
    if (is_old && rate_limited(*pcb)) return false;  // lwIP answers it
  } else if (is_old ? TCP_SEQ_LT(end, 0) : ahead != 0 && TCP_SEQ_GT(end, pcb->rcv_wnd)) {
    return reject(pcb, p) == ERR_OK;  // 4
  }
  const bool probing = pcb->persist_backoff > 0 && pcb->unsent != nullptr;
  if (probing && header.ackno == pcb->snd_nxt + 1) pcb->snd_nxt++;  // 10
  if (TCP_SEQ_GT(header.ackno, pcb->snd_nxt)) return false;         // 6
  return TCP_SEQ_GEQ(header.ackno, pcb->lastack - pcb->snd_wnd_max) || reject(pcb, p) == ERR_OK;
}

err_t TcpRepairs::before_unusual(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  const bool leaves_gap = p.tot_len > 0 && TCP_SEQ_GT(header.seqno, pcb->rcv_nxt);
  if (leaves_gap) tcp_.acks.send(pcb);  // 9
  if (!acceptable(pcb, header, flags, p)) return ERR_VAL;
  if (leaves_gap && pcb->errf != nullptr) static_cast<LwipStream*>(pcb->callback_arg)->count_out_of_order(p.tot_len);
  const bool acks_new = TCP_SEQ_BETWEEN(header.ackno, pcb->lastack + 1, pcb->snd_nxt);
  if (TCP_SEQ_LT(header.seqno, pcb->snd_wl1) && acks_new) pcb->snd_wl1 = header.seqno;  // 11
  if ((flags & TCP_URG) != 0 && pcb->errf != nullptr) static_cast<LwipStream*>(pcb->callback_arg)->note_urgent(header);
  prepare_recovery(pcb, header, flags, p);
  return ERR_OK;
}

err_t TcpRepairs::before_synchronised(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  if (!is_ordinary(*pcb, header, flags, p)) {
    if (const err_t verdict = before_unusual(pcb, header, flags, p); verdict != ERR_OK) return verdict;
  }
  if (pcb->nrtx > 0 && TCP_SEQ_LEQ(header.ackno, pcb->lastack)) [[unlikely]] pcb->rttest = 0;  // 19
  if (header.ackno == pcb->lastack && header.wnd == 0 && header.seqno == pcb->snd_wl1) pcb->snd_wl2 = header.ackno - 1;  // 11
  if (pcb->errf == nullptr) return ERR_OK;
  if (header.ackno == pcb->lastack) static_cast<LwipStream*>(pcb->callback_arg)->window_may_open();  // 12
  if (p.tot_len > 0) hold_to_budget(pcb, header.seqno, p.tot_len);
  return ERR_OK;
}

err_t TcpRepairs::before_segment(tcp_pcb* pcb, const tcp_hdr& header, const pbuf& p) noexcept {
  after_segment();  // of the one before, if it came from this stack itself
  const unsigned flags = TCPH_FLAGS(&header);
  if ((flags & TCP_SYN) != 0 && (flags & (TCP_FIN | TCP_RST)) != 0) return ERR_VAL;  // 1
  if (pcb->state == TIME_WAIT) {
    if ((flags & TCP_RST) != 0 && header.seqno == pcb->rcv_nxt) {
      tcp_abandon(pcb, 0);  // 18
      return ERR_ABRT;
    }
    if ((flags & TCP_FIN) != 0) tcp_.demux().requeue_waiting(pcb);  // RFC 9293, 3.10.7.4: the 2 MSL begin anew
    return has_space(p, flags) && rate_limited(*pcb) ? ERR_VAL : ERR_OK;
  }
  tcp_.timers.arm(pcb);
  if (pcb->state >= ESTABLISHED) return before_synchronised(pcb, header, flags, p);
  if (pcb->state == SYN_SENT && (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN) open_simultaneously(pcb, header);
  if (pcb->state == SYN_RCVD && pcb->errf == nullptr && p.tot_len > 0 && tcp_.core.memory.payload_is_lent) {
    tcp_abandon(pcb, 0);
    return ERR_MEM;  // 8
  }
  return ERR_OK;
}

void TcpRepairs::after_segment() noexcept {
  if (pending_.pcb == nullptr) return;  // the segment has ended the connection
  tcp_pcb* const pcb = pending_.pcb;
  pending_.pcb = nullptr;
  after_segment_of(pcb, pending_);
}

// 14, 15 and 16, their second halves.
void TcpRepairs::after_segment_of(tcp_pcb* pcb, const Pending& pending) noexcept {
  if (pending.dupacks > 0 && pcb->dupacks == 0) pcb->dupacks = static_cast<u8_t>(pending.dupacks);
  pcb->rcv_wnd += pending.window_less;
  if (pcb->errf == nullptr) return;
  auto& stream = *static_cast<LwipStream*>(pcb->callback_arg);
  const bool recovering = tcp_is_flag_set(pcb, TF_INFR);
  if (recovering && !pending.recovering) {
    stream.recovery_point = pcb->snd_nxt;
  } else if (pending.recovering && !recovering && pcb->unacked != nullptr && TCP_SEQ_GT(pcb->lastack, pending.lastack) &&
             TCP_SEQ_LT(pcb->lastack, stream.recovery_point) && tcp_rexmit(pcb) == ERR_OK) {
    tcp_set_flags(pcb, TF_INFR);  // the next hole begins where the partial acknowledgement ends
    pcb->rtime = 0;
    pcb->nrtx = 0;
    (void)tcp_output(pcb);
  }
}

}  // namespace netstack
