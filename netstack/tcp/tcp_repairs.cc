// The repairs, by their numbers in tcp_repairs.h.
#include "netstack/tcp/tcp_repairs.h"

#include "netstack/tcp/tcp.h"

namespace netstack {
namespace {

tcp_pcb_listen mutual_listener = {};  // stands where lwIP wants a listener for a simultaneous open

// 11. As SYN-RCVD it is on lwIP's path for a repeated SYN, which sends our own again, now with ACK. What is accepted in the end is the
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
  mutual_listener.accept = LwipStream::on_connected;
  pcb->listener = &mutual_listener;
}

// Sends an ACK of the current state in place of processing the segment.
err_t answer_with_ack(tcp_pcb* pcb) noexcept {
  tcp_ack_now(pcb);
  (void)tcp_output(pcb);
  return ERR_VAL;
}

// What comes in order where nothing is recovered or probed, as nearly all does: none of 2 to 8, 10 and 12 to 14 is about it.
bool is_ordinary(const tcp_pcb& pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  return header.seqno == pcb.rcv_nxt && (flags | TCP_PSH) == (TCP_ACK | TCP_PSH) && p.tot_len < pcb.rcv_wnd && pcb.state == ESTABLISHED &&
         pcb.persist_backoff == 0 && pcb.dupacks == 0 && (pcb.flags & TF_INFR) == 0 && !TCP_SEQ_LT(header.seqno, pcb.snd_wl1);
}

}  // namespace

// 12, 13 and 14, their first halves.
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

// 15. What lies behind a gap, and what comes where nothing is unread, so that no read() would open the window again, meets a window that is shut for
// this segment only.
void TcpRepairs::hold_to_budget(tcp_pcb* pcb, uint32_t sequence, uint32_t bytes) noexcept {
  auto& stream = *static_cast<LwipStream*>(pcb->callback_arg);
  const uint32_t gap = TCP_SEQ_GT(sequence, pcb->rcv_nxt) ? sequence - pcb->rcv_nxt : 0;
  const uint32_t room = stream.receive_room();
  if (gap + bytes <= room || pcb->rcv_wnd == 0) [[likely]] return;
  if (gap == 0 && stream.readable_bytes() > 0) return stream.shut_window();
  const uint32_t left = gap == 0 && room < pcb->rcv_wnd ? room : 0;
  if (pending_.pcb == nullptr) pending_ = {pcb, -1, tcp_is_flag_set(pcb, TF_INFR) != 0, pcb->lastack, 0};
  set_window(pcb, left);
  tcp_.core.input.finish_for(tcp_);
}

err_t TcpRepairs::before_unusual(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  if ((flags & TCP_SYN) != 0) return answer_with_ack(pcb);  // 3
  if ((flags & (TCP_ACK | TCP_RST)) == 0) return ERR_VAL;  // 2
  const uint32_t end = header.seqno + p.tot_len + ((flags & TCP_FIN) != 0 ? 1 : 0);
  const bool ahead = TCP_SEQ_GT(header.seqno, pcb->rcv_nxt);
  if (p.tot_len > 0 && ahead) tcp_.acks.send(pcb);  // 6
  const bool beyond = TCP_SEQ_GT(end, pcb->rcv_nxt + pcb->rcv_wnd);
  if (end != header.seqno && ahead && beyond) return answer_with_ack(pcb);  // 4
  const bool probing = pcb->persist_backoff > 0 && pcb->unsent != nullptr;
  if (probing && header.ackno == pcb->snd_nxt + 1) pcb->snd_nxt++;  // 7
  const bool acks_new = TCP_SEQ_BETWEEN(header.ackno, pcb->lastack + 1, pcb->snd_nxt);
  if (TCP_SEQ_LT(header.seqno, pcb->snd_wl1) && acks_new) pcb->snd_wl1 = header.seqno;  // 8
  if (pcb->state == LAST_ACK) pcb->tmr = tcp_ticks;  // 10
  prepare_recovery(pcb, header, flags, p);
  return ERR_OK;
}

err_t TcpRepairs::before_synchronised(tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  if (!is_ordinary(*pcb, header, flags, p)) {
    if (const err_t verdict = before_unusual(pcb, header, flags, p); verdict != ERR_OK) return verdict;
  }
  if (pcb->errf == nullptr) return ERR_OK;
  if (header.ackno == pcb->lastack) static_cast<LwipStream*>(pcb->callback_arg)->window_may_open();  // 9
  if (p.tot_len > 0) hold_to_budget(pcb, header.seqno, p.tot_len);
  return ERR_OK;
}

err_t TcpRepairs::answer_duplicate(tcp_pcb* pcb) noexcept {
  tcp_.timers.arm(pcb);
  return answer_with_ack(pcb);
}

err_t TcpRepairs::before_segment(tcp_pcb* pcb, const tcp_hdr& header, const pbuf& p) noexcept {
  after_segment();  // of the one before, if it came from this stack itself
  const unsigned flags = TCPH_FLAGS(&header);
  if ((flags & TCP_SYN) != 0 && (flags & (TCP_FIN | TCP_RST)) != 0) return ERR_VAL;  // 1
  if (pcb->state == TIME_WAIT) {
    if ((flags & TCP_FIN) != 0) tcp_.demux().requeue_waiting(pcb);  // RFC 9293, 3.10.7.4: the 2 MSL begin anew
    return ERR_OK;
  }
  tcp_.timers.arm(pcb);
  if (pcb->state >= ESTABLISHED) return before_synchronised(pcb, header, flags, p);
  if (pcb->state == SYN_SENT && (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN) open_simultaneously(pcb, header);
  if (pcb->state == SYN_RCVD && pcb->errf == nullptr && p.tot_len > 0 && tcp_.core.memory.payload_is_lent) {
    tcp_abandon(pcb, 0);
    return ERR_MEM;  // 5
  }
  return ERR_OK;
}

void TcpRepairs::after_segment() noexcept {
  if (pending_.pcb == nullptr) return;  // the segment has ended the connection
  tcp_pcb* const pcb = pending_.pcb;
  pending_.pcb = nullptr;
  after_segment_of(pcb, pending_);
}

// 12, 13 and 14, their second halves.
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
