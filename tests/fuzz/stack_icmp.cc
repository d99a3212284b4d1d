// ICMP and ICMPv6: every type and code, and reports about packets that the stack has sent, or not, or that are cut.
// SPDX-License-Identifier: BSD-3-Clause
#include "watched_stack.h"

namespace {

using namespace fuzz;

// A packet as the stack would have sent it to the peer.
Bytes sent(Input& input, bool v6) {
  const auto how = input.next<uint8_t>();
  uint8_t protocol = kUdp;
  Bytes payload = (how & 1) != 0 ? any_payload(input, &protocol) : udp(any_port(input), 1000, input.take(how / 16));
  Bytes packet;
  if (v6) {
    packet = ip6({protocol, {kStackIp6, kStackIp6 + 16}, {kPeerIp6, kPeerIp6 + 16}}, payload);
  } else {
    packet = ip4({.protocol = protocol, .from = kStackIp, .to = kPeerIp}, payload);
  }
  if ((how & 6) == 6) packet[input.next<uint8_t>() % packet.size()] = input.next<uint8_t>();
  if ((how & 8) != 0) packet.resize(packet.size() - input.next<uint16_t>() % packet.size());
  return packet;
}

}  // namespace

void fuzz::feed(Bed& bed, Input& input) {
  const auto how = input.next<uint8_t>();
  const bool v6 = (how & 1) != 0;
  constexpr uint8_t kTypes[] = {3, 11, 12, 8, 5, 4, 13, 0}, kTypes6[] = {1, 2, 3, 4, 128, 130, 131, 143};
  const auto which = input.next<uint8_t>();
  Bytes message{which >= 64 ? which : v6 ? kTypes6[which % 8] : kTypes[which % 8], input.next<uint8_t>(), 0, 0};
  put(message, input.take(4));
  put(message, (how & 6) != 0 ? sent(input, v6) : any_bytes(input, 1400));
  if ((how & 0x38) == 0x38) message.resize(input.next<uint8_t>() % 9);
  Ip6 header6{.next = kIcmp6};
  Ip4 header{.protocol = kIcmp};
  if ((how & 0x40) != 0) header.from = any_ip(input), header6.from.clear(), put_any_ip6(header6.from, input);
  if ((how & 0x80) != 0) header.to = any_ip(input), header6.to.clear(), put_any_ip6(header6.to, input);
  bed.deliver(v6 ? ethernet(0x86dd, ip6(header6, message)) : ethernet(0x0800, ip4(header, message)));
}
