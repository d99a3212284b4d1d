// A walk along a packet's extension headers and their options.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/extension_headers.h"

#include "lwip/prot/ip6.h"
#include "netstack/lwip/frame_fields.h"

namespace netstack {
namespace {

constexpr uint32_t kUnit = 8;  // bytes; also the least that a header has
constexpr uint32_t kOptionsAt = 2, kOptionHeader = 2;

bool is_extension(uint8_t header) noexcept {
  return header == IP6_NEXTH_HOPBYHOP || header == IP6_NEXTH_DESTOPTS || header == IP6_NEXTH_ROUTING || header == IP6_NEXTH_FRAGMENT;
}

bool options_are_whole(const uint8_t* header, uint32_t bytes) noexcept {
  for (uint32_t at = kOptionsAt; at < bytes;) {
    if (header[at] == IP6_PAD1_OPTION) {
      at++;
      continue;
    }
    if (at + kOptionHeader > bytes) return false;
    at += kOptionHeader + header[at + 1];
    if (at > bytes) return false;
  }
  return true;
}

}  // namespace

bool extension_headers_are_sound(const uint8_t* packet, uint32_t bytes) noexcept {
  const uint32_t told = kIp6Header + lwip_ntohs(field<uint16_t>(packet + kIp6LengthAt - kEthernetHeader));
  const uint32_t end = told < bytes ? told : bytes;
  uint8_t kind = packet[kNextHeaderAt - kEthernetHeader];
  for (uint32_t at = kIp6Header; is_extension(kind);) {
    if (at + kUnit > end) return false;
    const uint8_t* const header = packet + at;
    if (kind == IP6_NEXTH_FRAGMENT) return !is_extension(header[0]) && at + kUnit < end;
    const uint32_t length = kUnit * (1 + header[1]);
    at += length;
    if (at > end) return false;
    if (kind != IP6_NEXTH_ROUTING && !options_are_whole(header, length)) return false;
    kind = header[0];
  }
  return true;
}

}  // namespace netstack
