// lwIP on one wire, and what every protocol on it needs: interface, clock, memory, neighbours, frames in and out.
// SPDX-License-Identifier: BSD-3-Clause
//
// One copy of the image holds one lwIP; its callbacks and the platform's functions find the rest through `the_core`. Protocols (TCP, in
// tcp/) are built on this and known here only as Protocol; the stack's top composes both and drives them, turn by turn.
#pragma once

#include <cstdint>

#include "lwip/netif.h"
#include "netstack/lwip/autoconfiguration.h"
#include "netstack/lwip/clock.h"
#include "netstack/lwip/dhcp_client.h"
#include "netstack/lwip/frame_input.h"
#include "netstack/lwip/frame_output.h"
#include "netstack/lwip/groups.h"
#include "netstack/lwip/link_timers.h"
#include "netstack/lwip/memory_budget.h"
#include "netstack/lwip/neighbours.h"
#include "netstack/lwip/path_mtus.h"
#include "netstack/lwip/stack_setup.h"
#include "netstack/wire.h"

namespace netstack {

class LwipCore {
 public:
  LwipCore(const StackSetup& setup, SavedNeighbours& saved) noexcept;

  // Starts lwIP and brings the interface up. Once, and again after reset().
  void start() noexcept;
  // After a member died inside the lock: the image's data is as it was before lwIP ran, and the arena is empty.
  void reset() noexcept;

  // A turn (one poll()) begins and ends.
  void begin_turn(uint64_t now_ns) noexcept {
    in_turn_ = output.may_defer = true;
    clock.set(now_ns);
  }
  void end_turn() noexcept { in_turn_ = false; }
  [[nodiscard]] bool in_turn() const noexcept { return in_turn_; }
  // When the core itself wants a turn.
  [[nodiscard]] uint64_t next_timer_ns() const noexcept;

  [[nodiscard]] const StackSetup& setup() const noexcept { return setup_; }
  [[nodiscard]] base::Heap& arena() noexcept { return *setup_.arena; }
  [[nodiscard]] Wire& wire() noexcept { return *setup_.wire; }
  [[nodiscard]] const WireFacts& facts() const noexcept { return facts_; }
  [[nodiscard]] netif& interface() noexcept { return interface_; }
  [[nodiscard]] const netif& interface() const noexcept { return interface_; }
  [[nodiscard]] bool tcp_checksum_offload() const noexcept { return tcp_checksum_offload_; }
  // To send one: where it goes to a kernel, which can be given many at once.
  [[nodiscard]] bool frames_cost_a_call() const noexcept { return tcp_checksum_offload_ && !facts_.memory; }
  // lwIP's flags of the checksums to look at in a frame that nobody has verified.
  [[nodiscard]] u16_t checks_of_unverified() const noexcept { return checks_of_unverified_; }
  // IP bytes in a frame that comes, if that may be more than in one that goes; else 0.
  [[nodiscard]] uint32_t gro_max_size() const noexcept { return facts_.gro_max_size; }
  // IP bytes in a TCP segment that is sent, if that may be more than in a frame, else 0; and in a frame.
  [[nodiscard]] uint32_t gso_max_size() const noexcept { return facts_.gso_max_size; }
  [[nodiscard]] uint16_t frame_mtu() const noexcept { return facts_.mtu; }
  // After another peer has come, or the one that was there has gone. The second: in the middle of a turn, before what came is looked at.
  void follow_wire() noexcept;
  void follow_new_peer() noexcept {
    if (peers_followed_ != facts_.peers) [[unlikely]] follow_wire();
  }
  // What routers advertise: an address of the stack's, or none (prefix 0), and the default router.
  void set_address6(int index, const IpNetwork& own, bool deprecated) noexcept;
  void set_gateway6(const IpAddress& router) noexcept;
  // What a server of DHCP gives: an address, or none (0), a default router, and what the link takes.
  void set_address4(uint32_t address_be, uint8_t prefix, uint32_t gateway_be) noexcept;
  void set_mtu(uint16_t mtu) noexcept;
  [[nodiscard]] uint32_t random() noexcept;
  // TCP over IPv6 needs its checksum from us, though lwIP leaves it out.
  [[nodiscard]] bool fills_tcp6_checksums() const noexcept { return tcp_checksum_offload_; }
  // Whether another ICMPv6 error may be sent now.
  [[nodiscard]] bool may_send_error() noexcept;
  [[nodiscard]] uint64_t count_assertion() noexcept { return ++assertions_; }

 private:
  void set_checksums(netif* interface) noexcept;
  static err_t init_interface(netif* interface) noexcept;

  StackSetup setup_;
  const WireFacts& facts_;
  const bool tcp_checksum_offload_;
  u16_t checks_of_unverified_ = 0;
  uint32_t peers_followed_ = 0;
  bool in_turn_ = false;

 public:
  Clock clock;
  MemoryBudget memory;
  LinkTimers link_timers;
  FrameInput input;
  FrameOutput output;
  Neighbours neighbours;
  Groups groups;
  PathMtus path_mtus;
  Autoconfiguration autoconfiguration;
  DhcpClient dhcp;

 private:
  uint64_t random_state_[2];
  uint64_t assertions_ = 0;
  uint64_t errors_turn_ns_ = 0;  // when errors were last counted anew
  uint32_t errors_ = 0;
  netif interface_;
};

// The core of this copy of the image. Lies in the image's data: whoever puts that back to its first state sets it again.
extern LwipCore* the_core;

}  // namespace netstack
