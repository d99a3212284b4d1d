// Our addresses as lwIP's, and back.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstring>

#include "lwip/ip.h"
#include "netstack/socket_address.h"

namespace netstack {

[[nodiscard]] inline ip_addr_t to_lwip_v4(uint32_t address_be) noexcept {
  ip_addr_t out{};
  ip_2_ip4(&out)->addr = address_be;
  return out;
}

[[nodiscard]] inline ip6_addr_t to_lwip_v6(const IpAddress& address) noexcept {
  ip6_addr_t out;
  memcpy(out.addr, address.words_be, sizeof out.addr);
  return out;
}

[[nodiscard]] inline ip_addr_t to_lwip(const IpAddress& address) noexcept {
  ip_addr_t out = to_lwip_v4(address.v4_be());
  if (!address.is_v4()) ip_addr_copy_from_ip6(out, to_lwip_v6(address));
  return out;
}

[[nodiscard]] inline IpAddress from_lwip(const ip6_addr_t& address) noexcept {
  IpAddress out;
  memcpy(out.words_be, address.addr, sizeof out.words_be);
  return out;
}

[[nodiscard]] inline IpAddress from_lwip(const ip_addr_t& address) noexcept {
  return IP_IS_V6_VAL(address) ? from_lwip(*ip_2_ip6(&address)) : IpAddress::v4(ip_2_ip4(&address)->addr);
}

}  // namespace netstack
