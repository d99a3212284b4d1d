// ARP and neighbour discovery: questions, answers, routers, redirects; who says what, options that lie, while packets wait for an answer.
// SPDX-License-Identifier: BSD-3-Clause
#include "watched_stack.h"

namespace {

using namespace fuzz;

void put_any_mac(Bytes& to, Input& input) {
  const auto which = input.next<uint8_t>();
  Bytes mac(kPeerMac, kPeerMac + 6);
  if (which % 4 == 1) memcpy(mac.data(), kStackMac, 6);
  if (which % 4 == 2) memset(mac.data(), 0xff, 6);
  if (which % 4 == 3) mac[5] = which;
  put(to, mac);
}

Bytes arp(Input& input) {
  const auto how = input.next<uint8_t>();
  Bytes packet{0, 1, 8, 0, 6, 4};
  put16(packet, how < 224 ? 1 + how % 2 : how);
  put_any_mac(packet, input);
  put32(packet, any_ip(input));
  put_any_mac(packet, input);
  put32(packet, any_ip(input));
  if (how % 16 == 7) packet[input.next<uint8_t>() % packet.size()] = input.next<uint8_t>();
  if (how % 16 == 8) packet.resize(input.next<uint8_t>() % packet.size());
  return packet;
}

void put_any_option(Bytes& to, Input& input) {
  const auto what = input.next<uint8_t>();
  const auto type = static_cast<uint8_t>(what % 8 < 6 ? 1 + what % 8 : what);
  if (type <= 2) {
    to.push_back(type);
    to.push_back(what < 224 ? 1 : input.next<uint8_t>());
    put_any_mac(to, input);
    return;
  }
  const auto words = static_cast<uint8_t>(type == 3 ? 4 : type == 5 ? 1 : input.next<uint8_t>() % 5);
  put(to, Bytes{type, words});
  put(to, input.take(words == 0 ? 6 : words * 8u - 2));
}

Bytes discovery(Input& input) {
  const auto how = input.next<uint8_t>();
  Bytes message{static_cast<uint8_t>(133 + how % 5), how < 240 ? uint8_t{0} : how, 0, 0};
  put(message, input.take(4));
  if (message[0] == 134) put(message, input.take(8));
  if (message[0] >= 135) put_any_ip6(message, input);
  if (message[0] == 137) put_any_ip6(message, input);
  for (int options = how / 8 % 4; options > 0; options--) put_any_option(message, input);
  if (how >= 224) message.resize(message.size() - input.next<uint8_t>() % message.size());
  return message;
}

}  // namespace

void fuzz::feed(Bed& bed, Input& input) {
  const auto how = input.next<uint8_t>();
  if ((how & 1) != 0) return bed.deliver(ethernet(0x0806, arp(input), (how & 2) != 0 ? 1 : 0));
  Ip6 header{.next = kIcmp6};
  header.from.clear();
  header.to.clear();
  put_any_ip6(header.from, input);
  put_any_ip6(header.to, input);
  if ((how & 0xf0) == 0xf0) header.hop_limit = 64;
  bed.deliver(ethernet(0x86dd, ip6(header, discovery(input)), header.to[0] == 0xff ? 2 : 0));
}
