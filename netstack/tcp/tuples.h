// Four-tuples of lwIP's: of a PCB, and of the segment under input.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lwip/priv/tcp_priv.h"
#include "netstack/lwip/ip_address.h"
#include "netstack/tcp/four_tuple.h"

namespace netstack {

[[nodiscard]] inline bool is_v4(const tcp_pcb& pcb) noexcept { return IP_IS_V4_VAL(pcb.remote_ip); }

[[nodiscard]] inline FourTuple tuple_of(const tcp_pcb& pcb) noexcept {
  return {from_lwip(pcb.local_ip), from_lwip(pcb.remote_ip), pcb.local_port, pcb.remote_port};
}

// `header` is in host order.
[[nodiscard]] inline FourTuple tuple_of(const tcp_hdr& header) noexcept {
  return {from_lwip(*ip_current_dest_addr()), from_lwip(*ip_current_src_addr()), header.dest, header.src};
}

// The addresses as words to be hashed: how many.
inline int put_addresses(const ip_addr_t& local, const ip_addr_t& peer, uint64_t words[4]) noexcept {
  if (IP_IS_V4_VAL(peer)) {
    words[0] = uint64_t{ip_2_ip4(&local)->addr} << 32 | ip_2_ip4(&peer)->addr;
    return 1;
  }
  memcpy(words, ip_2_ip6(&local)->addr, 16);
  memcpy(words + 2, ip_2_ip6(&peer)->addr, 16);
  return 4;
}

// The TTL or hop limit of the segment under input.
[[nodiscard]] inline uint8_t current_ttl() noexcept {
  return ip_current_is_v6() ? IP6H_HOPLIM(ip6_current_header()) : IPH_TTL(ip4_current_header());
}

}  // namespace netstack
