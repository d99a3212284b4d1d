// Datagrams in, ports, and UDP's way through a recovery.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp/udp.h"

#include <cerrno>
#include <sys/epoll.h>

#include "lwip/icmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/prot/iana.h"
#include "lwip/prot/udp.h"
#include "netstack/udp/udp_addresses.h"

namespace netstack {
namespace {

constexpr uint64_t kRetryNs = 1'000'000;
// What goes to ports that nobody has is answered so often at most (Linux: icmp_msgs_per_sec, icmp_msgs_burst).
constexpr uint64_t kUnreachableNs = 1'000'000;
constexpr uint64_t kUnreachableBurst = 50;

bool may_share(const PortSharing& one, const PortSharing& other) noexcept {
  if (one.reuse_address && other.reuse_address) return true;
  return one.reuse_port && other.reuse_port && one.uid == other.uid;
}

}  // namespace

Udp* the_udp = nullptr;

Udp::Udp(LwipCore& core, UdpTables& tables) noexcept
    : core_(core), tables_(tables), output_(*this), memberships_(core.groups, tables.memberships), readers_(core.clock) {
  tables_.demux.start(core.setup().seed, SteeredPorts::of_udp(core.wire().steering()));
}

uint64_t Udp::next_timer_ns() const noexcept {
  const uint64_t readers_ns = readers_.next_timer_ns(), retry_ns = room_awaited_ ? core_.clock.now_ns() + kRetryNs : Clock::kNever;
  return readers_ns < retry_ns ? readers_ns : retry_ns;
}

bool Udp::is_broadcast(const SocketAddress& address) const noexcept {
  const ip_addr_t ip = to_lwip(address);
  return ip_addr_isbroadcast(&ip, &core_.interface()) != 0;
}

bool Udp::has_way_to(const SocketAddress& address) const noexcept {
  const ip_addr_t ip = to_lwip(address);
  return core_.neighbours.owns(address.address) || core_.neighbours.routes(address.address) || ip_addr_ismulticast(&ip);
}

// Whoever was refused tries again: so many at a time as there is room for find it.
void Udp::tell_writers() noexcept {
  room_awaited_ = false;
  tables_.endpoints.for_each([](LwipUdpEndpoint& endpoint) { endpoint.room_made(); });
}

// ---------------------------------------------------------------- input

// RFC 768. As Linux: what is longer than the datagram says is cut off, a sum of zero is none.
void Udp::input(pbuf* p, const netif& interface) noexcept {
  const uint32_t ip_header_bytes = ip_current_header_tot_len();
  if (p->len < UDP_HLEN) return (void)pbuf_free(p);
  const auto* const header = static_cast<const udp_hdr*>(p->payload);
  const uint16_t bytes = lwip_ntohs(header->len);
  if (bytes < UDP_HLEN || bytes > p->tot_len) return (void)pbuf_free(p);
  if (bytes < p->tot_len) pbuf_realloc(p, bytes);
  const bool has_sum = header->chksum != 0 || ip_current_is_v6();  // RFC 8200, 8.1: IPv6 has nothing else
  const bool checks = (interface.chksum_flags & NETIF_CHECKSUM_CHECK_UDP) != 0 && has_sum;
  if (checks && ip_chksum_pseudo(p, IP_PROTO_UDP, p->tot_len, ip_current_src_addr(), ip_current_dest_addr()) != 0)
    return (void)pbuf_free(p);
  const SocketAddress local = from_lwip(*ip_current_dest_addr(), header->dest), peer = from_lwip(*ip_current_src_addr(), header->src);
  (void)pbuf_remove_header(p, UDP_HLEN);
  const bool is_of_dhcp = local.port_be == PP_HTONS(LWIP_IANA_PORT_DHCP_CLIENT) && peer.port_be == PP_HTONS(LWIP_IANA_PORT_DHCP_SERVER);
  if (is_of_dhcp && core_.dhcp.on() && local.address.is_v4()) [[unlikely]] return core_.dhcp.input(p);
  if (ip_addr_ismulticast(ip_current_dest_addr()) || ip_addr_isbroadcast(ip_current_dest_addr(), &interface)) {
    return deliver_to_all(local, peer, p, ip_header_bytes);
  }
  if (LwipUdpEndpoint* const endpoint = tables_.demux.find(local, peer)) return endpoint->deliver(p, ip_header_bytes);
  answer_unreachable(p, ip_header_bytes);
}

// __udp4_lib_mcast_deliver(): everybody who listens there gets one.
void Udp::deliver_to_all(const SocketAddress& local, const SocketAddress& peer, pbuf* p, uint32_t ip_header_bytes) noexcept {
  LwipUdpEndpoint* last = nullptr;
  tables_.demux.for_each_at(local.port_be, [&](LwipUdpEndpoint& endpoint) {
    const bool takes_any = is_any(endpoint.name()) && means(endpoint.name().address, endpoint.v6_only(), local.address);
    const bool listens = takes_any || endpoint.name().address == local.address;
    if (endpoint.connected() ? !(endpoint.other_end() == peer) : !listens || endpoint.is_deaf_to(peer.address)) return;
    if (local.address.is_multicast() && !endpoint.takes_from(local.address, peer.address)) return;
    LwipUdpEndpoint* const before = last;
    last = &endpoint;
    if (before == nullptr) return;
    (void)pbuf_add_header_force(p, UDP_HLEN + ip_header_bytes);
    pbuf* const copy = pbuf_clone(PBUF_LINK, PBUF_RAM, p);
    (void)pbuf_remove_header(p, UDP_HLEN + ip_header_bytes);
    if (copy == nullptr) return;
    (void)pbuf_remove_header(copy, UDP_HLEN + ip_header_bytes);
    before->deliver(copy, ip_header_bytes);
  });
  if (last != nullptr) {
    last->deliver(p, ip_header_bytes);
  } else {
    pbuf_free(p);
  }
}

namespace {

// Shows as much of the packet as fits 576 bytes (RFC 1812, 4.3.2.3; icmp_send()): lwIP's own shows the least that RFC 792 asks for, and a
// sender that reads its error queue (IP_RECVERR) gets no datagram back of that.
void refuse_v4(pbuf* p) noexcept {
  constexpr uint16_t kMost = 576 - IP_HLEN - sizeof(icmp_echo_hdr);
  const uint16_t shown = p->tot_len < kMost ? p->tot_len : kMost;
  pbuf* const message = pbuf_alloc(PBUF_IP, static_cast<uint16_t>(sizeof(icmp_echo_hdr) + shown), PBUF_RAM);
  if (message == nullptr) return;
  auto* const header = static_cast<icmp_echo_hdr*>(message->payload);
  *header = {};
  header->type = ICMP_DUR;
  header->code = ICMP_DUR_PORT;
  (void)pbuf_copy_partial(p, header + 1, shown, 0);
  header->chksum = inet_chksum(header, message->len);
  (void)ip4_output_if(message, ip4_current_dest_addr(), ip4_current_src_addr(), ICMP_TTL, 0, IP_PROTO_ICMP, ip_current_input_netif());
  pbuf_free(message);
}

}  // namespace

void Udp::answer_unreachable(pbuf* p, uint32_t ip_header_bytes) noexcept {
  const uint64_t now = core_.clock.now_ns();
  if (unreachables_from_ns_ + kUnreachableBurst * kUnreachableNs < now) unreachables_from_ns_ = now - kUnreachableBurst * kUnreachableNs;
  if (unreachables_from_ns_ + kUnreachableNs <= now) {
    unreachables_from_ns_ += kUnreachableNs;
    (void)pbuf_add_header_force(p, UDP_HLEN + ip_header_bytes);
    if (ip_current_is_v6()) {
      icmp_port_unreach(true, p);
    } else {
      refuse_v4(p);
    }
  }
  pbuf_free(p);
}

// ---------------------------------------------------------------- ports

bool Udp::conflict(const SocketAddress& local, const PortRequest& request) const noexcept {
  bool found = false;
  tables_.demux.for_each_at(local.port_be, [&](const LwipUdpEndpoint& other) {
    const SocketAddress& name = other.name();
    const bool by_name = is_any(name) && means(name.address, other.v6_only(), local.address);
    const bool by_request = is_any(local) && means(local.address, request.v6_only, name.address);
    found = found || ((name == local || by_name || by_request) && !may_share(request.sharing, other.sharing()));
  });
  return found;
}

uint16_t Udp::choose(uint32_t range) noexcept {
  const LocalPorts& allowed = core_.setup().ports;
  const auto bound = [&](uint32_t wanted, uint32_t otherwise) {
    return wanted < allowed.range.first || wanted > allowed.range.last ? otherwise : wanted;
  };
  const uint32_t first = bound(range & 0xffff, allowed.range.first), count = bound(range >> 16, allowed.range.last) - first + 1;
  const uint32_t begin = core_.random() % count;
  for (uint32_t i = 0; i < count; i++) {
    const auto port = static_cast<uint16_t>(first + (begin + i) % count);
    if (allowed.may_choose(port) && tables_.demux.is_free(lwip_htons(port))) return lwip_htons(port);
  }
  return 0;
}

long Udp::find_port(const PortRequest& request, SocketAddress* local) noexcept {
  *local = request.local;
  if (!is_any(*local) && !local->address.is_multicast() && !core_.neighbours.owns(local->address)) return -EADDRNOTAVAIL;
  if (local->port_be == 0) {
    local->port_be = choose(request.range);
    return local->port_be == 0 ? -EADDRINUSE : 0;
  }
  if (request.is_known) return 0;
  const bool taken = request.is_chosen ? !tables_.demux.is_free(local->port_be) : conflict(*local, request);
  return taken ? -EADDRINUSE : 0;
}

// ---------------------------------------------------------------- recovery

void Udp::forget_holders() noexcept {
  tables_.endpoints.rebuild();
  tables_.endpoints.for_each([](LwipUdpEndpoint& endpoint) { endpoint.hold(false); });
}

bool Udp::hold(LwipUdpEndpoint* endpoint) noexcept {
  if (!tables_.endpoints.owns(endpoint) || endpoint->held()) return false;
  endpoint->hold(true);
  return true;
}

// An endpoint that is in use and that nobody holds was being made or released.
void Udp::reset() noexcept {
  room_awaited_ = false;
  readers_.reset();
  output_.reset();
  tables_.demux.reset();
  tables_.endpoints.rebuild();
  tables_.endpoints.for_each([&](LwipUdpEndpoint& endpoint) {
    endpoint.forget_everything();
    if (!endpoint.held()) {
      tables_.endpoints.free(&endpoint);
    } else if (endpoint.name().port_be != 0) {
      tables_.demux.add(endpoint);
    }
  });
}

// When the interface stands again.
void Udp::rejoin() noexcept {
  memberships_.rebuild([&](LwipUdpEndpoint* owner) { return tables_.endpoints.owns(owner) ? owner->memberships() : nullptr; });
}

void Udp::tell_what_is_lost() noexcept {
  tables_.endpoints.for_each([](LwipUdpEndpoint& endpoint) {
    const uint32_t level = endpoint.ready();
    for (Observer* o = endpoint.observers.front(); o != nullptr; o = endpoint.observers.after(o)) o->on_ready(endpoint, level);
  });
}

}  // namespace netstack
