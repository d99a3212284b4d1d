// Which station a packet is sent to, by the kernel's routes and its neighbour table.
// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel resolves, the stack looks: answers to a question of the stack's own (ARP, neighbour discovery) would come to the kernel, which
// has the address, and it does not heed what it has not asked for. Its table is read once and then followed (RTMGRP_NEIGH). It is asked to
// find out (NTF_USE) what it does not know, and what it has not confirmed for some time (NUD_STALE), as it does for its own packets: a
// neighbour that has moved is found again. Nobody is asked for more than once a second. A process that has given its rights up cannot
// ask that way: it sends the neighbour an empty datagram to the discard port, and the kernel has to find it before that.
//
// It lies in memory that the family shares and is used with the stack's lock held. What a member that dies in here leaves half written is
// an entry that another message about the neighbour mends.
#pragma once

#include <cstdint>

#include "netstack/socket_address.h"
#include "netstack/wires/kernel/kernel_routes.h"

namespace netstack {

class NextHops {
 public:
  // Of the interface whose routes these are; they were opened with kNeighbourGroup. 0 or a negative errno.
  [[nodiscard]] long open(const KernelRoutes& routes) noexcept;
  static constexpr uint32_t kNeighbourGroup = 1 << 2;  // RTMGRP_NEIGH

  enum class Way : uint8_t { known, awaited, none };
  // The way to `address`; if it is known *station is the hardware address. It is being found out if it is awaited.
  [[nodiscard]] Way to(const IpAddress& address, const uint8_t** station) noexcept;

  // What take_changes() of the routes passes on; `self` is one of these.
  static void take_message(void* self, const nlmsghdr& message) noexcept;
  // The routes are others.
  void forget_ways() noexcept { age_++; }
  // Messages were lost.
  [[nodiscard]] bool is_behind() const noexcept { return behind_; }
  void read() noexcept;

 private:
  enum State : uint8_t { unknown, failed, stale, confirmed };
  static constexpr int kMost = 1024;  // neighbours, as the kernel has by default (gc_thresh3)
  static constexpr int kWays = 256;

  struct Neighbour {
    IpAddress address;
    uint64_t asked_ns;
    uint8_t mac[6];
    State state;
    bool used;
  };
  struct CachedWay {
    IpAddress address;
    uint32_t age;  // 0: empty
    uint16_t neighbour;
  };

  static void take_dumped(void* self, const nlmsghdr& message) noexcept;
  [[nodiscard]] Neighbour* find(const IpAddress& address) noexcept;
  [[nodiscard]] Neighbour* neighbour_for(const IpAddress& address) noexcept;
  void clear() noexcept;
  void ask(Neighbour& neighbour) noexcept;
  [[nodiscard]] long exchange(const Neighbour& neighbour, uint16_t type, uint16_t flags, uint8_t use) noexcept;

  const KernelRoutes* routes_;
  int asking_ = -1, nudging_[2] = {-1, -1};
  uint32_t age_ = 1;
  int count_ = 0;
  bool behind_ = false;
  Neighbour neighbours_[kMost];
  CachedWay ways_[kWays];
};

}  // namespace netstack
