// Datagrams of both families: ports, lengths that lie, options, cut packets, groups.
// SPDX-License-Identifier: BSD-3-Clause
#include "watched_stack.h"

void fuzz::feed(Bed& bed, Input& input) {
  const auto how = input.next<uint8_t>();
  const uint16_t from = any_port(input), to = any_port(input);
  const int told = (how & 7) == 7 ? input.next<uint16_t>() : -1;
  const Bytes datagram = udp(from, to, any_bytes(input, 1472), told);
  Bytes frame;
  if ((how & 8) != 0) {
    Ip6 header;
    if ((how & 16) != 0) header.from.clear(), put_any_ip6(header.from, input);
    if ((how & 32) != 0) header.to.clear(), put_any_ip6(header.to, input);
    if ((how & 0xc0) == 0xc0) header.length = input.next<uint16_t>();
    frame = ethernet(0x86dd, ip6(header, datagram), header.to[0] == 0xff ? 2 : 0);
  } else {
    Ip4 header;
    if ((how & 16) != 0) header.from = any_ip(input);
    if ((how & 32) != 0) header.to = any_ip(input);
    if ((how & 0xc0) == 0xc0) header.length = input.next<uint16_t>();
    if ((how & 0xc0) == 0x80) header.options = input.take(input.next<uint8_t>() % 11 * 4u);
    frame = ethernet(0x0800, ip4(header, datagram), header.to == 0xffffffff ? 1 : header.to >> 28 == 14 ? 3 : 0);
  }
  if ((how & 0xc0) == 0x40) frame.resize(frame.size() - input.next<uint8_t>() % frame.size());
  bed.deliver(frame);
}
