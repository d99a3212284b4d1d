// lwIP's hooks (zps_hooks.h says where lwIP calls them): registration, demultiplexing, initial sequence numbers, and the way to the
// repairs.
//
// lwIP 2.1.3 is built unchanged. It finds a PCB by walking lists; here the list heads that it starts from are accessors, which yield at
// most the one PCB that the segment is for (tcp_demux.h). What is for a listener, or for nobody, never gets to lwIP
// (handshakes.h). What is wrong in its state machine is in tcp_repairs.h.
#include "netstack/tcp/tcp_hooks.h"

#include "netstack/lwip/siphash.h"
#include "netstack/tcp/tcp.h"

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

}  // namespace

const tcp_ext_arg_callbacks kPcbCallbacks = {on_destroy, nullptr};

}  // namespace netstack

using netstack::the_tcp;

extern "C" {

void zps_pcb_register(tcp_pcb* pcb) {
  if (pcb->state == CLOSED) return;  // merely bound
  if (pcb->state == TIME_WAIT) pcb->tmr = tcp_ticks;
  the_tcp->demux().add(pcb);
  the_tcp->ports().use(pcb->local_port);
  if (pcb->state != TIME_WAIT) the_tcp->timers.arm(pcb);
}

void zps_pcb_unregister(tcp_pcb* pcb) {
  if (the_tcp->demux().remove(pcb)) the_tcp->ports().unuse(pcb->local_port);
}

tcp_pcb** zps_demux_connection(const tcp_hdr* header) {
  using namespace netstack;
  connection_hit = time_wait_hit = nullptr;
  tcp_pcb* pcb = the_tcp->demux().find(ip4_current_dest_addr()->addr, ip4_current_src_addr()->addr, header->dest, header->src);
  if (pcb == nullptr) {
    connection_hit = the_tcp->handshakes.complete(*header);
    return &connection_hit;
  }
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
  const FourTuple tuple{ip4_current_dest_addr()->addr, ip4_current_src_addr()->addr, header->dest, header->src};
  LwipListener* listener = the_tcp->listeners.find(tuple);
  nobody.state = LISTEN;
  nobody.local_port = header->dest;
  listener_hit.listen_pcbs = listener != nullptr ? listener->pcb() : &nobody;
  return &listener_hit;
}

// RFC 6528: a clock of 4 us plus a keyed hash of the connection.
u32_t zps_tcp_isn(const ip_addr_t* local_ip, u16_t local_port, const ip_addr_t* remote_ip, u16_t remote_port) {
  const uint64_t words[2] = {uint64_t{local_ip->addr} << 32 | remote_ip->addr, uint64_t{local_port} << 16 | remote_port};
  const auto clock = static_cast<uint32_t>(the_tcp->now_ns() / 4000);
  return clock + static_cast<uint32_t>(netstack::siphash(the_tcp->core.setup().seed, words, 2));
}

void zps_tcp_ack(tcp_pcb* pcb) { the_tcp->acks.acknowledge(pcb); }

int zps_tcp_nagle(tcp_pcb* pcb) {
  return pcb->errf == nullptr || static_cast<netstack::LwipStream*>(pcb->callback_arg)->nagle_permits() ? 1 : 0;
}

err_t zps_tcp_guard(tcp_pcb* pcb, tcp_hdr* header, u16_t option_bytes, pbuf* p) {
  if (pcb->state == LISTEN) {
    const netstack::OptionBytes options{reinterpret_cast<const uint8_t*>(header + 1), option_bytes};
    the_tcp->handshakes.input(netstack::LwipListener::of(reinterpret_cast<tcp_pcb_listen*>(pcb)), *header, options, p->tot_len);
    return ERR_VAL;
  }
  the_tcp->acks.begin_segment(p->tot_len);
  return the_tcp->repairs.before_segment(pcb, *header, *p);
}

}  // extern "C"
