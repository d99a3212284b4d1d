// Writes a segment without a PCB into a frame.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/control_segment.h"

#include <cstring>

#include "lwip/inet_chksum.h"
#include "lwip/netif.h"
#include "lwip/prot/tcp.h"
#include "netif/ethernet.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/ip_address.h"
#include "netstack/lwip/lwip_core.h"

namespace netstack {
namespace {

constexpr int kMostQueued = 4 * kBurst;

uint32_t tcp_bytes_of(const ControlSegment& segment) noexcept { return static_cast<uint32_t>(kTcpHeader + segment.option_bytes); }

void write_ip(uint8_t* ip, const ControlSegment& segment) noexcept {
  const auto total = static_cast<uint16_t>(kIpHeader + tcp_bytes_of(segment));
  memset(ip, 0, kIpHeader);
  ip[0] = 0x45;
  ip[1] = segment.tos;
  put(ip + 2, lwip_htons(total));
  ip[6] = 0x40;  // do not fragment: Linux does so, and the identification may stay 0 (RFC 6864)
  ip[8] = segment.ttl;
  ip[9] = IP_PROTO_TCP;
  put(ip + 12, segment.tuple.local.v4_be());
  put(ip + 16, segment.tuple.peer.v4_be());
  put(ip + 10, inet_chksum(ip, kIpHeader));
}

void write_ip6(uint8_t* ip, const ControlSegment& segment) noexcept {
  put(ip, lwip_htonl(uint32_t{6} << 28 | uint32_t{segment.tos} << 20));
  put(ip + 4, lwip_htons(static_cast<uint16_t>(tcp_bytes_of(segment))));
  ip[6] = IP_PROTO_TCP;
  ip[7] = segment.ttl;
  put(ip + 8, segment.tuple.local);
  put(ip + 24, segment.tuple.peer);
}

// IP and TCP; returns the length. Memory wires and devices that do it themselves need no TCP checksum.
uint32_t write_packet(uint8_t* ip, const ControlSegment& segment, bool sum_tcp) noexcept {
  const bool v4 = segment.tuple.is_v4();
  const auto tcp_bytes = static_cast<uint16_t>(tcp_bytes_of(segment));
  const auto ip_bytes = static_cast<uint16_t>(v4 ? kIpHeader : kIp6Header);
  uint8_t* const tcp = ip + ip_bytes;
  v4 ? write_ip(ip, segment) : write_ip6(ip, segment);
  memset(tcp, 0, kTcpHeader);
  put(tcp, lwip_htons(segment.tuple.local_port));
  put(tcp + 2, lwip_htons(segment.tuple.peer_port));
  put(tcp + 4, lwip_htonl(segment.sequence));
  put(tcp + 8, lwip_htonl(segment.acknowledgement));
  tcp[12] = static_cast<uint8_t>(tcp_bytes / 4 << 4);
  tcp[13] = segment.flags;
  put(tcp + 14, lwip_htons(segment.window));
  memcpy(tcp + kTcpHeader, segment.options, segment.option_bytes);
  if (sum_tcp) {
    pbuf whole{};
    whole.payload = tcp;
    whole.len = whole.tot_len = tcp_bytes;
    const ip_addr_t from = to_lwip(segment.tuple.local), to = to_lwip(segment.tuple.peer);
    put(tcp + 16, ip_chksum_pseudo(&whole, IP_PROTO_TCP, tcp_bytes, &from, &to));
  }
  return uint32_t{ip_bytes} + tcp_bytes;
}

// lwIP takes a copy and looks at it in this poll or the next.
void send_to_ourselves(netif& interface, const uint8_t* ip, uint32_t bytes) noexcept {
  pbuf* const p = pbuf_alloc(PBUF_RAW, static_cast<u16_t>(bytes), PBUF_RAM);
  if (p == nullptr) return;
  (void)pbuf_take(p, ip, static_cast<u16_t>(bytes));
  (void)netif_loop_output(&interface, p);
  pbuf_free(p);
}

}  // namespace

void send_control_segment(LwipCore& core, const ControlSegment& segment, const uint8_t* mac) noexcept {
  netif& interface = core.interface();
  const bool v4 = segment.tuple.is_v4();
  const bool sum_tcp = (interface.chksum_flags & NETIF_CHECKSUM_GEN_TCP) != 0 || (!v4 && core.fills_tcp6_checksums());
  if (core.neighbours.owns(segment.tuple.peer)) {
    uint8_t packet[kIp6Header + kTcpHeader + sizeof segment.options];
    return send_to_ourselves(interface, packet, write_packet(packet, segment, sum_tcp));
  }
  Wire& wire = core.wire();
  TxFrame frame;
  if (wire.backlog() > kMostQueued || !wire.allocate(&frame)) return;
  memcpy(frame.data, mac, ETH_HWADDR_LEN);
  memcpy(frame.data + ETH_HWADDR_LEN, interface.hwaddr, ETH_HWADDR_LEN);
  put(frame.data + 2 * ETH_HWADDR_LEN, v4 ? PP_HTONS(ETHTYPE_IP) : PP_HTONS(ETHTYPE_IPV6));
  const uint32_t length = kEthernetHeader + write_packet(frame.data + kEthernetHeader, segment, sum_tcp);
  if (v4 && core.tcp_checksum_offload()) {
    wire.send_tcp(frame.handle, length);
  } else {
    wire.send(frame.handle, length);
  }
}

}  // namespace netstack
