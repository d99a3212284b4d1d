// What routers say of segments on their way (ICMP, ICMPv6).
// SPDX-License-Identifier: BSD-3-Clause
//
// "Packet too big", and "fragmentation needed" over IPv4, is heeded if it quotes a segment that is in flight: the addresses and ports of a
// connection, and a sequence number between what was acknowledged and what was sent (RFC 5927, 4.1; Linux: tcp_v4_err(), tcp_v6_err()).
// The connection's segments become as short as it says, and what was sent is sent again at once, for it is lost (tcp_v4_mtu_reduced(),
// tcp_v6_mtu_reduced(), tcp_simple_retransmit()). Nothing else is heeded.
#pragma once

#include "lwip/netif.h"
#include "lwip/pbuf.h"

namespace netstack {

class Tcp;

// False if it is not about a segment, and then it is left alone.
[[nodiscard]] bool report_segment_v4(Tcp& tcp, pbuf* p, const netif& interface) noexcept;
[[nodiscard]] bool report_segment_v6(Tcp& tcp, pbuf* p, const netif& interface) noexcept;

}  // namespace netstack
