// Who is reached how: networks, the way to an address, the neighbour tables, and how they outlive lwIP.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "lwip/etharp.h"
#include "lwip/netif.h"
#include "netstack/lwip/stack_setup.h"

namespace netstack {

// A copy of lwIP's neighbour tables in the stack's region. Zeros are an empty one.
struct SavedNeighbours {
  struct {
    ip4_addr_t address;
    uint8_t mac[ETH_HWADDR_LEN];
  } entries[ARP_TABLE_SIZE];
  int count;
  struct {
    ip6_addr_t address;
    uint8_t mac[ETH_HWADDR_LEN];
  } entries6[LWIP_ND6_NUM_NEIGHBORS];
  int count6;
};

[[nodiscard]] inline uint32_t mask_be(int prefix) noexcept { return prefix == 0 ? 0 : __builtin_bswap32(~uint32_t{0} << (32 - prefix)); }

class Neighbours {
 public:
  Neighbours(netif& interface, const StackSetup& setup, SavedNeighbours& saved) noexcept
      : interface_(interface), setup_(setup), saved_(saved), router_(setup.wire->facts().shared ? setup.wire->facts().mac : nullptr) {}

  // The station of every packet, where the kernel at the other end keeps the neighbours (WireFacts::shared); else nullptr.
  [[nodiscard]] const uint8_t* router() const noexcept { return router_; }

  [[nodiscard]] bool owns(uint32_t address_be) const noexcept { return address_be == setup_.address_be && address_be != 0; }
  [[nodiscard]] bool owns(const IpAddress& address) const noexcept { return address.is_v4() ? owns(address.v4_be()) : owns_v6(address); }
  // Whether there is a way to this address (its networks, its default route).
  [[nodiscard]] bool routes(uint32_t address_be) const noexcept;
  [[nodiscard]] bool routes(const IpAddress& address) const noexcept {
    return address.is_v4() ? routes(address.v4_be()) : routes_v6(address);
  }
  // The stack's own address that packets to this one come from (RFC 6724, 5); zeros if there is none.
  [[nodiscard]] IpAddress source_for(const IpAddress& to) const noexcept;
  // Whether the address is on the link: in one of its networks.
  [[nodiscard]] bool on_link_v6(const IpAddress& address) const noexcept;
  // The neighbour that packets to this address go to.
  [[nodiscard]] uint32_t hop_to(uint32_t address_be) const noexcept { return near(address_be) ? address_be : setup_.gateway_be; }
  // Whether that one's hardware address is known.
  [[nodiscard]] bool knows_way_to(const IpAddress& address) noexcept;
  // The hardware address that packets to this one of IPv6 go to if it is known, which says that it is in use. `hint`: where it was found.
  [[nodiscard]] const uint8_t* station_v6(const IpAddress& address, uint8_t* hint) noexcept;
  // Asks for it. False if there was no room for the question.
  [[nodiscard]] bool ask_way_to(const IpAddress& address) noexcept;

  // Copies lwIP's table into the region, and has a new lwIP learn it. Between the two lwIP's memory may be put back to its first state:
  // without its neighbours a recovered stack would answer nobody before it had asked for all of them.
  void save() noexcept;
  void restore() noexcept;

 private:
  [[nodiscard]] bool owns_v6(const IpAddress& address) const noexcept;
  [[nodiscard]] bool routes_v6(const IpAddress& address) const noexcept;
  void save_v6() noexcept;
  void restore_v6() noexcept;
  [[nodiscard]] bool near(uint32_t address_be) const noexcept { return ((address_be ^ setup_.address_be) & mask_be(setup_.prefix)) == 0; }

  netif& interface_;
  const StackSetup& setup_;
  SavedNeighbours& saved_;
  const uint8_t* const router_;
};

}  // namespace netstack
