// Endpoints by port, and by both ends.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp/udp_demux.h"

#include "base/check.h"
#include "netstack/udp/udp_addresses.h"

namespace netstack {
namespace {

using Link = LwipUdpEndpoint* LwipUdpEndpoint::*;

// One whose peer has no port takes what comes from any port there (compute_score()): it is found as one without a peer.
bool has_whole_peer(const LwipUdpEndpoint& endpoint) noexcept { return endpoint.connected() && endpoint.other_end().port_be != 0; }

bool is_of_another(const LwipUdpEndpoint& endpoint, const SocketAddress& peer) noexcept {
  return endpoint.connected() ? endpoint.other_end().address != peer.address : endpoint.is_deaf_to(peer.address);
}

void push(LwipUdpEndpoint*& bucket, LwipUdpEndpoint& endpoint, Link link) noexcept {
  endpoint.*link = bucket;
  bucket = &endpoint;
}

void take_out(LwipUdpEndpoint*& bucket, LwipUdpEndpoint& endpoint, Link link) noexcept {
  LwipUdpEndpoint** at = &bucket;
  while (*at != &endpoint) {
    CHECK(*at != nullptr);
    at = &((*at)->*link);
  }
  *at = endpoint.*link;
}

}  // namespace

uint32_t UdpDemux::hash_of(const SocketAddress& local, const SocketAddress& peer) const noexcept {
  uint64_t h = (address_word(peer) * 31 ^ address_word(local)) ^ secret_[0];
  h *= secret_[1];
  h ^= h >> 29;
  h += uint64_t{peer.port_be} << 16 | local.port_be;
  h *= secret_[1];
  return static_cast<uint32_t>(h >> 32);
}

void UdpDemux::steer(uint16_t port_be) const noexcept {
  if (steered_.exist()) [[unlikely]] steered_.give(__builtin_bswap16(port_be), !is_free(port_be), false);
}

void UdpDemux::add(LwipUdpEndpoint& endpoint) noexcept {
  const SocketAddress& local = endpoint.name();
  push(ports_[bucket_of(local.port_be)], endpoint, &LwipUdpEndpoint::next_at_port);
  if (has_whole_peer(endpoint)) {
    push(peers_[hash_of(local, endpoint.other_end()) % kPeerBuckets], endpoint, &LwipUdpEndpoint::next_found);
    connected_++;
  } else {
    push(open_[bucket_of(local.port_be)], endpoint, &LwipUdpEndpoint::next_found);
  }
  steer(local.port_be);
}

void UdpDemux::remove(LwipUdpEndpoint& endpoint) noexcept {
  const SocketAddress& local = endpoint.name();
  take_out(ports_[bucket_of(local.port_be)], endpoint, &LwipUdpEndpoint::next_at_port);
  if (has_whole_peer(endpoint)) {
    take_out(peers_[hash_of(local, endpoint.other_end()) % kPeerBuckets], endpoint, &LwipUdpEndpoint::next_found);
    connected_--;
  } else {
    take_out(open_[bucket_of(local.port_be)], endpoint, &LwipUdpEndpoint::next_found);
  }
  steer(local.port_be);
}

LwipUdpEndpoint* UdpDemux::find(const SocketAddress& local, const SocketAddress& peer) const noexcept {
  if (connected_ != 0) {
    LwipUdpEndpoint* e = peers_[hash_of(local, peer) % kPeerBuckets];
    while (e != nullptr && !(e->name() == local && e->other_end() == peer)) e = e->next_found;
    if (e != nullptr) return e;
  }
  return find_open(local, peer);
}

bool UdpDemux::takes(const LwipUdpEndpoint& endpoint, const SocketAddress& local) noexcept {
  const SocketAddress& name = endpoint.name();
  return name.port_be == local.port_be && is_any(name) && means(name.address, endpoint.v6_only(), local.address);
}

// As compute_score() has it; an exact address comes before all others (udp4_lib_lookup2()).
int UdpDemux::score_of(const LwipUdpEndpoint& endpoint, const SocketAddress& local) noexcept {
  return (endpoint.name() == local ? 8 : 0) + (endpoint.connected() ? 4 : 0) + (endpoint.for_v6() ? 1 : 2);
}

LwipUdpEndpoint* UdpDemux::find_open(const SocketAddress& local, const SocketAddress& peer) const noexcept {
  LwipUdpEndpoint* best = nullptr;
  int highest = 0;
  uint32_t sharers = 0;
  for (LwipUdpEndpoint* e = open_[bucket_of(local.port_be)]; e != nullptr; e = e->next_found) {
    if (e->name() != local && !takes(*e, local)) continue;
    if (is_of_another(*e, peer)) continue;
    const int score = score_of(*e, local);
    if (score > highest) {
      best = e;
      highest = score;
      sharers = 1;
    } else if (score == highest && e->name() == best->name() && !e->connected() && e->sharing().reuse_port && best->sharing().reuse_port) {
      sharers++;
    }
  }
  if (sharers <= 1 || best->connected()) return best;
  uint32_t skip = static_cast<uint32_t>(uint64_t{hash_of(local, peer)} * sharers >> 32);
  for (LwipUdpEndpoint* e = best;; e = e->next_found) {
    if (e == nullptr) return best;
    if (e->name() == best->name() && !e->connected() && !is_of_another(*e, peer) && e->sharing().reuse_port && skip-- == 0) return e;
  }
}

// Only what was used is touched.
void UdpDemux::reset() noexcept {
  const auto empty = [](LwipUdpEndpoint** buckets, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
      if (buckets[i] != nullptr) buckets[i] = nullptr;
    }
  };
  empty(ports_, kPortBuckets);
  empty(open_, kPortBuckets);
  empty(peers_, kPeerBuckets);
  connected_ = 0;
  steered_.give_all_up();
}

}  // namespace netstack
