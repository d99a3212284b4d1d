// lwIP's hooks: registration, demultiplexing, initial sequence numbers, and the guard in front of tcp_process().
//
// The guard drops what lwIP 2.1.3 handles badly or Linux would not process, before lwIP's state machine sees it:
//  - impossible flag combinations, and segments without ACK on a synchronised connection (RFC 9293, 3.10.7.4);
//  - SYN on a synchronised connection: answered with a challenge ACK (RFC 5961, 4.2);
//  - out-of-order data beyond the window, which could replace queued segments past a bound; a bare ACK from there counts, as RFC 9293
//    asks for when the window is shut;
//  - the last ACK of a handshake while the accept queue is full (the peer's data will bring another).
// A retransmitted segment whose ACK is new brings its window with it, as on Linux: lwIP would take the ACK but keep the older, larger window, send past
// the peer's, and what it then says itself would lie outside and be dropped.
// Three repairs span the call into lwIP and are completed by the input loop (LwipStack::finish_input): lwIP forgets its duplicate ACKs
// on any data segment, so two-way traffic never retransmits fast; it leaves fast recovery at the first partial acknowledgement, so each further
// loss in a window costs a timeout (RFC 6582 retransmits at once); and it answers every pure ACK when its window is zero, so
// two stacks that both have one would answer each other for ever.
#include "netstack/tcp/tcp_hooks.h"

#include "netstack/lwip/lwip_stack.h"
#include "netstack/lwip/siphash.h"

// The hook header redefines the lists' macros for lwIP's files; here only its prototypes are wanted.
#include "zps_hooks.h"

namespace netstack {

LwipStack* the_stack = nullptr;

namespace {

tcp_pcb* connection_hit = nullptr;
tcp_pcb* time_wait_hit = nullptr;
tcp_listen_pcbs_t listener_hit = {};
tcp_pcb_listen mutual_listener = {};  // stands where lwIP wants a listener for a simultaneous open

void on_destroy(u8_t, void* data) noexcept {
  if (data != nullptr) the_stack->connection_destroyed(static_cast<tcp_pcb*>(data));
}

// A SYN made a PCB: bound their number, and follow this one until it is accepted or gone.
err_t on_passive_open(u8_t, tcp_pcb_listen* listening, tcp_pcb* pcb) noexcept {
  LwipListener& listener = *LwipListener::of(listening);
  listener.half_open_changed(1);
  pcb->ext_args[0] = {&kPcbCallbacks, pcb};
  pcb->rto = pcb->sv = 1000 / TCP_SLOW_INTERVAL;
  pcb->ttl = listening->ttl;
  pcb->tos = listening->tos;
  return ERR_OK;
}

// The SYN of a peer that is connecting to us while we connect to it (RFC 9293, 3.5). lwIP ignores it; as SYN-RCVD it is on lwIP's
// path for a repeated SYN, which sends our own again, now with ACK. What is accepted in the end is the stream that connected.
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

err_t guard_synchronised(LwipStack& stack, tcp_pcb* pcb, const tcp_hdr& header, unsigned flags, const pbuf& p) noexcept {
  if ((flags & TCP_SYN) != 0) return answer_with_ack(pcb);
  if ((flags & (TCP_ACK | TCP_RST)) == 0) return ERR_VAL;
  const uint32_t end = header.seqno + p.tot_len + ((flags & TCP_FIN) != 0 ? 1 : 0);
  if (p.tot_len > 0 && TCP_SEQ_GT(header.seqno, pcb->rcv_nxt)) stack.pay_ack(pcb);  // or the duplicate that this brings about would not be one
  if (end != header.seqno && TCP_SEQ_GT(header.seqno, pcb->rcv_nxt) && TCP_SEQ_GT(end, pcb->rcv_nxt + pcb->rcv_wnd)) return answer_with_ack(pcb);
  if (pcb->persist_backoff > 0 && pcb->unsent != nullptr && header.ackno == pcb->snd_nxt + 1) pcb->snd_nxt++;  // a probe, which run_tick() does not count, was taken
  if (TCP_SEQ_LT(header.seqno, pcb->snd_wl1) && TCP_SEQ_BETWEEN(header.ackno, pcb->lastack + 1, pcb->snd_nxt)) pcb->snd_wl1 = header.seqno;
  if (header.ackno == pcb->lastack && pcb->errf != nullptr) static_cast<LwipStream*>(pcb->callback_arg)->window_may_open();
  const bool recovering = tcp_is_flag_set(pcb, TF_INFR);
  if (recovering || pcb->dupacks > 0) stack.repair = {pcb, -1, false, recovering, pcb->lastack};
  if (pcb->state == LAST_ACK) pcb->tmr = tcp_ticks;  // the peer lives: do not give up on what it has still to acknowledge
  if (p.tot_len > 0) {
    if (header.ackno == pcb->lastack && pcb->dupacks > 0) stack.repair.dupacks = pcb->dupacks;
  } else if (pcb->rcv_wnd == 0 && header.seqno == pcb->rcv_nxt && (flags & TCP_FIN) == 0) {
    pcb->rcv_wnd = 1;
    stack.repair = {pcb, stack.repair.pcb == pcb ? stack.repair.dupacks : -1, true, recovering, pcb->lastack};
  }
  return ERR_OK;
}

}  // namespace

const tcp_ext_arg_callbacks kPcbCallbacks = {on_destroy, on_passive_open};

}  // namespace netstack

using netstack::the_stack;

extern "C" {

void zps_pcb_register(tcp_pcb* pcb) {
  if (pcb->state == CLOSED) return;  // merely bound
  if (pcb->state == TIME_WAIT) pcb->tmr = tcp_ticks;
  the_stack->demux().add(pcb);
  the_stack->ports().use(pcb->local_port);
  if (pcb->state != TIME_WAIT) the_stack->arm(pcb);
}

void zps_pcb_unregister(tcp_pcb* pcb) {
  if (the_stack->demux().remove(pcb)) the_stack->ports().unuse(pcb->local_port);
}

tcp_pcb** zps_demux_connection(const tcp_hdr* header) {
  using namespace netstack;
  connection_hit = time_wait_hit = nullptr;
  tcp_pcb* pcb = the_stack->demux().find(ip4_current_dest_addr()->addr, ip4_current_src_addr()->addr, header->dest, header->src);
  if (pcb == nullptr) return &connection_hit;
  if (pcb->state != TIME_WAIT) {
    connection_hit = pcb;
  } else if ((TCPH_FLAGS(header) & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN && TCP_SEQ_GT(header->seqno, pcb->rcv_nxt)) {
    tcp_abandon(pcb, 0);  // a new incarnation (RFC 9293, 3.6.1: beyond the last sequence number of the old one)
  } else {
    time_wait_hit = pcb;
  }
  return &connection_hit;
}

tcp_pcb** zps_demux_time_wait() { return &netstack::time_wait_hit; }

tcp_listen_pcbs_t* zps_demux_listener(const tcp_hdr* header) {
  using namespace netstack;
  const SocketAddress local{ip4_current_dest_addr()->addr, lwip_htons(header->dest)};
  const uint32_t spread = ip4_current_src_addr()->addr * 0x9e37'79b1u ^ header->src * 0x85eb'ca6bu;
  LwipListener* listener = the_stack->find_listener(local, spread ^ spread >> 15);
  listener_hit.listen_pcbs = listener != nullptr ? listener->pcb() : nullptr;
  return &listener_hit;
}

// RFC 6528: a clock of 4 us plus a keyed hash of the connection.
u32_t zps_tcp_isn(const ip_addr_t* local_ip, u16_t local_port, const ip_addr_t* remote_ip, u16_t remote_port) {
  const uint64_t words[2] = {uint64_t{local_ip->addr} << 32 | remote_ip->addr, uint64_t{local_port} << 16 | remote_port};
  const auto clock = static_cast<uint32_t>(the_stack->now_ns() / 4000);
  return clock + static_cast<uint32_t>(netstack::siphash(the_stack->setup().seed, words, 2));
}

// RFC 5681, 4.2: no more than two full segments stay unacknowledged. Where a frame costs little the acknowledgement leaves at once: a sender
// that is lwIP opens its window by two segments for each at most. (But not if something is unsent: LwipStream::output() sees to it.)
void zps_tcp_ack(tcp_pcb* pcb) {
  if (!tcp_is_flag_set(pcb, TF_ACK_DELAY) && the_stack->segment_bytes < 2 * the_stack->counted_segment(*pcb)) {
    tcp_set_flags(pcb, TF_ACK_DELAY);
  } else if (the_stack->tcp_checksum_offload() || pcb->unsent != nullptr) {
    the_stack->owe_ack(pcb);
  } else {
    tcp_clear_flags(pcb, TF_ACK_DELAY);
    tcp_ack_now(pcb);
  }
}

err_t zps_tcp_guard(tcp_pcb* pcb, tcp_hdr* header, pbuf* p) {
  using namespace netstack;
  LwipStack& stack = *the_stack;
  stack.segment_bytes = p->tot_len;
  const unsigned flags = TCPH_FLAGS(header);
  if ((flags & TCP_SYN) != 0 && (flags & (TCP_FIN | TCP_RST)) != 0) return ERR_VAL;
  if (pcb->state == LISTEN) {
    if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && !LwipListener::of(reinterpret_cast<tcp_pcb_listen*>(pcb))->takes_syn()) return ERR_MEM;
    return ERR_OK;
  }
  if (pcb->state == TIME_WAIT) {
    if ((flags & TCP_FIN) != 0) stack.demux().requeue_waiting(pcb);
    return ERR_OK;
  }
  stack.arm(pcb);
  if (pcb->state >= ESTABLISHED) return guard_synchronised(stack, pcb, *header, flags, *p);
  if (pcb->state == SYN_SENT && (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN) open_simultaneously(pcb, *header);
  if (pcb->state == SYN_RCVD && pcb->errf == nullptr && (flags & (TCP_ACK | TCP_RST)) == TCP_ACK) {
    const bool no_room = pcb->listener != nullptr && (LwipListener::of(pcb->listener)->full() || stack.streams_exhausted());
    return no_room ? ERR_MEM : ERR_OK;
  }
  return ERR_OK;
}

}  // extern "C"
