// Who may have a port, and the table of bound sockets.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/port_binding.h"

#include <cerrno>

#include "netstack/lwip/ip_address.h"
#include "netstack/tcp/tcp.h"

namespace netstack {
namespace {

enum class User { socket, listener, nobody };

bool may_share(const PortSharing& one, const PortSharing& other, User user) noexcept {
  if (one.reuse_address && other.reuse_address && user != User::listener) return true;
  return one.reuse_port && other.reuse_port && (user == User::nobody || one.uid == other.uid);
}

}  // namespace

bool set_sharing(PortSharing* sharing, TcpOption option, int value) noexcept {
  switch (option) {
    case TcpOption::reuse_address: sharing->reuse_address = value != 0; return true;
    case TcpOption::reuse_port: sharing->reuse_port = value != 0; return true;
    case TcpOption::owner_uid: sharing->uid = static_cast<uint32_t>(value); return true;
    default: return false;
  }
}

long LwipBinding::set_option(TcpOption option, int value) noexcept { return set_sharing(&sharing, option, value) ? 0 : -ENOPROTOOPT; }

void LwipBinding::release() noexcept { tcp_.free_binding(*this); }

// ---------------------------------------------------------------- who may

bool PortOwners::conflict(uint16_t port, const BoundTo& to, const PortSharing& sharing, const PortBinding* own) const noexcept {
  const uint16_t port_be = lwip_htons(port);
  for (const LwipBinding* other = buckets_[port % kBuckets]; other != nullptr; other = other->next_in_bucket) {
    if (other != own && other->local().port_be == port_be && to.meets(other->bound_to()) &&
        !may_share(sharing, other->sharing, User::socket))
      return true;
  }
  bool found = false;
  tcp_.listeners.for_each_at(port_be, [&](const LwipListener& other) {
    found = found || (to.meets({other.local().address, other.v6_only()}) && !may_share(sharing, other.sharing(), User::listener));
  });
  if (found) return true;
  return tcp_.demux().any_at(port, tcp_.ports().connections(port), [&](const tcp_pcb& pcb) {
    const bool is_held = pcb.errf != nullptr && pcb.state != TIME_WAIT;
    return to.meets({from_lwip(pcb.local_ip)}) && !may_share(sharing, LwipStream::sharing_of(pcb), is_held ? User::socket : User::nobody);
  });
}

long PortOwners::find(const PortRequest& request, const PortBinding* own, SocketAddress* local) const noexcept {
  *local = request.local;
  if (!local->address.is_any() && !tcp_.core.neighbours.owns(local->address)) return -EADDRNOTAVAIL;
  const PortTable& ports = tcp_.ports();
  if (local->port_be == 0) {
    local->port_be = lwip_htons(ports.choose(request.range, tcp_.core.random(), [&](uint16_t port) { return ports.is_free(port); }));
    return local->port_be == 0 ? -EADDRINUSE : 0;
  }
  const uint16_t port = lwip_ntohs(local->port_be);
  const BoundTo to{local->address, request.v6_only};
  if (request.is_chosen) return ports.is_free(port) ? 0 : -EADDRINUSE;
  if (request.is_known || ports.is_free(port) || ports.shares(to, port, request.sharing)) return 0;
  return conflict(port, to, request.sharing, own) ? -EADDRINUSE : 0;
}

// ---------------------------------------------------------------- bound sockets

void PortOwners::add(LwipBinding& binding) noexcept {
  const uint16_t port = lwip_ntohs(binding.local().port_be);
  LwipBinding*& bucket = buckets_[port % kBuckets];
  binding.next_in_bucket = bucket;
  bucket = &binding;
  tcp_.ports().note_bound(binding.bound_to(), port, binding.sharing);
  tcp_.ports().use(port, PortUse::bound);
}

void PortOwners::remove(LwipBinding& binding) noexcept {
  const uint16_t port = lwip_ntohs(binding.local().port_be);
  LwipBinding** at = &buckets_[port % kBuckets];
  while (*at != &binding) at = &(*at)->next_in_bucket;
  *at = binding.next_in_bucket;
  tcp_.ports().unuse(port, PortUse::bound);
}

void PortOwners::reset() noexcept {
  for (LwipBinding*& bucket : buckets_) bucket = nullptr;
}

}  // namespace netstack
