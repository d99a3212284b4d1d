// Which endpoint a datagram is for, and who has which port.
// SPDX-License-Identifier: BSD-3-Clause
//
// An endpoint with a port is in the table of ports. One that is not connected is found there by its port: the one with the datagram's own
// address before one with all, one of IPv4's own sockets before IPv6's, the last that came first, and of several that share by SO_REUSEPORT
// the one that the source's hash picks (udp4_lib_lookup2()). A connected one is in a second table, by both ends, so that ten thousand of
// them on one port cost a datagram nothing.
#pragma once

#include "netstack/port_steering.h"
#include "netstack/udp/lwip_udp_endpoint.h"

namespace netstack {

class UdpDemux {
 public:
  void start(const uint64_t seed[2], const SteeredPorts& steered) noexcept {
    secret_[0] = seed[0], secret_[1] = seed[1] | 1;
    steered_ = steered;
  }
  void add(LwipUdpEndpoint& endpoint) noexcept;
  void remove(LwipUdpEndpoint& endpoint) noexcept;
  void reset() noexcept;

  [[nodiscard]] LwipUdpEndpoint* find(const SocketAddress& local, const SocketAddress& peer) const noexcept;
  // Calls visit(endpoint) for each that has this port.
  template <class Visit>
  void for_each_at(uint16_t port_be, Visit visit) const noexcept {
    for (LwipUdpEndpoint* e = ports_[bucket_of(port_be)]; e != nullptr;) {
      LwipUdpEndpoint* const next = e->next_at_port;
      if (e->local().port_be == port_be) visit(*e);
      e = next;
    }
  }
  [[nodiscard]] bool is_free(uint16_t port_be) const noexcept {
    bool found = false;
    for_each_at(port_be, [&](LwipUdpEndpoint&) { found = true; });
    return !found;
  }

 private:
  static constexpr uint32_t kPortBuckets = 4096, kPeerBuckets = 16384;

  [[nodiscard]] static uint32_t bucket_of(uint16_t port_be) noexcept { return __builtin_bswap16(port_be) % kPortBuckets; }
  [[nodiscard]] uint32_t hash_of(const SocketAddress& local, const SocketAddress& peer) const noexcept;
  [[nodiscard]] static bool takes(const LwipUdpEndpoint& endpoint, const SocketAddress& local) noexcept;
  [[nodiscard]] static int score_of(const LwipUdpEndpoint& endpoint, const SocketAddress& local) noexcept;
  [[nodiscard]] LwipUdpEndpoint* find_open(const SocketAddress& local, const SocketAddress& peer) const noexcept;

  void steer(uint16_t port_be) const noexcept;

  uint64_t secret_[2];
  SteeredPorts steered_;
  int connected_;
  LwipUdpEndpoint* ports_[kPortBuckets];
  LwipUdpEndpoint* open_[kPortBuckets];  // those of ports_ that are not connected
  LwipUdpEndpoint* peers_[kPeerBuckets];
};

}  // namespace netstack
