// Addresses of both families, and an address with its port.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace netstack {

// An IPv6 address in wire order. IPv4's are v4-mapped (RFC 4291, 2.5.5.2), so that 16 bytes say which of both it is and are compared as
// one.
// Zeros are IPv6's unspecified address, and what stands where there is none.
struct IpAddress {
  uint32_t words_be[4] = {};

  [[nodiscard]] static constexpr IpAddress v4(uint32_t address_be) noexcept { return {{0, 0, kMapped, address_be}}; }
  [[nodiscard]] constexpr bool operator==(const IpAddress&) const noexcept = default;
  [[nodiscard]] constexpr bool is_v4() const noexcept { return (words_be[0] | words_be[1] | (words_be[2] ^ kMapped)) == 0; }
  // Its IPv4 address; 0 if it has none.
  [[nodiscard]] constexpr uint32_t v4_be() const noexcept { return is_v4() ? words_be[3] : 0; }
  // The unspecified address of either family: all of the stack's.
  [[nodiscard]] constexpr bool is_any() const noexcept {
    return (words_be[0] | words_be[1] | words_be[3]) == 0 && (words_be[2] == 0 || words_be[2] == kMapped);
  }
  // 224.0.0.0/4 and ff00::/8.
  [[nodiscard]] constexpr bool is_multicast() const noexcept {
    return is_v4() ? (words_be[3] & 0xf0) == 0xe0 : (words_be[0] & 0xff) == 0xff;
  }
  // fe80::/10, whose meaning depends on the link.
  [[nodiscard]] constexpr bool is_link_local() const noexcept { return (words_be[0] & kLinkLocalMask) == kLinkLocal; }

 private:
  static constexpr uint32_t kMapped = 0xffff'0000, kLinkLocal = 0x0000'80fe, kLinkLocalMask = 0x0000'c0ff;  // in wire order
};

// An address with the length of its network's prefix.
struct IpNetwork {
  IpAddress address;
  uint8_t prefix = 0;

  // Whether it is a network that `other` is in. IPv6's only.
  [[nodiscard]] constexpr bool holds_v6(const IpAddress& other) const noexcept {
    for (int word = 0, left = prefix; word < 4 && left > 0; word++, left -= 32) {
      const uint32_t mask = left >= 32 ? ~uint32_t{0} : __builtin_bswap32(~uint32_t{0} << (32 - left));
      if (((address.words_be[word] ^ other.words_be[word]) & mask) != 0) return false;
    }
    return prefix != 0 && !other.is_v4();
  }
};
inline constexpr int kMostIp6Addresses = 3;  // of a stack, beside the link-local one

// An endpoint. Who keeps, copies and compares it need not know its family.
struct SocketAddress {
  IpAddress address;
  uint16_t port_be = 0;
  uint32_t scope = 0;  // the interface of a link-local address (RFC 4007); else 0

  constexpr SocketAddress() noexcept = default;
  constexpr SocketAddress(const IpAddress& at, uint16_t port_in_wire_order) noexcept : address(at), port_be(port_in_wire_order) {}
  // An IPv4 endpoint.
  constexpr SocketAddress(uint32_t address_be, uint16_t port_in_wire_order) noexcept
      : SocketAddress(IpAddress::v4(address_be), port_in_wire_order) {}
  [[nodiscard]] constexpr bool operator==(const SocketAddress&) const noexcept = default;
};

}  // namespace netstack
