// SYN cookies: an initial sequence number that is all a stack has to remember of a handshake.
// SPDX-License-Identifier: BSD-3-Clause
//
// Under a flood of SYNs from addresses that never answer, any bounded memory of half-open connections is full of them. So nothing is kept:
// what is needed of the SYN is folded into the sequence number of the answer, next to a keyed hash that nobody else can compute, and comes
// back in the ACK (RFC 4987, 3.6; Linux net/ipv4/syncookies.c).
//
//   31      29 28      26 25     24                          0
//   | segment | window    | SACK  | hash over addresses, ports, |
//   | size    | scale     |       | peer's number, minute       |
//
// The hash covers the upper bits as well. It counts the minute, of which the current one and the last one are tried: a cookie is good for
// one to two minutes. A blind guess hits with 2 in 2^25, against one that has to be sent within a minute. Segment size and window scale are
// rounded down to the next that has a code: both then promise less than the peer can take. Whether timestamps were agreed on needs
// no bit: the ACK has one or has none.
#pragma once

#include <cstdint>

#include "netstack/tcp/four_tuple.h"

namespace netstack {

// What a SYN says of its sender.
struct SynOptions {
  static constexpr uint8_t kNoScale = 0xff;
  static constexpr uint16_t kDefaultMss = 536;  // RFC 9293, 3.7.1
  static constexpr uint16_t kLeastMss = 48;     // Linux: tcp_min_snd_mss

  uint16_t mss = kDefaultMss;
  uint8_t scale = kNoScale;
  bool sack = false;
  bool timestamps = false;
  uint32_t stamp = 0;  // the value of its timestamp
  [[nodiscard]] bool operator==(const SynOptions&) const noexcept = default;
};

// Reads the options of a SYN. What is malformed ends the list, as in Linux's tcp_parse_options().
[[nodiscard]] SynOptions parse_syn_options(const uint8_t* options, uint32_t bytes) noexcept;

// `key`: 128 secret bits. `minute`: any clock that counts minutes.
[[nodiscard]] uint32_t make_syn_cookie(const uint64_t key[2], const FourTuple& tuple, uint32_t peer_isn, uint32_t minute,
                                       const SynOptions& options) noexcept;
// True if `cookie` was made in this minute or the last for this connection; *options then is what it remembers, of timestamps nothing.
[[nodiscard]] bool read_syn_cookie(const uint64_t key[2], const FourTuple& tuple, uint32_t peer_isn, uint32_t minute, uint32_t cookie,
                                   SynOptions* options) noexcept;

}  // namespace netstack
