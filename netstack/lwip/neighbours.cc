// Routing by one network and one gateway; the neighbour table saved and restored.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/neighbours.h"

#include <cstring>

#include "lwip/prot/etharp.h"
#include "lwip/prot/iana.h"

namespace netstack {

bool Neighbours::routes(uint32_t address_be) const noexcept {
  if (owns(address_be)) return true;
  if (address_be == 0 || address_be == ~uint32_t{0} || (address_be & 0xff) == 127) return false;
  return near(address_be) || setup_.gateway_be != 0;
}

bool Neighbours::knows_way_to(uint32_t address_be) noexcept {
  if (owns(address_be)) return true;
  const ip4_addr_t hop{hop_to(address_be)};
  eth_addr* mac;
  const ip4_addr_t* found;
  return etharp_find_addr(&interface_, &hop, &mac, &found) >= 0;
}

bool Neighbours::ask_way_to(uint32_t address_be) noexcept {
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
}

}  // namespace netstack
