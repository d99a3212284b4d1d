/* What lwIP's TCP asks of us in place of its own linear lists and weak defaults.
 *
 * lwIP includes this header last in tcp.c, tcp_in.c and tcp_out.c. TCP_REG and TCP_RMV become O(1) registrations
 * in the demultiplexer (tcp_demux.cc). In tcp_in.c alone the list heads become accessors: the loop over active connections then
 * starts at the one that the segment's addresses hash to (or at nothing), the loop over TIME-WAIT at
 * the same hit if it is in that state, and the loop over listeners at the one listener that was chosen.
 * tcp_ack, lwIP's "acknowledge every second segment at once", counts bytes, since a segment may be as long as 64 KB, and lets answers go first.
 * tcp_do_output_nagle, which says whether the next unsent segment may leave, becomes Linux's variant of Nagle's algorithm.
 * `tcphdr` is tcp_in.c's view of the segment, ports and sequence numbers already in host order.
 */
#ifndef ZPS_HOOKS_H
#define ZPS_HOOKS_H

#include "lwip/priv/tcp_priv.h"

#ifdef __cplusplus
extern "C" {
#endif
void zps_pcb_register(struct tcp_pcb* pcb);
void zps_pcb_unregister(struct tcp_pcb* pcb);
struct tcp_pcb** zps_demux_connection(const struct tcp_hdr* header);
struct tcp_pcb** zps_demux_time_wait(void);
union tcp_listen_pcbs_t* zps_demux_listener(const struct tcp_hdr* header);
u32_t zps_tcp_isn(const ip_addr_t* local_ip, u16_t local_port, const ip_addr_t* remote_ip, u16_t remote_port);
err_t zps_tcp_guard(struct tcp_pcb* pcb, struct tcp_hdr* header, u16_t option_bytes, struct pbuf* p);
void zps_tcp_ack(struct tcp_pcb* pcb);
int zps_tcp_nagle(struct tcp_pcb* pcb);
#ifdef __cplusplus
}
#endif

#undef TCP_REG
#undef TCP_RMV
#define TCP_REG(pcbs, npcb) zps_pcb_register(npcb)
#define TCP_RMV(pcbs, npcb) zps_pcb_unregister(npcb)
#undef tcp_ack
#define tcp_ack(pcb) zps_tcp_ack(pcb)
#undef tcp_do_output_nagle
#define tcp_do_output_nagle(pcb) zps_tcp_nagle(pcb)
#define LWIP_HOOK_TCP_ISN zps_tcp_isn
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, hdr, optlen, opt1len, opt2, p) zps_tcp_guard(pcb, hdr, opt1len, p)

#ifdef ZPS_REDIRECT_TCP_LISTS
#define tcp_active_pcbs (*zps_demux_connection(tcphdr))
#define tcp_tw_pcbs (*zps_demux_time_wait())
#define tcp_listen_pcbs (*zps_demux_listener(tcphdr))
#endif

#endif
