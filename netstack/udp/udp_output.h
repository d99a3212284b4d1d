// How a datagram is sent, and when it leaves.
// SPDX-License-Identifier: BSD-3-Clause
//
// A datagram leaves at once, as on Linux, with one exception: while a program answers what the last turn brought, its answers leave
// together when the last of them is there, or some dozens are (Linux: sk_buff xmit_more). One that does not answer all has the rest sent in
// its next wait, as everything that lies with the wire.
//
// What fits a frame and goes to a neighbour whose hardware address is known is written into the wire's frame at once: one copy, as POSIX
// wants it.
// The rest (fragments, broadcast, ourselves, neighbours to be asked for) goes by lwIP's IP layer.
//
// A wire without room refuses, and so does the endpoint: nothing is queued here, and nothing is lost before it has left. What lwIP keeps
// for a neighbour whose hardware address it has asked for is bounded there: who goes on sending meanwhile is refused every so often, so
// that the wire has a turn and the answer comes in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "netstack/udp_endpoint.h"

namespace netstack {

class LwipUdpEndpoint;
class Udp;

class UdpOutput {
 public:
  explicit UdpOutput(Udp& udp) noexcept : udp_(udp) {}

  // As UdpEndpoint::send(), to a destination that has been looked at.
  [[nodiscard]] long send(LwipUdpEndpoint& from, const SocketAddress& to, const SendRequest& how, const iovec* parts, int count,
                          size_t bytes) noexcept;
  void begin_turn() noexcept { answers_due_ = unflushed_ = unresolved_ = 0; }
  void answer_is_due() noexcept { answers_due_++; }
  void reset() noexcept { begin_turn(); }

 private:
  static constexpr int kMostTogether = 32;
  static constexpr int kMostUnresolved = 16;

  struct Outgoing {
    const SocketAddress& to;
    const iovec* parts;
    int count;
    size_t bytes;
    uint8_t ttl, tos;
    IpAddress source;  // unspecified: any
  };

  // The neighbour's hardware address, if that is all that is needed to send it; nullptr if not.
  [[nodiscard]] const uint8_t* station_for(LwipUdpEndpoint& from, const Outgoing& datagram) noexcept;
  [[nodiscard]] const uint8_t* station_for_v4(LwipUdpEndpoint& from, uint32_t to_be) noexcept;
  [[nodiscard]] long send_frame(const LwipUdpEndpoint& from, const Outgoing& datagram, const uint8_t* station) noexcept;
  // Its IP header, behind which the UDP header begins.
  uint8_t* write_ip4(uint8_t* ip, const LwipUdpEndpoint& from, const Outgoing& datagram, uint32_t source_be) noexcept;
  static uint8_t* write_ip6(uint8_t* ip, const Outgoing& datagram, const IpAddress& source) noexcept;
  [[nodiscard]] long send_packet(LwipUdpEndpoint& from, const Outgoing& datagram) noexcept;
  [[nodiscard]] IpAddress source_of(const LwipUdpEndpoint& from, const Outgoing& datagram) const noexcept;
  [[nodiscard]] bool sums(const LwipUdpEndpoint& from, const SocketAddress& to) const noexcept;
  void sent() noexcept;

  Udp& udp_;
  int answers_due_ = 0;
  int unflushed_ = 0;
  int unresolved_ = 0;  // sent in this turn to neighbours that have not answered
  uint16_t packet_id_ = 0;
};

}  // namespace netstack
