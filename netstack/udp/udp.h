// UDP on a stack: what comes in, whom it is for, who may have which port.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP calls udp_input() for each datagram; its own file of that name is not built, and udp_hooks.cc leads here. So does what it would do
// with ICMP's reports about datagrams, which is nothing.
//
// The parts: UdpDemux (whose is it), DatagramQueue (what waits to be read), UdpOutput (how one is sent), LwipUdpEndpoint (what a user
// sees).
#pragma once

#include <cstdint>

#include "netstack/lwip/lwip_core.h"
#include "netstack/lwip/slab.h"
#include "netstack/udp/busy_readers.h"
#include "netstack/udp/lwip_udp_endpoint.h"
#include "netstack/udp/udp_demux.h"
#include "netstack/udp/udp_output.h"

namespace netstack {

// What UDP keeps in the stack's region. Zeros are an empty one; it survives recovery.
struct UdpTables {
  static constexpr int kMaxEndpoints = 65536;

  alignas(64) UdpDemux demux;
  alignas(64) Slab<LwipUdpEndpoint, kMaxEndpoints> endpoints;
  alignas(64) Memberships::Table memberships;
};

class Udp {
 public:
  Udp(LwipCore& core, UdpTables& tables) noexcept;

  // A turn: before the wire is asked, after it was, and when this protocol wants the next one.
  void begin_turn() noexcept { output_.begin_turn(); }
  void run_due() noexcept {
    if (room_awaited_) [[unlikely]] tell_writers();
  }
  [[nodiscard]] uint64_t next_timer_ns() const noexcept;

  // lwIP's hooks. They take the pbuf.
  void input(pbuf* p, const netif& interface) noexcept;
  // An ICMP message has come. False if it is not about a datagram of ours, and then it is left alone.
  [[nodiscard]] bool icmp_input(pbuf* p, const netif& interface) noexcept;
  [[nodiscard]] bool icmp6_input(pbuf* p, const netif& interface) noexcept;

  // Endpoints.
  [[nodiscard]] LwipUdpEndpoint* make_endpoint() noexcept { return tables_.endpoints.make(*this); }
  void free_endpoint(LwipUdpEndpoint& endpoint) noexcept { tables_.endpoints.free(&endpoint); }
  [[nodiscard]] int endpoints() const noexcept { return tables_.endpoints.used(); }
  // Whether a socket may have what it asks for; chooses a port for port 0. 0, -EADDRNOTAVAIL or -EADDRINUSE.
  [[nodiscard]] long find_port(const PortRequest& request, SocketAddress* local) noexcept;

  // For endpoints.
  [[nodiscard]] LwipCore& core() noexcept { return core_; }
  [[nodiscard]] UdpDemux& demux() noexcept { return tables_.demux; }
  [[nodiscard]] UdpOutput& output() noexcept { return output_; }
  [[nodiscard]] Memberships& memberships() noexcept { return memberships_; }
  void data_received() noexcept { output_.answer_is_due(); }
  [[nodiscard]] BusyReaders& readers() noexcept { return readers_; }
  void await_room() noexcept { room_awaited_ = true; }
  [[nodiscard]] bool is_broadcast(const SocketAddress& address) const noexcept;
  [[nodiscard]] bool has_way_to(const SocketAddress& address) const noexcept;
  [[nodiscard]] uint16_t wires_mtu() const noexcept {
    return core_.interface().mtu < core_.frame_mtu() ? core_.interface().mtu : core_.frame_mtu();
  }
  [[nodiscard]] uint16_t path_mtu(const IpAddress& to) const noexcept {
    const uint32_t wires = wires_mtu(), advertised = core_.interface().mtu6;  // what a router has said of the link
    return static_cast<uint16_t>(core_.path_mtus.of(to, !to.is_v4() && advertised < wires ? advertised : wires, core_.clock.now_ns()));
  }

  // After a member died inside the lock.
  void forget_holders() noexcept;
  [[nodiscard]] bool hold(LwipUdpEndpoint* endpoint) noexcept;
  void reset() noexcept;
  void rejoin() noexcept;
  void tell_what_is_lost() noexcept;

 private:
  void deliver_to_all(const SocketAddress& local, const SocketAddress& peer, pbuf* p, uint32_t ip_header_bytes) noexcept;
  void answer_unreachable(pbuf* p, uint32_t ip_header_bytes) noexcept;
  [[nodiscard]] bool conflict(const SocketAddress& local, const PortRequest& request) const noexcept;
  [[nodiscard]] uint16_t choose(uint32_t range) noexcept;
  void tell_writers() noexcept;

  LwipCore& core_;
  UdpTables& tables_;
  UdpOutput output_;
  Memberships memberships_;
  BusyReaders readers_;
  bool room_awaited_ = false;
  uint64_t unreachables_from_ns_ = 0;  // the allowance is counted from here
};

// The UDP of this copy of the image. Lies in the image's data: whoever puts that back to its first state sets it again.
extern Udp* the_udp;

}  // namespace netstack
