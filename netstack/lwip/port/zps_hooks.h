/* What lwIP's TCP asks of us in place of its own linear lists and weak defaults.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * lwIP includes this header last in tcp.c, tcp_in.c and tcp_out.c (and where IP has hooks, where it changes nothing else). TCP_REG and
 * TCP_RMV become O(1) registrations in the demultiplexer (tcp_demux.cc). In tcp_in.c alone the list heads become accessors: the loop
 * over active connections then starts at the one that the segment's addresses hash to (or at nothing), the loop over TIME-WAIT at the
 * same hit if it is in that state, and the loop over listeners at the one listener that was chosen.
 * tcp_ack, lwIP's "acknowledge every second segment at once", counts bytes, since a segment may be as long as 64 KB, and lets answers go
 * first.
 * tcp_do_output_nagle, which says whether the next unsent segment may leave, becomes Linux's variant of Nagle's algorithm.
 * Timestamps (tcp_timestamps.h): sys_now(), of which tcp_out.c alone makes use, is the connection's own clock; the two segments that lwIP
 * sends without the option, keepalive and window probe, get it here. The same hook counts what leaves (tcp_stream_info.cc).
 * Urgent data (tcp_stream_urgent.cc): lwIP knows none. What leaves while a PCB is in urgent mode gets the pointer where options are added.
 * DHCP (dhcp_client.h): two options, and a finer unit of time.
 * `tcphdr` is tcp_in.c's view of the segment, ports and sequence numbers already in host order.
 */
#ifndef ZPS_HOOKS_H
#define ZPS_HOOKS_H

#include "lwip/dhcp.h"
#include "lwip/prot/dhcp.h"
#include "lwip/priv/tcp_priv.h"

#ifdef __cplusplus
extern "C" {
#endif
void zps_pcb_register(struct tcp_pcb* pcb);
void zps_pcb_unregister(struct tcp_pcb* pcb);
struct tcp_pcb** zps_demux_connection(const struct tcp_hdr* header, u16_t option_bytes, u16_t length);
struct tcp_pcb** zps_demux_time_wait(void);
union tcp_listen_pcbs_t* zps_demux_listener(const struct tcp_hdr* header);
u32_t zps_tcp_isn(const ip_addr_t* local_ip, u16_t local_port, const ip_addr_t* remote_ip, u16_t remote_port);
err_t zps_tcp_guard(struct tcp_pcb* pcb, struct tcp_hdr* header, u16_t* option_bytes, u16_t contiguous_bytes, struct pbuf* p);
u32_t zps_tcp_timestamp(const struct tcp_pcb* pcb);
u32_t* zps_tcp_add_timestamp(struct pbuf* p, const struct tcp_pcb* pcb, u32_t* options);
void zps_tcp_count_out(const struct tcp_pcb* pcb, const struct pbuf* p, const struct tcp_hdr* header);
void zps_tcp_add_urgent_pointer(const struct tcp_pcb* pcb, struct tcp_hdr* header);
void zps_tcp_ack(struct tcp_pcb* pcb);
int zps_tcp_nagle(struct tcp_pcb* pcb);
void zps_dhcp_append_options(struct dhcp_msg* message, u8_t type, u16_t* length);
void zps_dhcp_take_option(u8_t option, u8_t bytes, const struct pbuf* p, u16_t offset);
const ip6_addr_t* zps_nd6_gateway(struct netif* netif, const ip6_addr_t* to);
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
#undef TCP_FIN_WAIT_TIMEOUT
#define TCP_FIN_WAIT_TIMEOUT 130000 /* orphans.h has the say: as TCP_LINGER2, two minutes at most */
#define LWIP_HOOK_TCP_ISN zps_tcp_isn
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, hdr, optlen, opt1len, opt2, p) zps_tcp_guard(pcb, hdr, &(optlen), opt1len, p)
#define LWIP_HOOK_DHCP_APPEND_OPTIONS(netif, dhcp, state, msg, type, length) zps_dhcp_append_options(msg, type, length)
#define LWIP_HOOK_DHCP_PARSE_OPTION(netif, dhcp, state, msg, type, option, bytes, p, offset) \
  ((void)(msg), zps_dhcp_take_option(option, bytes, p, offset))
#define ZPS_DHCP_TICK_S 10 /* dhcp_client.h */
#undef DHCP_COARSE_TIMER_SECS
#define DHCP_COARSE_TIMER_SECS ZPS_DHCP_TICK_S
#define LWIP_HOOK_ND6_GET_GW(netif, to) zps_nd6_gateway(netif, to)
#define sys_now() zps_tcp_timestamp(pcb)
#define LWIP_HOOK_TCP_OUT_TCPOPT_LENGTH(pcb, bytes) zps_tcp_option_bytes(pcb, (u8_t)(bytes))
#define ZPS_TF_URGENT 0x2000U /* a flag that lwIP leaves free: something unacknowledged is urgent */
#define ZPS_TF_MIN_TTL 0x4000U /* another: what comes from too far is dropped (IP_MINTTL) */
#define ZPS_TF_MAY_BE_CUT 0x8000U /* and another: routers may fragment its segments (IP_MTU_DISCOVER) */
#define LWIP_HOOK_TCP_OUT_ADD_TCPOPTS(p, hdr, pcb, opts) \
  (zps_tcp_leaves(pcb, p, hdr), \
   (opts) == (u32_t*)(void*)((hdr) + 1) && zps_tcp_option_bytes(pcb, 0) != 0 ? zps_tcp_add_timestamp(p, pcb, opts) : (opts))

/* `bytes` of options are in a segment already. (A listener has no flags.) */
static inline u8_t zps_tcp_option_bytes(const struct tcp_pcb* pcb, u8_t bytes) {
  return bytes == 0 && pcb != NULL && pcb->state != LISTEN && (pcb->flags & TF_TIMESTAMP) != 0 ? LWIP_TCP_OPT_LEN_TS_OUT : bytes;
}

/* Each segment of a connection comes by here on its way out. */
static inline void zps_tcp_leaves(const struct tcp_pcb* pcb, const struct pbuf* p, struct tcp_hdr* header) {
  if (pcb == NULL || pcb->state == LISTEN) return;
  zps_tcp_count_out(pcb, p, header);
  if ((pcb->flags & ZPS_TF_URGENT) != 0) zps_tcp_add_urgent_pointer(pcb, header);
}

#ifdef ZPS_REDIRECT_TCP_LISTS
#define tcp_active_pcbs (*zps_demux_connection(tcphdr, tcphdr_opt1len, tcplen))
#define tcp_tw_pcbs (*zps_demux_time_wait())
#define tcp_listen_pcbs (*zps_demux_listener(tcphdr))
#endif

#endif
