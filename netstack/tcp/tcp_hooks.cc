// lwIP's hooks (zps_hooks.h says where lwIP calls them): registration, demultiplexing, initial sequence numbers, and the way to the
// repairs.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP 2.1.3 is built unchanged. It finds a PCB by walking lists; here the list heads that it starts from are accessors, which yield at
// most the one PCB that the segment is for (tcp_demux.h). What is for a listener, or for nobody, never gets to lwIP
// (handshakes.h). What is wrong in its state machine is in tcp_repairs.h.
#include "netstack/tcp/tcp_hooks.h"

#include "netstack/lwip/siphash.h"
#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_timestamps.h"
#include "netstack/tcp/tuples.h"

// The hook header redefines the lists' macros for lwIP's files; here only its prototypes are wanted.
#include "zps_hooks.h"

namespace netstack {
namespace {

tcp_pcb* connection_hit = nullptr;
tcp_pcb* time_wait_hit = nullptr;
tcp_listen_pcbs_t listener_hit = {};
tcp_pcb_listen nobody = {};  // stands where there is no listener

void on_destroy(u8_t, void* data) noexcept {
  if (data != nullptr) the_tcp->connection_destroyed(static_cast<tcp_pcb*>(data));
}

// A SYN for a connection in TIME-WAIT: beyond the last sequence number of the old one (RFC 9293, 3.6.1), or later by its timestamp (RFC
// 6191).
bool is_new_incarnation(const tcp_pcb& pcb, const tcp_hdr& header, uint32_t option_bytes) noexcept {
  if ((TCPH_FLAGS(&header) & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN) return false;
  Timestamps stamps{pcb.ts_recent, 0};
  if (tcp_is_flag_set(&pcb, TF_TIMESTAMP)) (void)find_timestamps(header, option_bytes, &stamps);
  const auto later = static_cast<int32_t>(stamps.value - pcb.ts_recent);
  return later > 0 || (later == 0 && TCP_SEQ_GT(header.seqno, pcb.rcv_nxt));
}

// RFC 5082: who is farther away than the program allows cannot have sent a segment with so high a TTL (Linux: tcp_v4_rcv(), before anything
// else; TIME-WAIT has no such bound).
bool is_from_too_far(const tcp_pcb& pcb) noexcept { return pcb.state != TIME_WAIT && current_ttl() < TcpDemux::min_ttl(pcb); }

}  // namespace

const tcp_ext_arg_callbacks kPcbCallbacks = {on_destroy, nullptr};

}  // namespace netstack

using netstack::the_tcp;

extern "C" {

void zps_pcb_register(tcp_pcb* pcb) {
  if (pcb->state == CLOSED) return;  // merely bound
  if (pcb->state == TIME_WAIT) pcb->tmr = tcp_ticks;
  if (pcb->state == SYN_SENT || pcb->state == SYN_RCVD) {
    netstack::TcpTimestamps::start(*pcb, the_tcp->core.setup().seed, !the_tcp->facts().memory);
  }
  the_tcp->demux().add(pcb);
  the_tcp->ports().use(pcb->local_port, netstack::TcpDemux::port_use(pcb));
  if (pcb->state != TIME_WAIT) the_tcp->timers.arm(pcb);
}

void zps_pcb_unregister(tcp_pcb* pcb) {
  if (the_tcp->demux().remove(pcb)) the_tcp->ports().unuse(pcb->local_port, netstack::TcpDemux::port_use(pcb));
}

tcp_pcb** zps_demux_connection(const tcp_hdr* header, u16_t option_bytes, u16_t length) {
  using namespace netstack;
  connection_hit = time_wait_hit = nullptr;
  const TcpDemux& demux = the_tcp->demux();
  tcp_pcb* const pcb = ip_current_is_v6()
                           ? demux.find(tuple_of(*header))
                           : demux.find(ip4_current_dest_addr()->addr, ip4_current_src_addr()->addr, header->dest, header->src);
  if (pcb == nullptr) {
    connection_hit = the_tcp->handshakes.complete(*header, option_bytes, length);
    return &connection_hit;
  }
  if (pcb->state != TIME_WAIT) {
    connection_hit = pcb;
  } else if (is_new_incarnation(*pcb, *header, option_bytes)) {
    tcp_abandon(pcb, 0);
  } else {
    time_wait_hit = pcb;
  }
  return &connection_hit;
}

tcp_pcb** zps_demux_time_wait() { return &netstack::time_wait_hit; }

tcp_listen_pcbs_t* zps_demux_listener(const tcp_hdr* header) {
  using namespace netstack;
  LwipListener* listener = the_tcp->listeners.find(tuple_of(*header));
  nobody.state = LISTEN;
  IP_SET_TYPE_VAL(nobody.local_ip, IPADDR_TYPE_ANY);
  nobody.local_port = header->dest;
  listener_hit.listen_pcbs = listener != nullptr ? listener->pcb() : &nobody;
  return &listener_hit;
}

// RFC 6528: a clock plus a keyed hash of the connection. The clock is that of Linux's seq_scale(), 64 ns instead of 4 us: a connection for
// one request is over in less time than 4 us for each of its bytes, and the same four numbers would come back with a number from before its
// end.
u32_t zps_tcp_isn(const ip_addr_t* local_ip, u16_t local_port, const ip_addr_t* remote_ip, u16_t remote_port) {
  uint64_t words[5];
  const int count = netstack::put_addresses(*local_ip, *remote_ip, words);
  words[count] = uint64_t{local_port} << 16 | remote_port;
  const auto clock = static_cast<uint32_t>(the_tcp->now_ns() >> 6);
  return clock + static_cast<uint32_t>(netstack::siphash(the_tcp->core.setup().seed, words, count + 1));
}

void zps_tcp_ack(tcp_pcb* pcb) { the_tcp->acks.acknowledge(pcb); }

int zps_tcp_nagle(tcp_pcb* pcb) {
  return pcb->errf == nullptr || static_cast<netstack::LwipStream*>(pcb->callback_arg)->nagle_permits() ? 1 : 0;
}

u32_t zps_tcp_timestamp(const tcp_pcb* pcb) { return netstack::TcpTimestamps::now(*pcb, the_tcp->core.clock); }

void zps_tcp_count_out(const tcp_pcb* pcb, const pbuf* p, const tcp_hdr* header) {
  if (pcb->errf == nullptr) return;
  const uint32_t bytes = p->tot_len - TCPH_HDRLEN_BYTES(header);
  const bool is_syn = (TCPH_FLAGS(header) & TCP_SYN) != 0;  // which lwIP numbers one less than snd_nxt
  const bool counts = bytes > 0 || (TCPH_FLAGS(header) & TCP_FIN) != 0;
  const bool again = is_syn ? pcb->nrtx > 0 : counts && TCP_SEQ_LT(lwip_ntohl(header->seqno), pcb->snd_nxt);
  static_cast<netstack::LwipStream*>(pcb->callback_arg)->count_out(*pcb, bytes, again);
}

// The byte of a window probe is there already, where the option goes.
u32_t* zps_tcp_add_timestamp(pbuf* p, const tcp_pcb* pcb, u32_t* options) {
  auto* const payload = reinterpret_cast<uint8_t*>(options) + LWIP_TCP_OPT_LEN_TS_OUT;
  if (p->tot_len > TCP_HLEN + LWIP_TCP_OPT_LEN_TS_OUT) *payload = *reinterpret_cast<uint8_t*>(options);
  options[0] = PP_HTONL(0x0101080a);
  options[1] = lwip_htonl(zps_tcp_timestamp(pcb));
  options[2] = lwip_htonl(pcb->ts_recent);
  return options + 3;
}

// As __tcp_transmit_skb(): what ends beyond the pointer's reach says that urgent data follows, if it is the last that was sent.
void zps_tcp_add_urgent_pointer(const tcp_pcb* pcb, tcp_hdr* header) {
  TCPH_UNSET_FLAG(header, TCP_URG);
  header->urgp = 0;
  if (pcb->errf == nullptr) return;
  const uint32_t sequence = lwip_ntohl(header->seqno);
  const uint32_t ahead = static_cast<const netstack::LwipStream*>(pcb->callback_arg)->urgent_end() - sequence;
  if (!TCP_SEQ_GT(ahead, 0) || (ahead > 0xffff && !TCP_SEQ_GT(sequence + 0xffff, pcb->snd_nxt))) return;
  TCPH_SET_FLAG(header, TCP_URG);
  header->urgp = lwip_htons(static_cast<u16_t>(ahead > 0xffff ? 0xffff : ahead));
}

err_t zps_tcp_guard(tcp_pcb* pcb, tcp_hdr* header, u16_t* option_bytes, u16_t contiguous_bytes, pbuf* p) {
  using namespace netstack;
  if (pcb->state == LISTEN) {
    const OptionBytes options{reinterpret_cast<const uint8_t*>(header + 1), contiguous_bytes};
    the_tcp->handshakes.input(LwipListener::of(reinterpret_cast<tcp_pcb_listen*>(pcb)), *header, options, p->tot_len);
    return ERR_VAL;
  }
  if ((pcb->flags & ZPS_TF_MIN_TTL) != 0 && is_from_too_far(*pcb)) [[unlikely]] return ERR_VAL;
  Timestamps stamps;
  the_tcp->acks.begin_segment(p->tot_len);
  if (pcb->errf != nullptr) static_cast<LwipStream*>(pcb->callback_arg)->count_in(*pcb, p->tot_len);
  if (pcb->state != TIME_WAIT && tcp_is_flag_set(pcb, TF_TIMESTAMP) && (TCPH_FLAGS(header) & TCP_SYN) == 0 &&
      find_timestamps(*header, contiguous_bytes, &stamps)) {
    if (!TcpTimestamps::accept(*pcb, *header, p->tot_len, stamps, the_tcp->core.clock)) return the_tcp->repairs.reject(pcb, *p);
    if (*option_bytes == LWIP_TCP_OPT_LEN_TS_OUT) *option_bytes = 0;  // lwIP need not read it again
  }
  return the_tcp->repairs.before_segment(pcb, *header, *p);
}

}  // extern "C"
