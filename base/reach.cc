// Networks of the settings, and what the kernel's routing table says of those that the default wire takes.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/reach.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "base/syscall.h"

namespace base {
namespace {

constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool has_prefix(const uint8_t* address, const uint8_t* network, int prefix) noexcept {
  const int bytes = prefix / 8, bits = prefix % 8;
  if (memcmp(address, network, static_cast<size_t>(bytes)) != 0) return false;
  return bits == 0 || ((address[bytes] ^ network[bytes]) >> (8 - bits)) == 0;
}

bool is_wires4(const uint8_t* address) noexcept { return address[0] == 198 && (address[1] & ~1) == 18; }  // RFC 2544
bool is_wires6(const uint8_t* address) noexcept {
  constexpr uint8_t kNetwork[6] = {0xfd, 0xc6, 0x12, 0x00, 0, 0};
  return memcmp(address, kNetwork, sizeof kNetwork) == 0;
}

// Where the kernel would send from if it were to send there; false if nowhere. Who cannot ask is told that it has the address itself.
bool source_towards(sockaddr* peer, socklen_t bytes, sockaddr_storage* own) noexcept {
  memcpy(own, peer, bytes);
  const long probe = kernel_call(SYS_socket, peer->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return true;
  socklen_t room = sizeof *own;
  const bool reaches =
      kernel_call(SYS_connect, probe, as_arg(peer), bytes) == 0 && kernel_call(SYS_getsockname, probe, as_arg(own), as_arg(&room)) == 0;
  (void)kernel_call(SYS_close, probe);
  return reaches;
}

bool source_towards4(const uint8_t* address, sockaddr_storage* own) noexcept {
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(9);
  memcpy(&peer.sin_addr, address, sizeof peer.sin_addr);
  return source_towards(reinterpret_cast<sockaddr*>(&peer), sizeof peer, own);
}

bool source_towards6(const uint8_t* address, sockaddr_storage* own) noexcept {
  sockaddr_in6 peer{};
  peer.sin6_family = AF_INET6;
  peer.sin6_port = htons(9);
  memcpy(&peer.sin6_addr, address, sizeof peer.sin6_addr);
  return source_towards(reinterpret_cast<sockaddr*>(&peer), sizeof peer, own);
}

bool kernel_reaches4(const uint8_t* address) noexcept {
  sockaddr_storage own;
  if (!source_towards4(address, &own)) return false;
  return is_wires4(reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in*>(&own)->sin_addr));
}

bool kernel_reaches6(const uint8_t* address) noexcept {
  sockaddr_storage own;
  if (!source_towards6(address, &own)) return false;
  return is_wires6(reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in6*>(&own)->sin6_addr));
}

Reach reach4(const Config& config, const uint8_t* address) noexcept {
  if (config.address_be != 0) {
    uint8_t own[4];
    memcpy(own, &config.address_be, sizeof own);
    if (memcmp(own, address, sizeof own) == 0) return Reach::own;
    if (has_prefix(address, own, config.prefix)) return Reach::network;
    return config.gateway_be != 0 ? Reach::gateway : Reach::outside;
  }
  if (config.dhcp) return Reach::gateway;  // what a server will say leads everywhere
  if (!is_wires4(address)) return Reach::outside;
  return kernel_reaches4(address) ? Reach::kernel_has : Reach::wires;
}

Reach reach6(const Config& config, const uint8_t* address) noexcept {
  if (config.ip6[0].prefix != 0) {
    Reach reach = Reach::outside;
    constexpr uint8_t kNone[16] = {};
    if (config.autoconfigure || memcmp(config.gateway6, kNone, sizeof kNone) != 0) reach = Reach::gateway;
    for (const Ip6Setting& each : config.ip6) {
      if (each.prefix == 0) break;
      if (memcmp(each.address, address, sizeof each.address) == 0) return Reach::own;
      if (has_prefix(address, each.address, each.prefix)) reach = Reach::network;
    }
    return reach;
  }
  if (!is_wires6(address)) {  // what a router will advertise leads everywhere
    if (!config.autoconfigure) return Reach::outside;
    return kernel_reaches6(address) ? Reach::kernel_has : Reach::gateway;
  }
  return kernel_reaches6(address) ? Reach::kernel_has : Reach::wires;
}

bool shares_addresses(const Config& config) noexcept {
  const size_t bytes = strcspn(config.wire, ":");
  for (const char* kind : {"host", "af_xdp"}) {
    if (strlen(kind) == bytes && memcmp(config.wire, kind, bytes) == 0) return true;
  }
  return false;
}

// The kernel sends to its own addresses from themselves.
Reach reach_by_kernel(const uint8_t (&address)[16]) noexcept {
  sockaddr_storage own;
  if (memcmp(address, kMapped, sizeof kMapped) == 0) {
    const uint8_t* const v4 = address + sizeof kMapped;
    if (!source_towards4(v4, &own)) return Reach::outside;
    return memcmp(&reinterpret_cast<const sockaddr_in&>(own).sin_addr, v4, sizeof(in_addr)) == 0 ? Reach::shared : Reach::interface;
  }
  if (!source_towards6(address, &own)) return Reach::outside;
  return memcmp(&reinterpret_cast<const sockaddr_in6&>(own).sin6_addr, address, sizeof address) == 0 ? Reach::shared : Reach::interface;
}

}  // namespace

Reach reach_of(const Config& config, const uint8_t (&address)[16]) noexcept {
  if (shares_addresses(config)) return reach_by_kernel(address);
  return memcmp(address, kMapped, sizeof kMapped) == 0 ? reach4(config, address + sizeof kMapped) : reach6(config, address);
}

}  // namespace base
