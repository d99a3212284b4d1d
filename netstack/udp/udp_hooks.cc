// What lwIP calls in place of its own UDP, and what becomes of ICMP's reports about datagrams.
// SPDX-License-Identifier: BSD-3-Clause
//
// A report is believed if it is about a datagram that an endpoint of ours can have sent: its own address and port, and for a connected one
// the peer's (RFC 5927, 4.1 knows no more for UDP). What a router says of a path that takes less is heeded on the same terms.
#include <cerrno>

#include "lwip/icmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/prot/icmp.h"
#include "lwip/prot/icmp6.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/udp.h"
#include "lwip/udp.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/udp/udp.h"
#include "netstack/udp/udp_addresses.h"

namespace netstack {
namespace {

constexpr size_t kIcmpHeader = 8;
constexpr size_t kIp6HeaderBytes = 40;
constexpr uint8_t kParameterProblem = 12;
constexpr uint8_t kFragmentationNeeded = 4;

// icmp_err_convert[] of Linux: what "destination unreachable" means, code by code.
constexpr struct {
  int error;
  bool fatal;
} kUnreachable[] = {
    {ENETUNREACH, false}, {EHOSTUNREACH, false}, {ENOPROTOOPT, true},  {ECONNREFUSED, true}, {EMSGSIZE, true},      {EOPNOTSUPP, false},
    {ENETUNREACH, true},  {EHOSTDOWN, true},     {ENONET, true},       {ENETUNREACH, true},  {EHOSTUNREACH, true},  {ENETUNREACH, false},
    {EHOSTUNREACH, false}, {EHOSTUNREACH, true}, {EHOSTUNREACH, true}, {EHOSTUNREACH, true},
};

// What a message of this type and code means. False: nothing.
bool judge(uint8_t type, uint8_t code, LwipUdpEndpoint::IcmpReport* report) noexcept {
  report->type = type;
  report->code = code;
  switch (type) {
    case ICMP_DUR:
      if (code >= sizeof kUnreachable / sizeof kUnreachable[0]) return false;
      report->error = kUnreachable[code].error;
      report->fatal = kUnreachable[code].fatal;
      return true;
    case ICMP_TE: report->error = EHOSTUNREACH, report->fatal = false; return true;
    case kParameterProblem: report->error = EPROTO, report->fatal = true; return true;
    default: return false;
  }
}

// The same for IPv6: tab_unreach[], icmpv6_err_convert().
bool judge_v6(uint8_t type, uint8_t code, LwipUdpEndpoint::IcmpReport* report) noexcept {
  static constexpr struct {
    int error;
    bool fatal;
  } kUnreachable6[] = {{ENETUNREACH, false}, {EACCES, true}, {EHOSTUNREACH, false}, {EHOSTUNREACH, false},
                       {ECONNREFUSED, true}, {EACCES, true}, {EACCES, true}};
  report->type = type;
  report->code = code;
  switch (type) {
    case ICMP6_TYPE_DUR:
      if (code >= sizeof kUnreachable6 / sizeof kUnreachable6[0]) return false;
      report->error = kUnreachable6[code].error;
      report->fatal = kUnreachable6[code].fatal;
      return true;
    case ICMP6_TYPE_TE: report->error = EHOSTUNREACH, report->fatal = false; return true;
    case ICMP6_TYPE_PP: report->error = EPROTO, report->fatal = true; return true;
    case ICMP6_TYPE_PTB: report->error = EMSGSIZE, report->fatal = true; return true;
    default: return false;
  }
}

}  // namespace

bool Udp::icmp_input(pbuf* p, const netif& interface) noexcept {
  LwipUdpEndpoint::IcmpReport report{};
  if (p->len < kIcmpHeader + IP_HLEN + UDP_HLEN) return false;
  const auto* const icmp = static_cast<const uint8_t*>(p->payload);
  const auto* const packet = reinterpret_cast<const ip_hdr*>(icmp + kIcmpHeader);
  const uint32_t header_bytes = IPH_HL_BYTES(packet);
  const size_t payload_at = kIcmpHeader + header_bytes + UDP_HLEN;
  if (!judge(icmp[0], icmp[1], &report) || IPH_V(packet) != 4 || header_bytes < IP_HLEN || IPH_PROTO(packet) != IP_PROTO_UDP ||
      p->len < payload_at)
    return false;
  if ((IPH_OFFSET(packet) & PP_HTONS(IP_OFFMASK)) != 0) return false;
  if ((interface.chksum_flags & NETIF_CHECKSUM_CHECK_ICMP) != 0 && inet_chksum_pbuf(p) != 0) return false;
  const auto* const udp = reinterpret_cast<const udp_hdr*>(icmp + kIcmpHeader + header_bytes);
  report.to = {packet->dest.addr, udp->dest};
  report.offender = from_lwip(*ip_current_src_addr(), 0);
  report.payload_at = payload_at;
  LwipUdpEndpoint* const endpoint = tables_.demux.find({packet->src.addr, udp->src}, report.to);
  if (endpoint == nullptr) return false;
  if (icmp[0] == ICMP_DUR && icmp[1] == kFragmentationNeeded) {
    report.info = lwip_ntohs(field<uint16_t>(icmp + 6));
    if (!endpoint->path_takes(report.to.address, report.info, &report.fatal)) return pbuf_free(p), true;
  }
  endpoint->report(report, p);
  return true;
}

// What was sent had no extension headers, or that of a fragment, of which the first tells whose it is.
bool Udp::icmp6_input(pbuf* p, const netif& interface) noexcept {
  LwipUdpEndpoint::IcmpReport report{};
  if (p->len < kIcmpHeader + kIp6HeaderBytes + UDP_HLEN) return false;
  const auto* const icmp = static_cast<const uint8_t*>(p->payload);
  const uint8_t* const packet = icmp + kIcmpHeader;
  const uint8_t* udp_at = packet + kIp6HeaderBytes;
  uint8_t protocol = packet[6];
  if (protocol == IP6_NEXTH_FRAGMENT && (field<uint16_t>(udp_at + 2) & PP_HTONS(IP6_FRAG_OFFSET_MASK)) == 0) {
    protocol = udp_at[0];
    udp_at += IP6_FRAG_HLEN;
  }
  const size_t payload_at = static_cast<size_t>(udp_at - icmp) + UDP_HLEN;
  if (p->len < payload_at || !judge_v6(icmp[0], icmp[1], &report) || packet[0] >> 4 != 6 || protocol != IP6_NEXTH_UDP) return false;
  if ((interface.chksum_flags & NETIF_CHECKSUM_CHECK_ICMP6) != 0 &&
      ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->tot_len, ip6_current_src_addr(), ip6_current_dest_addr()) != 0) {
    return false;
  }
  const auto* const udp = reinterpret_cast<const udp_hdr*>(udp_at);
  report.to = {field<IpAddress>(packet + 24), udp->dest};
  report.offender = from_lwip(*ip_current_src_addr(), 0);
  report.payload_at = payload_at;
  LwipUdpEndpoint* const endpoint = tables_.demux.find({field<IpAddress>(packet + 8), udp->src}, report.to);
  if (endpoint == nullptr) return false;
  if (icmp[0] == ICMP6_TYPE_PTB) {
    report.info = lwip_ntohl(field<uint32_t>(icmp + 4));
    if (!endpoint->path_takes(report.to.address, report.info, &report.fatal)) return pbuf_free(p), true;
  }
  endpoint->report(report, p);
  return true;
}

}  // namespace netstack

using netstack::the_udp;

extern "C" {

void udp_init() {}

void udp_input(pbuf* p, netif* interface) { the_udp->input(p, *interface); }

void udp_netif_ip_addr_changed(const ip_addr_t*, const ip_addr_t*) {}

}  // extern "C"
