// Addresses as UDP compares them, and between the stack's form and lwIP's.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "netstack/lwip/ip_address.h"
#include "netstack/stack.h"

namespace netstack {

[[nodiscard]] inline bool is_any(const SocketAddress& address) noexcept { return address.address.is_any(); }
// What of an address goes into a hash.
[[nodiscard]] inline uint64_t address_word(const SocketAddress& address) noexcept {
  const uint32_t* const w = address.address.words_be;
  return (uint64_t{w[0] ^ w[2]} << 32 | (w[1] ^ w[3])) ^ w[3];
}
[[nodiscard]] inline ip_addr_t to_lwip(const SocketAddress& address) noexcept { return to_lwip(address.address); }
[[nodiscard]] inline SocketAddress from_lwip(const ip_addr_t& address, uint16_t port_be) noexcept { return {from_lwip(address), port_be}; }
// An endpoint's own view of an address: what it compares says nothing of the interface.
[[nodiscard]] inline SocketAddress without_scope(const SocketAddress& address) noexcept { return {address.address, address.port_be}; }

// Whether a name that means all addresses means this one as well: IPv4's means IPv4's, IPv6's both, or with IPV6_V6ONLY its own.
[[nodiscard]] inline bool means(const IpAddress& any, bool v6_only, const IpAddress& address) noexcept {
  return any.is_v4() ? address.is_v4() : !v6_only || !address.is_v4();
}

}  // namespace netstack
