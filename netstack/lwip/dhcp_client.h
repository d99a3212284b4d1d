// The stack's IPv4 address, router and MTU by DHCP (RFC 2131), where the settings ask for that: lwIP's client, and what is around it.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP's client holds the dialogue; this gives it UDP's ports (lwIP's UDP is not built), time, and the option for the MTU. What it learns
// is kept in the stack's setup, as routers' advertisements are (autoconfiguration.h): a recovery begins with the address it finds there,
// and asks the server to confirm it (INIT-REBOOT). A gateway of the settings stays.
//
// An address that goes (the lease has ended, a server says no) ends no connection: as on an interface that Linux' dhclient takes the
// address from, nothing is sent from it or taken for it until it is back, and nothing has a way to anywhere.
//
// Times. lwIP counts leases in ticks of 16 bits, of a minute each, and rounds; here a tick is ten seconds (zps_hooks.h), a lease counts as
// the whole ticks in it, and one that is longer than the counter (a week) is renewed as if it were not.
//
// Who shares its hardware address with the kernel's interface (af_packet) shall not get the kernel's address: it says that it is another
// client (option 61). Everybody else is known by its hardware address alone, and gets the same address again.
#pragma once

#include <cstdint>

#include "lwip/dhcp.h"
#include "lwip/pbuf.h"
#include "lwip/prot/dhcp.h"
#include "netstack/lwip/clock.h"

namespace netstack {

class LwipCore;

class DhcpClient {
 public:
  explicit DhcpClient(LwipCore& core) noexcept : core_(core) {}

  // Asks for an address. Once, and again after a recovery.
  void start() noexcept;
  void run_due() noexcept {
    if (next_ns_ <= now_ns()) [[unlikely]]
      run();
  }
  [[nodiscard]] uint64_t next_ns() const noexcept { return next_ns_; }

  // Whether datagrams to a client's port are for it; and one of them, without its header.
  [[nodiscard]] bool on() const noexcept { return on_; }
  void input(pbuf* p) noexcept;

  // What lwIP calls.
  void assign(uint32_t address_be, uint32_t mask_be, uint32_t gateway_be) noexcept;
  void append_options(dhcp_msg& message, uint8_t type, uint16_t* length) noexcept;
  void take_option(uint8_t option, uint8_t bytes, const pbuf* p, uint16_t offset) noexcept;
  void set_receiver(udp_recv_fn receive) noexcept { receive_ = receive; }

 private:
  [[nodiscard]] uint64_t now_ns() const noexcept;
  void run() noexcept;
  void plan() noexcept;
  void ask_again() noexcept;
  [[nodiscard]] uint16_t ticks_to_next() const noexcept;
  void fit_lease() noexcept;

  LwipCore& core_;
  dhcp client_;
  udp_recv_fn receive_ = nullptr;
  bool on_ = false, begun_ = false, router_is_set_ = false, has_id_ = false;
  uint32_t id_[2];  // of has_id_
  uint16_t offered_mtu_ = 0;
  uint64_t next_ns_ = Clock::kNever;
  uint64_t fine_ns_ = Clock::kNever;  // when the next half second of a question is over
  uint64_t ticked_ns_ = 0;            // when the last tick of the lease was
};

}  // namespace netstack
