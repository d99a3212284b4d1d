// How long a packet may be on the way to a host, where a router has said that it is less than the wire takes (RFC 1191, 8201).
// SPDX-License-Identifier: BSD-3-Clause
//
// Who learns has to know that the message is about something that was really sent there: a connection's segment in flight, an endpoint's
// datagram. What is told is forgotten after ten minutes (Linux: net.ipv6.route.mtu_expires, of IPv4 too), for the way may have changed.
// Less than IPv6 allows is nobody's to say (Linux: __ip6_rt_update_pmtu()). Over IPv4 a router may say less than is worth having, or 0
// where it is of before RFC 1191: then packets have what net.ipv4.route.min_pmtu is, and may be cut on the way (__ip_rt_update_pmtu()).
// The table is bounded, and whoever makes it overflow has his own entries
// pushed out of one of its lines; where a line lies only we know.
#pragma once

#include <cstdint>

#include "netstack/lwip/siphash.h"
#include "netstack/socket_address.h"

namespace netstack {

inline constexpr uint32_t kLeastMtu6 = 1280;  // RFC 8200, 5
inline constexpr uint32_t kLeastMtu4 = 552;   // net.ipv4.route.min_pmtu

class PathMtus {
 public:
  static constexpr int kLines = 32, kWays = 4;

  explicit PathMtus(const uint64_t (&seed)[2]) noexcept : seed_(seed) {}

  // False: nothing new, or nothing to be believed.
  bool learn(const IpAddress& to, uint32_t mtu, uint32_t wires, uint64_t now_ns) noexcept {
    const uint32_t before = of(to, wires, now_ns);
    const bool cut = to.is_v4() && mtu < kLeastMtu4;
    if (cut) {
      mtu = before < kLeastMtu4 ? before : kLeastMtu4;
    } else if ((!to.is_v4() && mtu < kLeastMtu6) || mtu >= before) {
      return false;
    }
    Entry* const line = line_of(to);
    Entry* place = line;
    for (int i = 0; i < kWays; i++) {
      if (line[i].to == to) {
        place = &line[i];
        break;
      }
      if (line[i].until_ns < place->until_ns) place = &line[i];
    }
    *place = {to, now_ns + kLastsNs, mtu, cut};
    until_ns_ = place->until_ns;
    return mtu < before;
  }
  // `wires`: what the wire takes.
  [[nodiscard]] uint32_t of(const IpAddress& to, uint32_t wires, uint64_t now_ns) const noexcept {
    return now_ns >= until_ns_ ? wires : look_up(to, wires, now_ns);
  }
  // Whether packets to this address of IPv4 may be cut on the way (RTAX_MTU is locked).
  [[nodiscard]] bool are_cut(const IpAddress& to, uint64_t now_ns) const noexcept { return now_ns < until_ns_ && look_up_cut(to, now_ns); }

 private:
  static constexpr uint64_t kLastsNs = 600'000'000'000;

  struct Entry {
    IpAddress to;
    uint64_t until_ns = 0;
    uint32_t mtu = 0;
    bool cut = false;
  };

  [[nodiscard]] int line_number(const IpAddress& to) const noexcept {
    const uint64_t words[2] = {uint64_t{to.words_be[0]} << 32 | to.words_be[1], uint64_t{to.words_be[2]} << 32 | to.words_be[3]};
    return static_cast<int>(siphash(seed_, words, 2) % kLines);
  }
  [[nodiscard]] Entry* line_of(const IpAddress& to) noexcept { return lines_[line_number(to)]; }
  [[nodiscard]] uint32_t look_up(const IpAddress& to, uint32_t wires, uint64_t now_ns) const noexcept {
    for (const Entry& entry : lines_[line_number(to)]) {
      if (entry.to == to && now_ns < entry.until_ns) return entry.mtu < wires ? entry.mtu : wires;
    }
    return wires;
  }
  [[nodiscard]] bool look_up_cut(const IpAddress& to, uint64_t now_ns) const noexcept {
    for (const Entry& entry : lines_[line_number(to)]) {
      if (entry.to == to && now_ns < entry.until_ns) return entry.cut;
    }
    return false;
  }

  const uint64_t (&seed_)[2];
  uint64_t until_ns_ = 0;  // nothing is known from then on
  Entry lines_[kLines][kWays];
};

}  // namespace netstack
