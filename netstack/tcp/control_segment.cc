// Writes a segment without a PCB into a frame.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/control_segment.h"

#include <cstring>

#include "lwip/inet_chksum.h"
#include "lwip/netif.h"
#include "lwip/prot/tcp.h"
#include "netif/ethernet.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/lwip_core.h"

namespace netstack {
namespace {

constexpr int kMostQueued = 4 * kBurst;

template <class T>
void put(uint8_t* at, T value) noexcept {
  memcpy(at, &value, sizeof value);
}

// IP and TCP; returns the length. Memory wires and devices that do it themselves need no TCP checksum.
uint32_t write_packet(uint8_t* ip, const ControlSegment& segment, bool sum_tcp) noexcept {
  const auto tcp_bytes = static_cast<uint16_t>(kTcpHeader + segment.option_bytes);
  const auto total = static_cast<uint16_t>(kIpHeader + tcp_bytes);
  uint8_t* const tcp = ip + kIpHeader;
  memset(ip, 0, kIpHeader + kTcpHeader);
  ip[0] = 0x45;
  ip[1] = segment.tos;
  put(ip + 2, lwip_htons(total));
  ip[6] = 0x40;  // do not fragment: Linux does so, and the identification may stay 0 (RFC 6864)
  ip[8] = segment.ttl;
  ip[9] = IP_PROTO_TCP;
  put(ip + 12, segment.tuple.local_be);
  put(ip + 16, segment.tuple.peer_be);
  put(ip + 10, inet_chksum(ip, kIpHeader));
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
    const ip_addr_t from{segment.tuple.local_be}, to{segment.tuple.peer_be};
    put(tcp + 16, inet_chksum_pseudo(&whole, IP_PROTO_TCP, tcp_bytes, &from, &to));
  }
  return total;
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
  const bool sum_tcp = (interface.chksum_flags & NETIF_CHECKSUM_GEN_TCP) != 0;
  if (core.neighbours.owns(segment.tuple.peer_be)) {
    uint8_t packet[kIpHeader + kTcpHeader + sizeof segment.options];
    return send_to_ourselves(interface, packet, write_packet(packet, segment, sum_tcp));
  }
  Wire& wire = core.wire();
  TxFrame frame;
  if (wire.backlog() > kMostQueued || !wire.allocate(&frame)) return;
  memcpy(frame.data, mac, ETH_HWADDR_LEN);
  memcpy(frame.data + ETH_HWADDR_LEN, interface.hwaddr, ETH_HWADDR_LEN);
  put(frame.data + 2 * ETH_HWADDR_LEN, PP_HTONS(ETHTYPE_IP));
  const uint32_t length = kEthernetHeader + write_packet(frame.data + kEthernetHeader, segment, sum_tcp);
  if (core.tcp_checksum_offload()) {
    wire.send_tcp(frame.handle, length);
  } else {
    wire.send(frame.handle, length);
  }
}

}  // namespace netstack
