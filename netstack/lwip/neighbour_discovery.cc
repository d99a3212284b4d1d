// The filter in front of lwIP's nd6.c, and the way out of IPv6 packets.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/neighbour_discovery.h"

#include <cstring>

#include "lwip/ethip6.h"
#include "lwip/icmp6.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/nd6.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/icmp6.h"
#include "lwip/prot/nd6.h"
#include "netif/ethernet.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/ip_address.h"
#include "netstack/lwip/lwip_core.h"
#include "zps_hooks.h"

namespace netstack {
namespace {

constexpr int kMostLearnt = LWIP_ND6_NUM_NEIGHBORS / 2;
constexpr uint32_t kSolicitationBytes = sizeof(ns_header), kAddressOptionBytes = 8;

nd6_neighbor_cache_entry* find(const ip6_addr_t& hop) noexcept {
  for (int i = 0; i < LWIP_ND6_NUM_NEIGHBORS; i++) {
    nd6_neighbor_cache_entry& entry = neighbor_cache[i];
    if (entry.state != ND6_NO_ENTRY && ip6_addr_cmp(&entry.next_hop_address, &hop)) return &entry;
  }
  return nullptr;
}

bool has_room_to_learn() noexcept {
  int used = 0;
  for (int i = 0; i < LWIP_ND6_NUM_NEIGHBORS; i++) used += neighbor_cache[i].state != ND6_NO_ENTRY;
  return used < kMostLearnt;
}

// RFC 4861, 7.2.4.
void advertise(netif& interface, const ip6_addr_t& own, const ip6_addr_t& to) noexcept {
  pbuf* const p = pbuf_alloc(PBUF_IP, sizeof(na_header) + kAddressOptionBytes, PBUF_RAM);
  if (p == nullptr) return;
  memset(p->payload, 0, p->len);
  auto& header = *static_cast<na_header*>(p->payload);
  header.type = ICMP6_TYPE_NA;
  header.flags = ND6_FLAG_SOLICITED | ND6_FLAG_OVERRIDE;
  memcpy(&header.target_address, &own, sizeof header.target_address);
  auto* const option = reinterpret_cast<uint8_t*>(&header + 1);
  option[0] = ND6_OPTION_TYPE_TARGET_LLADDR;
  option[1] = kAddressOptionBytes / 8;
  memcpy(option + 2, interface.hwaddr, ETH_HWADDR_LEN);
  if ((interface.chksum_flags & NETIF_CHECKSUM_GEN_ICMP6) != 0) header.chksum = ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->len, &own, &to);
  (void)ip6_output_if(p, &own, &to, ND6_HOPLIM, 0, IP6_NEXTH_ICMP6, &interface);
  pbuf_free(p);
}

// 3. True if lwIP shall have it: to learn the source, or because somebody wants our address for himself (RFC 4862, 5.4.3).
bool is_for_lwip(const pbuf& p, netif& interface) noexcept {
  if (p.len < kSolicitationBytes) return true;  // it is dropped there
  const auto& header = *static_cast<const ns_header*>(p.payload);
  ip6_addr_t target;
  memcpy(&target, &header.target_address, sizeof target);
  const bool owned = header.code == 0 && netif_get_ip6_addr_match(&interface, &target) >= 0;
  const ip6_addr_t source = *ip6_current_src_addr();
  if (!owned || ip6_addr_isany(&source)) return owned;
  nd6_neighbor_cache_entry* const known = find(source);
  const auto* const option = reinterpret_cast<const uint8_t*>(&header + 1);
  const bool names_itself =
      p.len >= kSolicitationBytes + kAddressOptionBytes && option[0] == ND6_OPTION_TYPE_SOURCE_LLADDR && option[1] == 1;
  if (known == nullptr && names_itself && has_room_to_learn()) return true;
  if (known != nullptr && names_itself && known->state != ND6_INCOMPLETE && memcmp(known->lladdr, option + 2, ETH_HWADDR_LEN) != 0) {
    memcpy(known->lladdr, option + 2, ETH_HWADDR_LEN);
    known->state = ND6_STALE;
  }
  advertise(interface, target, source);
  return false;
}

// RFC 4861, 7.1.2: options have a length. The first is all that lwIP looks at, and takes it for the address.
bool is_valid_advertisement(const pbuf& p) noexcept {
  const auto* const option = static_cast<const uint8_t*>(p.payload) + sizeof(na_header);
  if (p.len <= sizeof(na_header)) return p.len == sizeof(na_header);
  return p.len >= sizeof(na_header) + kAddressOptionBytes && option[0] == ND6_OPTION_TYPE_TARGET_LLADDR && option[1] == 1;
}

// 5.
void bound_queue(const ip6_addr_t& to) noexcept {
  const IpAddress address = from_lwip(to);
  const bool near = the_core->neighbours.on_link_v6(address);
  nd6_neighbor_cache_entry* const entry = find(near ? to : to_lwip_v6(the_core->setup().gateway6));
  if (entry == nullptr) return;
  int length = 0;
  for (const nd6_q_entry* q = entry->q; q != nullptr; q = q->next) length++;
  while (length-- > ARP_QUEUE_LEN) {
    nd6_q_entry* const oldest = entry->q;
    entry->q = oldest->next;
    pbuf_free(oldest->p);
    memp_free(MEMP_ND6_QUEUE, oldest);
  }
}

// Of a packet that lwIP has made: IPv6 header and what follows lie together.
bool is_error(const pbuf& p) noexcept {
  constexpr uint8_t kLeastInformational = 128;
  const auto* const header = static_cast<const uint8_t*>(p.payload);
  return p.len > IP6_HLEN && header[6] == IP6_NEXTH_ICMP6 && header[IP6_HLEN] < kLeastInformational;
}

}  // namespace

bool knows_neighbour_v6(const ip6_addr_t& hop) noexcept {
  const nd6_neighbor_cache_entry* const entry = find(hop);
  return entry != nullptr && entry->state != ND6_INCOMPLETE;
}

namespace {

// Of an address that is its own next hop, if that is to be found there and nothing has to be done for it.
const uint8_t* station_at(uint8_t hint, const ip6_addr_t& to) noexcept {
  const nd6_neighbor_cache_entry& entry = neighbor_cache[hint % LWIP_ND6_NUM_NEIGHBORS];
  const bool known = entry.state == ND6_REACHABLE || entry.state == ND6_DELAY || entry.state == ND6_PROBE;
  return known && ip6_addr_cmp(&entry.next_hop_address, &to) ? entry.lladdr : nullptr;
}

}  // namespace

const uint8_t* station_of_neighbour_v6(const ip6_addr_t& hop, uint8_t* hint) noexcept {
  nd6_neighbor_cache_entry* entry = &neighbor_cache[*hint % LWIP_ND6_NUM_NEIGHBORS];
  if (entry->state == ND6_NO_ENTRY || !ip6_addr_cmp(&entry->next_hop_address, &hop)) [[unlikely]] {
    entry = find(hop);
    if (entry == nullptr) return nullptr;
    *hint = static_cast<uint8_t>(entry - neighbor_cache);
  }
  if (entry->state == ND6_INCOMPLETE) return nullptr;
  if (entry->state == ND6_STALE) {
    entry->state = ND6_DELAY;
    entry->counter.delay_time = LWIP_ND6_DELAY_FIRST_PROBE_TIME / ND6_TMR_INTERVAL;
  }
  return entry->lladdr;
}

// A packet that says nothing, no next header: lwIP asks when it has one to send.
bool ask_neighbour_v6(netif& interface, const ip6_addr_t& to) noexcept {
  pbuf* const p = pbuf_alloc(PBUF_IP, 0, PBUF_RAM);
  if (p == nullptr) return false;
  const IpAddress from = the_core->neighbours.source_for(from_lwip(to));
  const ip6_addr_t source = to_lwip_v6(from);
  const err_t error = ip6_output_if(p, &source, &to, LWIP_ICMP6_HL, 0, IP6_NEXTH_NONE, &interface);
  pbuf_free(p);
  return error == ERR_OK;
}

void set_destination_mtu_v6(const ip6_addr_t& to, uint16_t mtu) noexcept {
  for (int i = 0; i < LWIP_ND6_NUM_DESTINATIONS; i++) {
    if (ip6_addr_cmp(&destination_cache[i].destination_addr, &to)) destination_cache[i].pmtu = mtu;
  }
}

err_t send_to_station(const uint8_t* mac, netif* interface, pbuf* p, uint16_t type) noexcept {
  eth_addr station;
  memcpy(station.addr, mac, ETH_HWADDR_LEN);
  return ethernet_output(interface, p, reinterpret_cast<const eth_addr*>(interface->hwaddr), &station, type);
}

// As IPv4's: what answers the frame under input and belongs to no endpoint goes back where that came from.
err_t send_packet_v6(netif* interface, pbuf* p, const ip6_addr_t* to) noexcept {
  LwipCore& core = *the_core;
  const uint8_t* const mac = core.input.source_mac();
  if (is_error(*p) && !core.may_send_error()) return ERR_OK;  // 6
  if (const uint8_t* const router = core.neighbours.router()) return send_to_station(router, interface, p, ETHTYPE_IPV6);
  const bool answers = mac != nullptr && interface->hints == nullptr && (mac[0] & 1) == 0 && ip6_addr_cmp(to, ip6_current_src_addr());
  if (answers) {
    return send_to_station(mac, interface, p, ETHTYPE_IPV6);
  }
  if (ip6_addr_ismulticast(to)) return ethip6_output(interface, p, to);
  if (interface->hints != nullptr) [[likely]] {  // of an endpoint, which knows where it found its neighbour (etharp_output())
    const uint8_t* found = station_at(interface->hints->addr_hint, *to);
    if (found == nullptr) found = core.neighbours.station_v6(from_lwip(*to), &interface->hints->addr_hint);
    if (found != nullptr) return send_to_station(found, interface, p, ETHTYPE_IPV6);
  }
  const uint8_t* known = nullptr;
  const err_t error = nd6_get_next_hop_addr_or_queue(interface, p, to, &known);
  if (error != ERR_OK) return error;
  if (known == nullptr) {
    bound_queue(*to);
    return ERR_OK;
  }
  return send_to_station(known, interface, p, ETHTYPE_IPV6);
}

}  // namespace netstack

extern "C" {

// icmp6.c calls this in place of nd6_input().
void zps_nd6_input(pbuf* p, netif* interface) {
  using namespace netstack;
  const uint8_t type = *static_cast<const uint8_t*>(p->payload);
  const bool whole = IP6H_NEXTH(ip6_current_header()) == IP6_NEXTH_ICMP6;  // 4, and no other header is of use in one
  const bool near = whole && IP6H_HOPLIM(ip6_current_header()) == ND6_HOPLIM;
  const bool heeded = near && (type == ICMP6_TYPE_NA || type == ICMP6_TYPE_NS);
  const IpAddress source = from_lwip(*ip6_current_src_addr());
  if (near && type == ICMP6_TYPE_RA) the_core->autoconfiguration.advertised(*p, source);
  if (heeded && p->len >= kSolicitationBytes && (type == ICMP6_TYPE_NA || source.is_any()))
    the_core->autoconfiguration.objected(field<IpAddress>(static_cast<const uint8_t*>(p->payload) + 8));
  if (heeded && (type == ICMP6_TYPE_NA ? is_valid_advertisement(*p) : is_for_lwip(*p, *interface))) return nd6_input(p, interface);
  pbuf_free(p);
}

// The next hop of what is not in a /64 of the stack's, as far as lwIP asks: a network of another length, or the gateway.
const ip6_addr_t* zps_nd6_gateway(netif*, const ip6_addr_t* to) {
  using namespace netstack;
  static ip6_addr_t hop;
  if (the_core->neighbours.on_link_v6(from_lwip(*to))) return to;
  hop = to_lwip_v6(the_core->setup().gateway6);
  return ip6_addr_isany(&hop) ? nullptr : &hop;
}

}  // extern "C"
