// Where the fields of a plain frame lie: Ethernet, IPv4 without options or IPv6 without extension headers, TCP without options.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip.h"

namespace netstack {

inline constexpr size_t kEthernetHeader = 14;
inline constexpr size_t kIpHeader = 20;
inline constexpr size_t kTcpHeader = 20;
inline constexpr size_t kPlainHeaders = kEthernetHeader + kIpHeader + kTcpHeader;

inline constexpr size_t kEtherTypeAt = 12;
inline constexpr size_t kIpVersionAt = 14;  // with the header's length: 0x45 for IPv4 without options
inline constexpr size_t kIpLengthAt = 16;
inline constexpr size_t kFragmentAt = 20;
inline constexpr size_t kProtocolAt = 23;
inline constexpr size_t kSourceAt = 26;
inline constexpr size_t kDestinationAt = 30;
inline constexpr size_t kSourcePortAt = 34;
inline constexpr size_t kDestinationPortAt = 36;
inline constexpr size_t kTcpOffsetAt = 46;
inline constexpr size_t kTcpFlagsAt = 47;
inline constexpr uint8_t kPlainIp = 0x45;

inline constexpr size_t kIp6Header = 40;
inline constexpr size_t kPlainHeaders6 = kEthernetHeader + kIp6Header + kTcpHeader;
inline constexpr size_t kIp6LengthAt = 18;
inline constexpr size_t kNextHeaderAt = 20;
inline constexpr size_t kSource6At = 22;
inline constexpr size_t kDestination6At = 38;
inline constexpr size_t kSourcePort6At = 54;
inline constexpr size_t kDestinationPort6At = 56;
inline constexpr size_t kTcpOffset6At = 66;
inline constexpr size_t kTcpFlags6At = 67;

// The field at `at`, in wire order.
template <class T>
[[nodiscard]] T field(const uint8_t* at) noexcept {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

// And writes it there.
template <class T>
void put(uint8_t* at, T value) noexcept {
  memcpy(at, &value, sizeof value);
}

[[nodiscard]] inline bool is_tcp(const uint8_t* frame, uint32_t length) noexcept {
  return length >= kEthernetHeader + kIpHeader && field<uint16_t>(frame + kEtherTypeAt) == PP_HTONS(ETHTYPE_IP) &&
         frame[kIpVersionAt] == kPlainIp && frame[kProtocolAt] == IP_PROTO_TCP;
}

[[nodiscard]] inline bool is_tcp6(const uint8_t* frame, uint32_t length) noexcept {
  return length >= kPlainHeaders6 && field<uint16_t>(frame + kEtherTypeAt) == PP_HTONS(ETHTYPE_IPV6) &&
         frame[kNextHeaderAt] == IP_PROTO_TCP;
}

}  // namespace netstack
