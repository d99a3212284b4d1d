// Which groups an endpoint has joined, and from whom it wants what is sent to them.
// SPDX-License-Identifier: BSD-3-Clause
//
// A membership lies in the stack's region and survives a recovery, as the endpoint does; the interface's groups are made anew from all of
// them. What the kernel checks in ip_mc_source(), ip_mc_msfilter() and ip_mc_sf_allow(), and IPv6's of the same, is checked here.
#pragma once

#include "netstack/lwip/groups.h"
#include "netstack/lwip/slab.h"
#include "netstack/udp_endpoint.h"

namespace netstack {

class LwipUdpEndpoint;

struct Membership {
  static constexpr int kMostSources = 64;  // net.ipv6.mld_max_msf

  LwipUdpEndpoint* owner;
  Membership* next = nullptr;
  IpAddress group;
  bool exclude = true;
  int count = 0;
  IpAddress sources[kMostSources];

  Membership(LwipUdpEndpoint& whose, const IpAddress& which) noexcept : owner(&whose), group(which) {}
  [[nodiscard]] int index_of(const IpAddress& source) const noexcept;
  [[nodiscard]] bool lets_through(const IpAddress& source) const noexcept { return (index_of(source) >= 0) != exclude; }
};

class Memberships {
 public:
  static constexpr int kMostMemberships = 2048;
  using Table = Slab<Membership, kMostMemberships>;

  Memberships(Groups& groups, Table& table) noexcept : groups_(groups), table_(table) {}

  // For UdpEndpoint::change_group(); `list`: the endpoint's.
  [[nodiscard]] long change(LwipUdpEndpoint& endpoint, Membership** list, const GroupChange& change) noexcept;
  void leave_all(Membership** list) noexcept;
  // After a member died inside the lock, with the endpoints whole again. `link(endpoint)`: where a used one's list begins, nullptr if it is
  // none.
  template <class Link>
  void rebuild(Link link) noexcept {
    table_.rebuild();
    table_.for_each([&](Membership& each) {
      Membership** const list = link(each.owner);
      if (list == nullptr || each.count < 0 || each.count > Membership::kMostSources) return table_.free(&each);
      each.next = *list;
      *list = &each;
    });
    table_.for_each([&](Membership& each) { (void)tell(each.group); });
  }

 private:
  [[nodiscard]] long join(LwipUdpEndpoint& endpoint, Membership** list, const IpAddress& group, bool exclude) noexcept;
  void leave(Membership** link) noexcept;
  [[nodiscard]] static long change_source(Membership& membership, const IpAddress& source, bool exclude, bool adds) noexcept;
  [[nodiscard]] long set_filter(Membership** link, const GroupChange& change) noexcept;
  [[nodiscard]] bool tell(const IpAddress& group) noexcept;

  Groups& groups_;
  Table& table_;
};

}  // namespace netstack
