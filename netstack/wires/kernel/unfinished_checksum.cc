// The sum over the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/unfinished_checksum.h"

#include <cstring>
#include <linux/if_ether.h>
#include <netinet/in.h>

namespace netstack {
namespace {

uint16_t word_at(const uint8_t* at) noexcept { return static_cast<uint16_t>(at[0] << 8 | at[1]); }

uint32_t sum_of(const uint8_t* at, uint32_t bytes) noexcept {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < bytes; i += 2) sum += word_at(at + i);
  return sum;
}

}  // namespace

bool has_unfinished_checksum(const uint8_t* frame, uint32_t length) noexcept {
  constexpr uint32_t kHeader6 = 40, kLeast4 = 20, kTcpSumAt = 16, kUdpSumAt = 6;
  if (length < ETH_HLEN + kLeast4) return false;
  const uint8_t* const ip = frame + ETH_HLEN;
  const bool v6 = word_at(frame + 12) == ETH_P_IPV6;
  if ((!v6 && word_at(frame + 12) != ETH_P_IP) || (v6 && length < ETH_HLEN + kHeader6)) return false;
  const uint32_t header = v6 ? kHeader6 : (ip[0] & 0xfu) * 4;
  const uint8_t protocol = ip[v6 ? 6 : 9];
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) return false;
  const uint32_t at = ETH_HLEN + header + (protocol == IPPROTO_TCP ? kTcpSumAt : kUdpSumAt);
  if (at + 2 > length) return false;
  const uint32_t bytes = v6 ? word_at(ip + 4) : word_at(ip + 2) - header;
  uint32_t sum = (v6 ? sum_of(ip + 8, 32) : sum_of(ip + 12, 8)) + protocol + bytes;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return sum == word_at(frame + at);
}

}  // namespace netstack
