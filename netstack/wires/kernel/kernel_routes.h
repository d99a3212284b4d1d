// What the kernel knows of an interface's addresses and of the ways to others, as far as a stack that shares them needs it.
// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel decides by rules, tables and prefixes. Of these the three tables that every host has are followed: local, main, default, in
// this order, in each the longest prefix, of equal ones the one with the least metric. Known limits: other tables and rules; more routes
// than there is room for, then only what the interface's own networks hold is the stack's to send to.
//
// It lies in memory that the family shares and is read and written with the stack's lock held. A member that dies while it reads the
// kernel's tables leaves fewer routes behind: what they do not say is the kernel's, until the next change.
#pragma once

#include <cstdint>

#include "netstack/socket_address.h"
#include "netstack/wires/kernel/rtnetlink.h"

namespace netstack {

class KernelRoutes {
 public:
  // Of the calling thread's network namespace. 0 or a negative errno. `more_groups` (RTMGRP_): of what else changes_fd() tells.
  [[nodiscard]] long open(int interface, uint32_t more_groups = 0) noexcept;
  void close() noexcept;
  // Reads all of it. 0 or a negative errno.
  [[nodiscard]] long read() noexcept;
  // Readable when something has changed; then take_changes() empties it.
  [[nodiscard]] int changes_fd() const noexcept { return changes_; }
  // True: read() is due. What is about neighbours goes to `others`; NLMSG_OVERRUN if some of it was lost.
  [[nodiscard]] bool take_changes(NetlinkVisit others, void* context) const noexcept;

  // Whether the kernel would send to `address` by the interface.
  [[nodiscard]] bool lead_to(const IpAddress& address) const noexcept;
  // Whom a packet to `address` is sent to on the link: a router, or `address` itself. Zeros if it does not go by the interface.
  [[nodiscard]] IpAddress next_hop(const IpAddress& address) const noexcept;
  // The interface's IPv4 address with its prefix: `wanted_be` if it has that, else its first; 0 if it has none.
  [[nodiscard]] IpNetwork address(uint32_t wanted_be) const noexcept;
  // Its first IPv6 addresses that reach beyond the link, kMostIp6Addresses at most; what is left over is none.
  void addresses6(IpNetwork* out) const noexcept;
  [[nodiscard]] uint32_t mtu() const noexcept { return mtu_; }
  // The interface's hardware address, of six bytes.
  [[nodiscard]] const uint8_t* mac() const noexcept { return mac_; }
  [[nodiscard]] bool is_there() const noexcept { return there_; }
  [[nodiscard]] bool is_up() const noexcept { return up_; }
  [[nodiscard]] int requests_fd() const noexcept { return requests_; }
  [[nodiscard]] int interface() const noexcept { return interface_; }

 private:
  static constexpr int kMostRoutes = 512, kMostAddresses = 16;
  static constexpr uint8_t kMapped = 96;  // where the prefix of a v4-mapped one begins

  struct Route {
    IpAddress network;
    uint8_t prefix;  // of 128 bits
    uint8_t table;   // the order in which they are asked
    bool leads_here;
    uint32_t metric;
    IpAddress gateway;  // zeros: none
    [[nodiscard]] bool goes_before(const Route& other) const noexcept;
  };

  static void take_link(void* self, const nlmsghdr& message) noexcept;
  static void take_address(void* self, const nlmsghdr& message) noexcept;
  static void take_route(void* self, const nlmsghdr& message) noexcept;
  void add(const Route& route) noexcept;
  [[nodiscard]] const Route* route_to(const IpAddress& address) const noexcept;
  [[nodiscard]] bool is_on_link(const IpAddress& address) const noexcept;

  int interface_;
  uint32_t mtu_ = 0;
  uint8_t mac_[6] = {};
  int requests_ = -1, changes_ = -1;
  int route_count_, address_count_;
  bool overflowed_, there_, up_;
  Route routes_[kMostRoutes];
  IpNetwork addresses_[kMostAddresses];
};

// The index of the interface that the default route leads to, or 0.
[[nodiscard]] int default_interface() noexcept;

}  // namespace netstack
