// Frames put together from a fuzzer's bytes: headers are right where they must be for the stack to look further, the rest is as it comes.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <arpa/inet.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "input.h"

namespace fuzz {

using Bytes = std::vector<uint8_t>;

inline constexpr uint8_t kStackMac[6] = {2, 0, 0, 0, 0, 2}, kPeerMac[6] = {2, 0, 0, 0, 0, 1};
inline constexpr uint32_t kStackIp = 0xc6120002, kPeerIp = 0xc6120001;
inline constexpr uint8_t kStackIp6[16] = {0xfd, 0xc6, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
inline constexpr uint8_t kPeerIp6[16] = {0xfd, 0xc6, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
inline constexpr uint8_t kStackLinkIp6[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 2};
inline constexpr uint8_t kIcmp = 1, kTcp = 6, kUdp = 17, kFragment = 44, kIcmp6 = 58;

inline void put16(Bytes& to, uint32_t value) {
  to.push_back(static_cast<uint8_t>(value >> 8));
  to.push_back(static_cast<uint8_t>(value));
}
inline void put32(Bytes& to, uint32_t value) {
  put16(to, value >> 16);
  put16(to, value & 0xffff);
}
inline void put(Bytes& to, const uint8_t* from, size_t bytes) { to.insert(to.end(), from, from + bytes); }
inline void put(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }

// One of the addresses that make a difference, or any.
inline uint32_t any_ip(Input& input) {
  constexpr uint32_t kKnown[] = {kPeerIp, kStackIp, 0xc61200ff, 0xffffffff, 0, 0xe0000001, 0xe00000fb, 0xc6120003, 0x7f000001, 0x08080808};
  const auto which = input.next<uint8_t>();
  return which < 200 ? kKnown[which % (sizeof kKnown / sizeof kKnown[0])] : 0xc6120000 | input.next<uint16_t>();
}

inline void put_any_ip6(Bytes& to, Input& input) {
  static constexpr uint8_t kAllNodes[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  static constexpr uint8_t kSolicited[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2};
  static constexpr uint8_t kLink[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9};
  static constexpr uint8_t kNone[16] = {};
  static constexpr const uint8_t* kKnown[] = {kPeerIp6, kStackIp6, kStackLinkIp6, kAllNodes, kSolicited, kLink, kNone, kPeerIp6};
  const auto which = input.next<uint8_t>();
  put(to, kKnown[which % 8], 16);
  if (which >= 200) to.back() = input.next<uint8_t>();
}

// Up to `most` bytes as they come; what is long is cheap: a short piece that repeats.
inline Bytes any_bytes(Input& input, size_t most) {
  const auto how = input.next<uint8_t>();
  Bytes made(how < 64 ? how : how < 128 ? how * 8u : how * 12u);
  if (made.size() > most) made.resize(most);
  const Bytes piece = input.take(how < 64 ? made.size() : 8);
  for (size_t i = 0; i < made.size() && !piece.empty(); i++) made[i] = piece[i % piece.size()];
  return made;
}

inline Bytes ethernet(uint16_t type, const Bytes& packet, uint8_t to = 0) {
  Bytes frame;
  put(frame, kStackMac, 6);
  put(frame, kPeerMac, 6);
  if (to == 1) memset(frame.data(), 0xff, 6);
  if (to == 2) frame[0] = 0x33, frame[1] = 0x33;
  if (to == 3) frame[0] = 1, frame[1] = 0, frame[2] = 0x5e;
  put16(frame, type);
  put(frame, packet);
  return frame;
}

struct Ip4 {
  uint8_t protocol = kUdp;
  uint32_t from = kPeerIp, to = kStackIp;
  uint16_t id = 0, fragment = 0;
  uint8_t ttl = 64;
  Bytes options = {};   // in full words
  int length = -1;      // what the header says, if not the truth
};

inline Bytes ip4(const Ip4& header, const Bytes& payload) {
  Bytes packet{static_cast<uint8_t>(0x45 + header.options.size() / 4), 0};
  put16(packet, header.length >= 0 ? static_cast<uint32_t>(header.length)
                                   : static_cast<uint32_t>(20 + header.options.size() + payload.size()));
  put16(packet, header.id);
  put16(packet, header.fragment);
  put(packet, Bytes{header.ttl, header.protocol, 0, 0});
  put32(packet, header.from);
  put32(packet, header.to);
  put(packet, header.options);
  put(packet, payload);
  return packet;
}

struct Ip6 {
  uint8_t next = kUdp;
  Bytes from = {kPeerIp6, kPeerIp6 + 16}, to = {kStackIp6, kStackIp6 + 16};
  uint8_t hop_limit = 255;
  int length = -1;
};

inline Bytes ip6(const Ip6& header, const Bytes& payload) {
  Bytes packet{0x60, 0, 0, 0};
  put16(packet, header.length >= 0 ? static_cast<uint32_t>(header.length) : static_cast<uint32_t>(payload.size()));
  put(packet, Bytes{header.next, header.hop_limit});
  put(packet, header.from);
  put(packet, header.to);
  put(packet, payload);
  return packet;
}

inline Bytes udp(uint16_t from, uint16_t to, const Bytes& data, int length = -1) {
  Bytes datagram;
  put16(datagram, from);
  put16(datagram, to);
  put16(datagram, length >= 0 ? static_cast<uint32_t>(length) : static_cast<uint32_t>(8 + data.size()));
  put16(datagram, 0);
  put(datagram, data);
  return datagram;
}

// A port that somebody has, or nobody.
inline uint16_t any_port(Input& input) {
  constexpr uint16_t kKnown[] = {53, 54, 55, 80, 1000, 99, 0, 65535};
  return kKnown[input.next<uint8_t>() % 8];
}

// What can stand behind an IP header, of a protocol of its own choice.
inline Bytes any_payload(Input& input, uint8_t* protocol) {
  constexpr uint8_t kKnown[] = {kUdp, kIcmp, kIcmp6, kTcp};
  const auto what = input.next<uint8_t>();
  *protocol = kKnown[what % 4];
  if (what >= 224) return any_bytes(input, 1400);
  Bytes body;
  if (*protocol == kUdp) return udp(any_port(input), any_port(input), any_bytes(input, 1400));
  if (*protocol == kTcp) {
    put16(body, any_port(input));
    put16(body, any_port(input));
    put(body, input.take(16));
  } else {
    put(body, Bytes{*protocol == kIcmp ? uint8_t{8} : uint8_t{128}, 0, 0, 0, 0, 1, 0, 1});
  }
  put(body, any_bytes(input, 1400));
  return body;
}

}  // namespace fuzz
