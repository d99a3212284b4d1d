// From an ICMPv6 message to the connection that it is about.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_reports.h"

#include <linux/in6.h>

#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/prot/icmp6.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/tcp/tcp.h"

namespace netstack {
namespace {

constexpr size_t kIcmpHeader = 8, kQuotedPorts = 8;  // behind the quoted IPv6 header: ports and sequence number
constexpr size_t kMtuAt = 4, kSourceIn = 8, kDestinationIn = 24, kNextHeaderIn = 6;

}  // namespace

bool report_segment_v6(Tcp& tcp, pbuf* p, const netif& interface) noexcept {
  if (p->len < kIcmpHeader + kIp6Header + kQuotedPorts) return false;
  const auto* const icmp = static_cast<const uint8_t*>(p->payload);
  const uint8_t* const packet = icmp + kIcmpHeader;
  if (icmp[0] != ICMP6_TYPE_PTB || packet[0] >> 4 != 6 || packet[kNextHeaderIn] != IP6_NEXTH_TCP) return false;
  const bool checks = (interface.chksum_flags & NETIF_CHECKSUM_CHECK_ICMP6) != 0;
  if (checks && ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->tot_len, ip6_current_src_addr(), ip6_current_dest_addr()) != 0) return false;
  const auto* const segment = packet + kIp6Header;
  const FourTuple tuple{field<IpAddress>(packet + kSourceIn), field<IpAddress>(packet + kDestinationIn),
                        lwip_ntohs(field<uint16_t>(segment)), lwip_ntohs(field<uint16_t>(segment + 2))};
  tcp_pcb* const pcb = tcp.demux().find(tuple);
  const uint32_t sequence = lwip_ntohl(field<uint32_t>(segment + 4));
  if (pcb != nullptr && pcb->state != TIME_WAIT && TCP_SEQ_BETWEEN(sequence, pcb->lastack, pcb->snd_nxt) && pcb->errf != nullptr)
    static_cast<LwipStream*>(pcb->callback_arg)->path_takes(lwip_ntohl(field<uint32_t>(icmp + kMtuAt)));
  pbuf_free(p);
  return true;
}

// Linux: ip6_sk_accept_pmtu(), tcp_v6_mtu_reduced().
void LwipStream::path_takes(uint32_t mtu) noexcept {
  const bool heeds = options_.path_mtu_discovery6 != IPV6_PMTUDISC_INTERFACE && options_.path_mtu_discovery6 != IPV6_PMTUDISC_OMIT;
  if (!heeds || mtu < kLeastMtu6) return;
  (void)tcp_.core.path_mtus.learn(peer_.address, mtu, tcp_.wires_mtu(), tcp_.now_ns());
  const uint32_t most = tcp_.path_mtu(peer_.address) - kIp6Header - TCP_HLEN;
  if (most < pcb_->mss) pcb_->mss = static_cast<u16_t>(most);
  if (!holds_longer_than(tcp_mss(pcb_)) || tcp_rexmit_rto_prepare(pcb_) != ERR_OK) return;
  split_unsent(tcp_mss(pcb_));
  mark_dirty();
}

}  // namespace netstack
