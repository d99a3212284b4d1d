/* How lwIP is built: one stack on one wire, driven by poll(), everything allocated from a bounded shared heap (base/heap.h).
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What deviates from lwIP's habits, and why:
 *  - Memory: mem_malloc and every pool come from base::Heap (MEM_LIBC_MALLOC with our functions, MEMP_MEM_MALLOC), so
 *    that all state lies in memory a fork family shares and no pool size needs guessing. An exhausted arena is a lost
 *    segment, which TCP mends.
 *  - Time: a tick of 40 ms gives Linux's figures: delayed ACKs of at most 40 ms, retransmission after 160-240 ms at
 *    least (3 slow ticks of 80 ms). lwIP's own timer loop is off: ticks are run only while a connection needs them
 *    (stack_timers.cc).
 *  - TIME-WAIT is kept in our own queue with its own duration. TCP_MSL is left with what lwIP also uses it for: after twice that
 *    time without a sign of the peer LAST-ACK is given up (orphans.h).
 *  - Demultiplexing: TCP_REG, TCP_RMV and the list heads that tcp_in.c reads are redirected by zps_hooks.h.
 *  - Backlog, ports and listeners are our own (lwIP's backlog is a byte, its port search is quadratic).
 *  - Neighbour queues copy what they hold (PBUF_NEEDS_COPY): a segment that waits for ARP must neither block a retransmission
 *    nor point to memory that an aborted connection gave back.
 *  - Checksums are switched per wire.
 */
#ifndef ZPS_LWIPOPTS_H
#define ZPS_LWIPOPTS_H

#define NO_SYS 1
#define TCP_MSL 50000UL
#define LWIP_TIMERS 0
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_NETIF_API 0

/* Memory. */
#ifdef __cplusplus
extern "C" {
#endif
void* zps_lwip_allocate(__SIZE_TYPE__ bytes);
void* zps_lwip_allocate_cleared(__SIZE_TYPE__ count, __SIZE_TYPE__ bytes);
void zps_lwip_release(void* piece);
#ifdef __cplusplus
}
#endif
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define mem_clib_malloc zps_lwip_allocate
#define mem_clib_calloc zps_lwip_allocate_cleared
#define mem_clib_free zps_lwip_release
#define MEM_ALIGNMENT 8
#define LWIP_PBUF_REF_T u16_t
#define LWIP_SUPPORT_CUSTOM_PBUF 1
#define PBUF_POOL_FREE_OOSEQ 0
#define PBUF_NEEDS_COPY(p) 1
#define LWIP_STATS 0
#define LWIP_ASSERT_CORE_LOCKED()

/* Protocols. */
#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_ARP 1
#define LWIP_ICMP 1
#define LWIP_UDP 1
#define LWIP_RAW 0
#define LWIP_TCP 1
#define LWIP_DNS 0
#define LWIP_DHCP 1 /* dhcp_client.h */
#define DHCP_CREATE_RAND_XID 1
#define LWIP_AUTOIP 0
#define LWIP_IGMP 1 /* groups.h has it, and MLD */
#define IP_FORWARD 0
#define IP_FRAG 1
#define IP_REASSEMBLY 1
#define IP_REASS_MAX_PBUFS 256
#define IP_REASS_FREE_OLDEST 1

/* IPv6: one interface with static addresses; which neighbour discovery messages are heeded is in neighbour_discovery.cc. */
#define LWIP_IPV6_SCOPES 0
#define LWIP_IPV6_NUM_ADDRESSES 4
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_IPV6_MLD 1
#define LWIP_IPV6_FRAG 1
#define LWIP_IPV6_REASS 1
#define IPV6_FRAG_COPYHEADER 1
#define IPV6_REASS_MAXAGE 15 /* as IPv4's */
#define LWIP_IPV6_DHCP6 0
#define LWIP_ND6_NUM_NEIGHBORS 127
#define LWIP_ND6_NUM_DESTINATIONS 127
#define LWIP_ND6_QUEUEING 1
#define LWIP_ND6_TCP_REACHABILITY_HINTS 0 /* a question in half a minute costs less than a look at each acknowledgement */
#define LWIP_ND6_ALLOW_RA_UPDATES 1 /* for the sake of netif->mtu6: what is advertised is not heeded */

/* The link. */
#define LWIP_ETHERNET 1
#define ETH_PAD_SIZE 0
#define ARP_TABLE_SIZE 127
#define ARP_QUEUEING 1
#define ARP_QUEUE_LEN 256
#define ETHARP_TABLE_MATCH_NETIF 0
#define LWIP_NETIF_HWADDRHINT 1
#define LWIP_SINGLE_NETIF 0
#define LWIP_NETIF_LOOPBACK 1
#define LWIP_HAVE_LOOPIF 0
#define LWIP_LOOPBACK_MAX_PBUFS 0
#define LWIP_NETIF_LOOPBACK_MULTITHREADING 0
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1

/* TCP. */
#define TCP_TMR_INTERVAL 40
#define TCP_MSS 16280
#define TCP_CALCULATE_EFF_SEND_MSS 1
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 6
#define TCP_WND (512 * 1024)
#define TCP_SND_BUF (4 * 1024 * 1024)
#define TCP_SND_QUEUELEN 0xff00
#define TCP_SNDLOWAT (2 * TCP_MSS)
#define TCP_SNDQUEUELOWAT 5
#define TCP_OVERSIZE 512
#define TCP_MAXRTX 12
#define TCP_SYNMAXRTX 7
#define TCP_LISTEN_BACKLOG 0
#define TCP_QUEUE_OOSEQ 1
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_TIMESTAMPS 1
#define LWIP_TCP_KEEPALIVE 1
#define TCP_KEEPINTVL_DEFAULT 75000UL
#define TCP_DEFAULT_LISTEN_BACKLOG 1
#define LWIP_TCP_PCB_NUM_EXT_ARGS 6
#define SO_REUSE 1
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1
#define LWIP_HOOK_FILENAME "zps_hooks.h"

#endif
