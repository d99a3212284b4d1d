// Where the fields of a plain frame lie: Ethernet, IPv4 without options, TCP without options.
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

// The field at `at`, in wire order.
template <class T>
[[nodiscard]] T field(const uint8_t* at) noexcept {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

[[nodiscard]] inline bool is_tcp(const uint8_t* frame, uint32_t length) noexcept {
  return length >= kEthernetHeader + kIpHeader && field<uint16_t>(frame + kEtherTypeAt) == PP_HTONS(ETHTYPE_IP) &&
         frame[kIpVersionAt] == kPlainIp && frame[kProtocolAt] == IP_PROTO_TCP;
}

}  // namespace netstack
