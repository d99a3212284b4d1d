// From an ICMP or ICMPv6 message to the connection that it is about.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_reports.h"

#include <linux/in6.h>

#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/prot/icmp.h"
#include "lwip/prot/icmp6.h"
#include "lwip/prot/ip4.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/tcp/tcp.h"

namespace netstack {
namespace {

constexpr size_t kIcmpHeader = 8, kQuotedPorts = 8;  // behind the quoted IPv6 header: ports and sequence number
constexpr uint8_t kFragmentationNeeded = 4;
constexpr size_t kMtu4At = 6, kMtuAt = 4, kSourceIn = 8, kDestinationIn = 24, kNextHeaderIn = 6;

// The connection whose this segment is, if it can be on its way; of which ports and sequence number are quoted.
LwipStream* sender_of(Tcp& tcp, const IpAddress& from, const IpAddress& to, const uint8_t* segment) noexcept {
  const FourTuple tuple{from, to, lwip_ntohs(field<uint16_t>(segment)), lwip_ntohs(field<uint16_t>(segment + 2))};
  tcp_pcb* const pcb = tcp.demux().find(tuple);
  const uint32_t sequence = lwip_ntohl(field<uint32_t>(segment + 4));
  const bool is_out = pcb != nullptr && pcb->state != TIME_WAIT && TCP_SEQ_BETWEEN(sequence, pcb->lastack, pcb->snd_nxt);
  return is_out && pcb->errf != nullptr ? static_cast<LwipStream*>(pcb->callback_arg) : nullptr;
}

}  // namespace

bool report_segment_v4(Tcp& tcp, pbuf* p, const netif& interface) noexcept {
  if (p->len < kIcmpHeader + IP_HLEN + kQuotedPorts) return false;
  const auto* const icmp = static_cast<const uint8_t*>(p->payload);
  const auto* const packet = reinterpret_cast<const ip_hdr*>(icmp + kIcmpHeader);
  const size_t header_bytes = IPH_HL_BYTES(packet);
  if (icmp[0] != ICMP_DUR || icmp[1] != kFragmentationNeeded || IPH_V(packet) != 4 || IPH_PROTO(packet) != IP_PROTO_TCP) return false;
  if (header_bytes < IP_HLEN || p->len < kIcmpHeader + header_bytes + kQuotedPorts) return false;
  if ((IPH_OFFSET(packet) & PP_HTONS(IP_OFFMASK)) != 0) return false;
  if ((interface.chksum_flags & NETIF_CHECKSUM_CHECK_ICMP) != 0 && inet_chksum_pbuf(p) != 0) return false;
  const auto from = IpAddress::v4(packet->src.addr), to = IpAddress::v4(packet->dest.addr);
  if (LwipStream* const stream = sender_of(tcp, from, to, icmp + kIcmpHeader + header_bytes))
    stream->path_takes(lwip_ntohs(field<uint16_t>(icmp + kMtu4At)));
  pbuf_free(p);
  return true;
}

bool report_segment_v6(Tcp& tcp, pbuf* p, const netif& interface) noexcept {
  if (p->len < kIcmpHeader + kIp6Header + kQuotedPorts) return false;
  const auto* const icmp = static_cast<const uint8_t*>(p->payload);
  const uint8_t* const packet = icmp + kIcmpHeader;
  if (icmp[0] != ICMP6_TYPE_PTB || packet[0] >> 4 != 6 || packet[kNextHeaderIn] != IP6_NEXTH_TCP) return false;
  const bool checks = (interface.chksum_flags & NETIF_CHECKSUM_CHECK_ICMP6) != 0;
  if (checks && ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->tot_len, ip6_current_src_addr(), ip6_current_dest_addr()) != 0) return false;
  const auto from = field<IpAddress>(packet + kSourceIn), to = field<IpAddress>(packet + kDestinationIn);
  if (LwipStream* const stream = sender_of(tcp, from, to, packet + kIp6Header))
    stream->path_takes(lwip_ntohl(field<uint32_t>(icmp + kMtuAt)));
  pbuf_free(p);
  return true;
}

// Linux: ip_sk_accept_pmtu(), tcp_v4_mtu_reduced(); ip6_sk_accept_pmtu(), tcp_v6_mtu_reduced().
void LwipStream::path_takes(uint32_t mtu) noexcept {
  const bool v4 = peer_.address.is_v4();
  const uint8_t discovery = v4 ? options_.path_mtu_discovery : options_.path_mtu_discovery6;
  const bool heeds = discovery != IPV6_PMTUDISC_INTERFACE && discovery != IPV6_PMTUDISC_OMIT;
  if (!heeds || (!v4 && mtu < kLeastMtu6)) return;
  (void)tcp_.core.path_mtus.learn(peer_.address, mtu, tcp_.wires_mtu(), tcp_.now_ns());
  if (v4 && discovery == IPV6_PMTUDISC_DONT) return;  // routers may cut its segments
  const uint32_t most = tcp_.path_mtu(peer_.address) - (v4 ? IP_HLEN : kIp6Header) - TCP_HLEN;
  if (most < pcb_->mss) pcb_->mss = static_cast<u16_t>(most);
  if (!holds_longer_than(tcp_mss(pcb_)) || tcp_rexmit_rto_prepare(pcb_) != ERR_OK) return;
  split_unsent(tcp_mss(pcb_));
  mark_dirty();
}

}  // namespace netstack
