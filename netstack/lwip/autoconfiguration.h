// Addresses and the default router of IPv6 as routers advertise them (RFC 4861, 4862), where the settings ask for that.
// SPDX-License-Identifier: BSD-3-Clause
//
// What is learnt is kept in the stack's setup beside what the settings say: routing, source addresses and a recovery take both from there.
// Settings are never changed: an address that was given stays, and a gateway that was given is the only one.
//
// An address is made of an advertised prefix of 64 bits and the interface's identifier (EUI-64), and is nobody's for the second in which
// others may object (5.4). Its last bits are those of the link-local address, so both are asked about by the same group, which the
// interface listens to. Who objects is believed: the address is not used.
//
// Advertisements are heeded from who can be a router of this link (RFC 4861, 6.1.2): a link-local source whose packets no router has
// forwarded. Of several routers the first is used until its lifetime ends. Not heeded: hop limits and timers, routes (RFC 4191), names
// (RFC 8106, the resolver's).
#pragma once

#include <cstdint>

#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "netstack/lwip/clock.h"
#include "netstack/socket_address.h"

namespace netstack {

class LwipCore;

class Autoconfiguration {
 public:
  explicit Autoconfiguration(LwipCore& core) noexcept : core_(core) {}

  // Asks for routers. Once, and again after a recovery.
  void start() noexcept;
  void run_due() noexcept {
    if (next_ns_ <= now_ns()) [[unlikely]]
      run();
  }
  [[nodiscard]] uint64_t next_ns() const noexcept { return next_ns_; }
  // An advertisement that was found to be of this link. The packet stays the caller's.
  void advertised(const pbuf& p, const IpAddress& router) noexcept;
  // Somebody else has, or wants, this address.
  void objected(const IpAddress& address) noexcept;

 private:
  struct Learnt {
    IpAddress address;  // zeros: none
    bool on_link = false, tentative = false;
    uint64_t valid_until_ns = 0, preferred_until_ns = 0, ours_at_ns = 0;
  };
  struct Prefix;

  [[nodiscard]] uint64_t now_ns() const noexcept;
  void run() noexcept;
  void plan() noexcept;
  void heed(const Prefix& prefix) noexcept;
  void heed_mtu(uint32_t mtu) noexcept;
  void heed_router(const IpAddress& router, uint32_t lifetime_s) noexcept;
  [[nodiscard]] Learnt* place_for(const IpAddress& address) noexcept;
  // The addresses that are used now, behind those of the settings.
  void publish() noexcept;
  void solicit_routers() noexcept;
  void ask_who_has(const IpAddress& address) noexcept;
  void send(const IpAddress& from, const IpAddress& to, const uint8_t* message, uint16_t bytes) noexcept;

  LwipCore& core_;
  bool on_ = false, begun_ = false, router_is_set_ = false;
  int set_ = 0;  // addresses of the settings
  int solicitations_ = 0;
  uint64_t next_ns_ = Clock::kNever, solicit_ns_ = Clock::kNever, router_until_ns_ = Clock::kNever;
  Learnt learnt_[kMostIp6Addresses];
};

}  // namespace netstack
