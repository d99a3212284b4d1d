// Chains of extension headers and IPv4 options, whole, cut or lying about their length, before something that may be delivered or answered.
// SPDX-License-Identifier: BSD-3-Clause
#include "watched_stack.h"

namespace {

using namespace fuzz;

constexpr uint8_t kHopByHop = 0, kRouting = 43, kDestination = 60;

void put_any_options(Bytes& to, Input& input, size_t until) {
  while (to.size() < until) {
    const auto what = input.next<uint8_t>();
    constexpr uint8_t kTypes[] = {0, 1, 5, 0xc2, 0xc9, 0x3e, 0x7e, 0xbe};  // padding, router alert, jumbo, home address, unknown ones
    const uint8_t type = what < 224 ? kTypes[what % 8] : what;
    to.push_back(type);
    if (type == 0) continue;
    const auto bytes = static_cast<uint8_t>(what % 16 == 15 ? input.next<uint8_t>() : what / 16 % 8);
    to.push_back(bytes);
    put(to, input.take(bytes % 16));
  }
  to.resize(until);
}

// Puts a header of the kind in front of the payload.
Bytes extended(uint8_t kind, uint8_t next, const Bytes& payload, Input& input) {
  const auto words = static_cast<uint8_t>(input.next<uint8_t>() % 4);
  Bytes header{next, words};
  if (kind == kRouting) {
    put(header, input.take(6 + words * 8u));
  } else if (kind == kFragment) {
    header[1] = 0;
    put(header, input.take(6));
  } else {
    put_any_options(header, input, 8 + words * 8u);
    const auto lie = input.next<uint8_t>();
    if (lie >= 224) header[1] = lie;
  }
  put(header, payload);
  return header;
}

}  // namespace

void fuzz::feed(Bed& bed, Input& input) {
  constexpr uint8_t kKinds[] = {kHopByHop, kDestination, kRouting, kFragment, kDestination, kHopByHop};
  const auto how = input.next<uint8_t>();
  uint8_t next = kUdp;
  Bytes payload = any_payload(input, &next);
  if ((how & 0x70) == 0x70) next = input.next<uint8_t>();
  if ((how & 0x80) != 0) {
    Bytes options;
    put_any_options(options, input, input.next<uint8_t>() % 11 * 4u);
    return bed.deliver(ethernet(0x0800, ip4({.protocol = next, .options = options}, payload)));
  }
  for (int depth = how & 15; depth > 0; depth--) {
    const auto which = input.next<uint8_t>();
    const uint8_t kind = kKinds[which % 6];
    payload = extended(kind, which >= 240 ? which : next, payload, input);
    next = kind;
  }
  Ip6 header{.next = next};
  const auto where = input.next<uint8_t>();
  if ((where & 7) == 7) header.to.clear(), put_any_ip6(header.to, input);
  if ((where & 56) == 56) header.length = input.next<uint16_t>();
  Bytes frame = ethernet(0x86dd, ip6(header, payload), header.to[0] == 0xff ? 2 : 0);
  if (where >= 192) frame.resize(frame.size() - input.next<uint16_t>() % frame.size());
  bed.deliver(frame);
}
