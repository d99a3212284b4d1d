// Router advertisements to a stack that asks for them: prefixes, lifetimes, MTUs, options that lie, who objects to an address, and time.
// SPDX-License-Identifier: BSD-3-Clause
#include "watched_stack.h"

namespace {

using namespace fuzz;

[[maybe_unused]] const bool asked_for = Bed::autoconfigures = true;

constexpr uint8_t kRouterAdvertisement = 134, kSolicitation = 135, kAdvertisement = 136;
constexpr uint8_t kRouters[2][16] = {{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
                                     {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};
constexpr uint8_t kAllNodes[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

// One of the lifetimes that make a difference, in seconds, or any.
uint32_t any_lifetime(Input& input) {
  constexpr uint32_t kKnown[] = {0, 1, 5, 60, 7199, 7200, 7201, 0xffff'fffe, 0xffff'ffff};
  const auto which = input.next<uint8_t>();
  return which < 224 ? kKnown[which % (sizeof kKnown / sizeof kKnown[0])] : input.next<uint32_t>();
}

// One of a few networks, or the link's own, a group's, or any; `whole`: an address in it as the stack makes them.
void put_network(Bytes& to, Input& input, bool whole) {
  const auto which = input.next<uint8_t>();
  Bytes made(16);
  made[0] = 0xfd, made[1] = 0xaa, made[7] = which % 12;
  if (which % 16 == 12) memcpy(made.data(), kStackIp6, 8);
  if (which % 16 == 13) memcpy(made.data(), kStackLinkIp6, 8);
  if (which % 16 == 14) made[0] = 0xff;
  if (which >= 240) made = input.take(16);
  made.resize(16);
  if (whole) memcpy(made.data() + 8, kStackLinkIp6 + 8, 8);
  put(to, made);
}

void put_option(Bytes& to, Input& input) {
  const auto what = input.next<uint8_t>();
  switch (what % 8) {
    case 0:
    case 1:
    case 2:
    case 3:
      put(to, Bytes{3, 4, what < 224 ? uint8_t{64} : input.next<uint8_t>(), what < 192 ? uint8_t{0xc0} : input.next<uint8_t>()});
      put32(to, any_lifetime(input));
      put32(to, any_lifetime(input));
      put32(to, 0);
      return put_network(to, input, false);
    case 4:
      put(to, Bytes{5, 1, 0, 0});
      return put32(to, what < 128 ? 1200 + what * 4u : input.next<uint32_t>());
    case 5:
      put(to, Bytes{1, 1});
      return put(to, kPeerMac, 6);
    default: {
      const auto words = static_cast<uint8_t>(what < 240 ? 1 + what / 8 % 4 : input.next<uint8_t>());
      put(to, Bytes{input.next<uint8_t>(), words});
      put(to, input.take(words == 0 ? 6 : words * 8u - 2));
    }
  }
}

Bytes routers_message(Input& input) {
  const auto how = input.next<uint8_t>();
  Bytes message{kRouterAdvertisement, how < 248 ? uint8_t{0} : how, 0, 0, 64, 0};
  put16(message, any_lifetime(input) & 0xffff);
  put(message, input.take(8));
  message.resize(16);
  for (int options = how % 20; options > 0 && message.size() < 1400; options--) put_option(message, input);
  if (how >= 224) message.resize(message.size() - input.next<uint8_t>() % message.size());
  return message;
}

// What others say of an address that the stack has, or would like to have.
Bytes objection(Input& input) {
  const auto how = input.next<uint8_t>();
  Bytes message{(how & 1) != 0 ? kSolicitation : kAdvertisement, 0, 0, 0, static_cast<uint8_t>(how & 0xe0), 0, 0, 0};
  put_network(message, input, true);
  if ((how & 2) != 0) put(message, Bytes{(how & 1) != 0 ? uint8_t{1} : uint8_t{2}, 1}), put(message, kPeerMac, 6);
  return message;
}

}  // namespace

void fuzz::feed(Bed& bed, Input& input) {
  const auto how = input.next<uint8_t>();
  Ip6 header{.next = kIcmp6};
  header.to.assign(kAllNodes, kAllNodes + 16);
  header.from.assign(kRouters[how & 1], kRouters[how & 1] + 16);
  if ((how & 2) != 0) {
    if ((how & 4) != 0) header.from.assign(16, 0);
    return bed.deliver(ethernet(0x86dd, ip6(header, objection(input)), 2));
  }
  if ((how & 0xf0) == 0xf0) header.hop_limit = 64;
  if ((how & 0xf0) == 0xe0) header.from.clear(), put_any_ip6(header.from, input);
  bed.deliver(ethernet(0x86dd, ip6(header, routers_message(input)), 2));
}
