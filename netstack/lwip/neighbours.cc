// Routing by one network and one gateway; the neighbour table saved and restored.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/neighbours.h"

#include <cstring>

#include "lwip/prot/etharp.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/prot/iana.h"
#include "netstack/lwip/ip_address.h"
#include "netstack/lwip/neighbour_discovery.h"

namespace netstack {
namespace {

ip6_addr_t hop_to_v6(const Neighbours& neighbours, const StackSetup& setup, const IpAddress& address) noexcept {
  return to_lwip_v6(neighbours.on_link_v6(address) ? address : setup.gateway6);
}

}  // namespace

bool Neighbours::routes(uint32_t address_be) const noexcept {
  if (router_ != nullptr) return setup_.wire->leads_to(IpAddress::v4(address_be));
  if (owns(address_be)) return true;
  if (address_be == 0 || address_be == ~uint32_t{0} || (address_be & 0xff) == 127) return false;
  return near(address_be) || setup_.gateway_be != 0;
}

bool Neighbours::knows_way_to(const IpAddress& address) noexcept {
  if (router_ != nullptr || owns(address)) return true;
  if (!address.is_v4()) return knows_neighbour_v6(hop_to_v6(*this, setup_, address));
  const uint32_t address_be = address.v4_be();
  const ip4_addr_t hop{hop_to(address_be)};
  eth_addr* mac;
  const ip4_addr_t* found;
  return etharp_find_addr(&interface_, &hop, &mac, &found) >= 0;
}

const uint8_t* Neighbours::station_v6(const IpAddress& address, uint8_t* hint) noexcept {
  return router_ != nullptr ? router_ : station_of_neighbour_v6(hop_to_v6(*this, setup_, address), hint);
}

bool Neighbours::ask_way_to(const IpAddress& address) noexcept {
  if (!address.is_v4()) return ask_neighbour_v6(interface_, to_lwip_v6(address));
  const uint32_t address_be = address.v4_be();
  const ip4_addr_t hop{hop_to(address_be)};
  return etharp_query(&interface_, &hop, nullptr) == ERR_OK;
}

// What lwIP's table holds; but if a member died before it had learned all again, what it had read.
void Neighbours::save() noexcept {
  int count = 0;
  for (int i = 0; i < ARP_TABLE_SIZE; i++) {
    ip4_addr_t* address;
    netif* interface;
    eth_addr* mac;
    if (etharp_get_entry(static_cast<size_t>(i), &address, &interface, &mac) == 0) continue;
    if (count == 0) saved_.count = 0;
    saved_.entries[count].address = *address;
    memcpy(saved_.entries[count++].mac, mac->addr, ETH_HWADDR_LEN);
  }
  if (count > 0) saved_.count = count;
  save_v6();
}

// As if each had said so itself. They are asked as well: an address may have been half written.
void Neighbours::restore() noexcept {
  for (int i = 0; i < saved_.count; i++) {
    const auto& neighbour = saved_.entries[i];
    pbuf* const p = pbuf_alloc(PBUF_RAW, SIZEOF_ETHARP_HDR, PBUF_RAM);
    if (p == nullptr) break;
    auto& told = *static_cast<etharp_hdr*>(p->payload);
    told.hwtype = PP_HTONS(LWIP_IANA_HWTYPE_ETHERNET);
    told.proto = PP_HTONS(ETHTYPE_IP);
    told.hwlen = ETH_HWADDR_LEN;
    told.protolen = sizeof(ip4_addr_t);
    told.opcode = PP_HTONS(ARP_REPLY);
    memcpy(&told.shwaddr, neighbour.mac, ETH_HWADDR_LEN);
    memcpy(&told.dhwaddr, interface_.hwaddr, ETH_HWADDR_LEN);
    memcpy(&told.sipaddr, &neighbour.address, sizeof(ip4_addr_t));
    memcpy(&told.dipaddr, netif_ip4_addr(&interface_), sizeof(ip4_addr_t));
    etharp_input(p, &interface_);
    (void)etharp_request(&interface_, &neighbour.address);
  }
  saved_.count = 0;
  restore_v6();
}

// ---------------------------------------------------------------- IPv6

bool Neighbours::owns_v6(const IpAddress& address) const noexcept {
  for (int i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
    if (ip6_addr_isvalid(netif_ip6_addr_state(&interface_, i)) && from_lwip(*netif_ip6_addr(&interface_, i)) == address) return true;
  }
  return false;
}

bool Neighbours::on_link_v6(const IpAddress& address) const noexcept {
  if (address.is_link_local()) return true;
  for (const IpNetwork& network : setup_.ip6) {
    if (network.holds_v6(address)) return true;
  }
  return false;
}

// A stack without an address of its own has no way to anywhere.
bool Neighbours::routes_v6(const IpAddress& address) const noexcept {
  if (router_ != nullptr) return setup_.ip6[0].prefix != 0 && setup_.wire->leads_to(address);
  if (owns_v6(address)) return true;
  if (setup_.ip6[0].prefix == 0 || address.is_any() || (address.words_be[0] & 0xff) == 0xff) return false;
  const bool loopback = (address.words_be[0] | address.words_be[1] | address.words_be[2]) == 0 && address.words_be[3] == lwip_htonl(1);
  return !loopback && (on_link_v6(address) || setup_.gateway6 != IpAddress{});
}

// Of the rules of RFC 6724 those count that can differ here: 1 the same address, 2 appropriate scope, 3 deprecated ones, 8 longest matching
// prefix.
IpAddress Neighbours::source_for(const IpAddress& to) const noexcept {
  if (to.is_v4()) return IpAddress::v4(setup_.address_be);
  if (owns_v6(to)) return to;
  const bool group_of_link = !to.is_v4() && to.is_multicast() && (lwip_ntohl(to.words_be[0]) >> 16 & 0xf) <= 2;
  if (to.is_link_local() || group_of_link) return from_lwip(*netif_ip6_addr(&interface_, 0));
  if (setup_.ip6[1].prefix == 0) return setup_.ip6[0].address;  // no choice
  IpAddress best;
  int longest = -1;
  for (int i = 0; i < kMostIp6Addresses; i++) {
    const IpNetwork& own = setup_.ip6[i];
    if (own.prefix == 0) continue;
    const bool preferred = ip6_addr_ispreferred(netif_ip6_addr_state(&interface_, i + 1));
    int common = 0;
    for (int word = 0; word < 4; word++) {
      const uint32_t differ = lwip_ntohl(own.address.words_be[word] ^ to.words_be[word]);
      common += differ == 0 ? 32 : __builtin_clz(differ);
      if (differ != 0) break;
    }
    if (common > own.prefix) common = own.prefix;
    if (preferred) common += 128;  // 3: one that is not deprecated
    if (common > longest) longest = common, best = own.address;
  }
  return best;
}

void Neighbours::save_v6() noexcept {
  int count = 0;
  for (int i = 0; i < LWIP_ND6_NUM_NEIGHBORS; i++) {
    const nd6_neighbor_cache_entry& entry = neighbor_cache[i];
    if (entry.state == ND6_NO_ENTRY || entry.state == ND6_INCOMPLETE) continue;
    if (count == 0) saved_.count6 = 0;
    saved_.entries6[count].address = entry.next_hop_address;
    memcpy(saved_.entries6[count++].mac, entry.lladdr, ETH_HWADDR_LEN);
  }
  if (count > 0) saved_.count6 = count;
}

// They are as good as found some time ago: the first use has them asked again. A count that was being written may be anything.
void Neighbours::restore_v6() noexcept {
  const int count = saved_.count6 >= 0 && saved_.count6 <= LWIP_ND6_NUM_NEIGHBORS ? saved_.count6 : 0;
  for (int i = 0; i < count; i++) {
    nd6_neighbor_cache_entry& entry = neighbor_cache[i];
    entry = {};
    entry.next_hop_address = saved_.entries6[i].address;
    memcpy(entry.lladdr, saved_.entries6[i].mac, ETH_HWADDR_LEN);
    entry.netif = &interface_;
    entry.state = ND6_STALE;
  }
  saved_.count6 = 0;
}

}  // namespace netstack
