// Reads addresses and routes by rtnetlink.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/kernel_routes.h"

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <linux/if_addr.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/kernel/netlink_attributes.h"
#include "netstack/wires/kernel/rtnetlink.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kMostTries = 8;  // of a dump that changes meanwhile
constexpr uint32_t kChanges = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE;

using RouteAttributes = Attributes<RTA_VIA + 1>;

uint8_t order_of(uint32_t table) noexcept {
  switch (table) {
    case RT_TABLE_LOCAL: return 0;
    case RT_TABLE_MAIN: return 1;
    case RT_TABLE_DEFAULT: return 2;
    default: return UINT8_MAX;
  }
}

// The one interface that a route leads to, or 0: none, or several.
int interface_of(const RouteAttributes& attributes) noexcept {
  if (const rtattr* const several = attributes.at[RTA_MULTIPATH]; several != nullptr) {
    const auto* hop = static_cast<const rtnexthop*>(RTA_DATA(several));
    const int first = hop->rtnh_ifindex;
    for (int left = static_cast<int>(RTA_PAYLOAD(several)); RTNH_OK(hop, left); left -= hop->rtnh_len, hop = RTNH_NEXT(hop)) {
      if (hop->rtnh_ifindex != first) return 0;
    }
    return first;
  }
  return static_cast<int>(attributes.number(RTA_OIF, 0));
}

// The router that a route names; zeros: none, the packets' own destinations are on the link. Of several the first.
IpAddress gateway_of(const RouteAttributes& attributes, int family) noexcept {
  if (const rtattr* const several = attributes.at[RTA_MULTIPATH]; several != nullptr) {
    const auto* const hop = static_cast<const rtnexthop*>(RTA_DATA(several));
    return gateway_of(RouteAttributes(RTNH_DATA(hop), hop->rtnh_len - static_cast<size_t>(RTNH_LENGTH(0))), family);
  }
  if (const rtattr* const via = attributes.at[RTA_VIA]; via != nullptr) {
    const auto& other = *static_cast<const rtvia*>(RTA_DATA(via));
    IpAddress value{};
    if (other.rtvia_family == AF_INET6) memcpy(value.words_be, other.rtvia_addr, sizeof value.words_be);
    return value;
  }
  return attributes.at[RTA_GATEWAY] != nullptr ? attributes.address(RTA_GATEWAY, family) : IpAddress{};
}

bool same_bits(const IpAddress& one, const IpAddress& other, int bits) noexcept {
  for (int word = 0; word < 4 && bits > 0; word++, bits -= 32) {
    const uint32_t mask = bits >= 32 ? ~uint32_t{0} : __builtin_bswap32(~uint32_t{0} << (32 - bits));
    if (((one.words_be[word] ^ other.words_be[word]) & mask) != 0) return false;
  }
  return true;
}

}  // namespace

bool KernelRoutes::Route::goes_before(const Route& other) const noexcept {
  if (table != other.table) return table < other.table;
  if (prefix != other.prefix) return prefix > other.prefix;
  return metric < other.metric;
}

void KernelRoutes::add(const Route& route) noexcept {
  overflowed_ = overflowed_ || route_count_ == kMostRoutes;
  if (overflowed_) return;
  int at = route_count_;
  for (; at > 0 && route.goes_before(routes_[at - 1]); at--) routes_[at] = routes_[at - 1];
  routes_[at] = route;
  route_count_++;
}

void KernelRoutes::take_route(void* self, const nlmsghdr& message) noexcept {
  auto& routes = *static_cast<KernelRoutes*>(self);
  if (message.nlmsg_type != RTM_NEWROUTE) return;
  const auto& fixed = *static_cast<const rtmsg*>(NLMSG_DATA(&message));
  const RouteAttributes attributes(message, sizeof fixed);
  const uint8_t table = order_of(attributes.number(RTA_TABLE, fixed.rtm_table));
  if (table == UINT8_MAX || (fixed.rtm_flags & RTM_F_CLONED) != 0) return;
  const bool leads_here = fixed.rtm_type == RTN_UNICAST && interface_of(attributes) == routes.interface_;
  const int base = fixed.rtm_family == AF_INET ? kMapped : 0;
  routes.add({attributes.address(RTA_DST, fixed.rtm_family), static_cast<uint8_t>(base + fixed.rtm_dst_len), table, leads_here,
              attributes.number(RTA_PRIORITY, 0), gateway_of(attributes, fixed.rtm_family)});
}

void KernelRoutes::take_address(void* self, const nlmsghdr& message) noexcept {
  auto& routes = *static_cast<KernelRoutes*>(self);
  if (message.nlmsg_type != RTM_NEWADDR || routes.address_count_ == kMostAddresses) return;
  const auto& fixed = *static_cast<const ifaddrmsg*>(NLMSG_DATA(&message));
  constexpr uint8_t kNotYet = IFA_F_TENTATIVE | IFA_F_DADFAILED;
  if (static_cast<int>(fixed.ifa_index) != routes.interface_) return;
  if (fixed.ifa_family == AF_INET6 && ((fixed.ifa_flags & kNotYet) != 0 || fixed.ifa_scope != RT_SCOPE_UNIVERSE)) return;
  const Attributes<IFA_LOCAL + 1> attributes(message, sizeof fixed);
  const int which = attributes.at[IFA_LOCAL] != nullptr ? IFA_LOCAL : IFA_ADDRESS;
  routes.addresses_[routes.address_count_++] = {attributes.address(which, fixed.ifa_family), fixed.ifa_prefixlen};
}

void KernelRoutes::take_link(void* self, const nlmsghdr& message) noexcept {
  auto& routes = *static_cast<KernelRoutes*>(self);
  const auto& fixed = *static_cast<const ifinfomsg*>(NLMSG_DATA(&message));
  if (message.nlmsg_type != RTM_NEWLINK || fixed.ifi_index != routes.interface_) return;
  const Attributes<IFLA_MTU + 1> attributes(message, sizeof fixed);
  const rtattr* const mac = attributes.at[IFLA_ADDRESS];
  if (mac != nullptr && RTA_PAYLOAD(mac) >= sizeof routes.mac_) memcpy(routes.mac_, RTA_DATA(mac), sizeof routes.mac_);
  routes.mtu_ = attributes.number(IFLA_MTU, 0);
  routes.there_ = true;
  routes.up_ = (fixed.ifi_flags & IFF_UP) != 0;
}

long KernelRoutes::open(int interface, uint32_t more_groups) noexcept {
  interface_ = interface;
  requests_ = open_rtnetlink(0);
  changes_ = open_rtnetlink(kChanges | more_groups);
  if (requests_ >= 0 && changes_ >= 0) return read();
  const long error = requests_ < 0 ? requests_ : changes_;
  close();
  return error;
}

void KernelRoutes::close() noexcept {
  for (int* const fd : {&requests_, &changes_}) {
    if (*fd >= 0) (void)base::close_high_fd(*fd);
    *fd = -1;
  }
}

long KernelRoutes::read() noexcept {
  long error = -EAGAIN;
  for (int i = 0; i < kMostTries && error == -EAGAIN; i++) {
    address_count_ = route_count_ = 0;
    overflowed_ = there_ = up_ = false;
    error = dump_rtnetlink(requests_, RTM_GETLINK, AF_UNSPEC, take_link, this);
    for (const uint8_t family : {AF_INET, AF_INET6}) {
      if (error == 0) error = dump_rtnetlink(requests_, RTM_GETADDR, family, take_address, this);
      if (error == 0) error = dump_rtnetlink(requests_, RTM_GETROUTE, family, take_route, this);
      overflowed_ = overflowed_ || error == -EMSGSIZE;
      if (error == -EMSGSIZE) error = 0;
    }
  }
  return error;
}

bool KernelRoutes::take_changes(NetlinkVisit others, void* context) const noexcept {
  alignas(nlmsghdr) char messages[8192];
  bool changed = false;
  while (true) {
    long left = kernel_call(SYS_recvfrom, changes_, as_arg(messages), sizeof messages, MSG_DONTWAIT | MSG_TRUNC, 0, 0);
    if (left == -ENOBUFS || left > static_cast<long>(sizeof messages)) {
      changed = true;
      if (others != nullptr) others(context, nlmsghdr{sizeof(nlmsghdr), NLMSG_OVERRUN, 0, 0, 0});
      continue;
    }
    if (left < 0) return changed;
    for (auto* at = reinterpret_cast<const nlmsghdr*>(messages); NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
      const bool neighbour = at->nlmsg_type == RTM_NEWNEIGH || at->nlmsg_type == RTM_DELNEIGH;
      if (neighbour && others != nullptr) others(context, *at);
      changed = changed || !neighbour;
    }
  }
}

const KernelRoutes::Route* KernelRoutes::route_to(const IpAddress& address) const noexcept {
  for (int i = 0; i < route_count_; i++) {
    const Route& route = routes_[i];
    if (route.network.is_v4() == address.is_v4() && same_bits(route.network, address, route.prefix)) return &route;
  }
  return nullptr;
}

bool KernelRoutes::is_on_link(const IpAddress& address) const noexcept {
  for (int i = 0; i < address_count_; i++) {
    const IpNetwork& own = addresses_[i];
    if (own.address == address) return false;
    const int base = own.address.is_v4() ? kMapped : 0;
    if (own.address.is_v4() == address.is_v4() && same_bits(own.address, address, base + own.prefix)) return true;
  }
  return false;
}

bool KernelRoutes::lead_to(const IpAddress& address) const noexcept {
  if (address.is_any() || address.is_multicast() || address.is_link_local()) return false;
  if (overflowed_) return is_on_link(address);
  const Route* const route = route_to(address);
  return route != nullptr && route->leads_here;
}

IpAddress KernelRoutes::next_hop(const IpAddress& address) const noexcept {
  if (!lead_to(address)) return {};
  const Route* const route = overflowed_ ? nullptr : route_to(address);
  return route == nullptr || route->gateway == IpAddress{} ? address : route->gateway;
}

IpNetwork KernelRoutes::address(uint32_t wanted_be) const noexcept {
  const IpNetwork* found = nullptr;
  for (int i = 0; i < address_count_; i++) {
    const IpNetwork& own = addresses_[i];
    if (!own.address.is_v4()) continue;
    if (own.address.v4_be() == wanted_be) return own;
    if (found == nullptr) found = &own;
  }
  return found != nullptr ? *found : IpNetwork{};
}

void KernelRoutes::addresses6(IpNetwork* out) const noexcept {
  int count = 0;
  for (int i = 0; i < address_count_ && count < kMostIp6Addresses; i++) {
    if (!addresses_[i].address.is_v4()) out[count++] = addresses_[i];
  }
}

int default_interface() noexcept {
  struct Best {
    int interface = 0;
    uint32_t metric = UINT32_MAX;
  } best;
  const auto visit = [](void* context, const nlmsghdr& message) noexcept {
    const auto& fixed = *static_cast<const rtmsg*>(NLMSG_DATA(&message));
    if (message.nlmsg_type != RTM_NEWROUTE || fixed.rtm_dst_len != 0 || fixed.rtm_type != RTN_UNICAST) return;
    const RouteAttributes attributes(message, sizeof fixed);
    auto& found = *static_cast<Best*>(context);
    const uint32_t metric = attributes.number(RTA_PRIORITY, 0);
    const int interface = interface_of(attributes);
    if (order_of(attributes.number(RTA_TABLE, fixed.rtm_table)) != 1 || interface == 0 || metric >= found.metric) return;
    found = {interface, metric};
  };
  const int fd = open_rtnetlink(0);
  if (fd < 0) return 0;
  const long error = dump_rtnetlink(fd, RTM_GETROUTE, AF_INET, visit, &best);
  (void)base::close_high_fd(fd);
  return error == 0 ? best.interface : 0;
}

}  // namespace netstack
