// Fragments of both families: any order, overlaps, holes, ends that contradict each other, more than 64 KB.
// SPDX-License-Identifier: BSD-3-Clause
#include "watched_stack.h"

namespace {

using namespace fuzz;

// In units of eight bytes: mostly few, so that fragments meet.
uint16_t any_offset(Input& input) {
  const auto which = input.next<uint8_t>();
  return which < 192 ? which % 24 : which < 240 ? static_cast<uint16_t>((which - 192) * 175) : input.next<uint16_t>() & 0x1fff;
}

}  // namespace

void fuzz::feed(Bed& bed, Input& input) {
  const auto how = input.next<uint8_t>();
  const uint16_t offset = any_offset(input);
  const bool more = (how & 2) != 0;
  const auto id = static_cast<uint8_t>(how >> 2 & 3);
  uint8_t protocol = kUdp;
  Bytes part = offset == 0 ? any_payload(input, &protocol) : any_bytes(input, 1480);
  if ((how & 0xe0) == 0xe0) protocol = input.next<uint8_t>();
  if (more && (how & 16) == 0) part.resize(part.size() & ~size_t{7});
  if ((how & 1) == 0) {
    Ip4 header{.protocol = protocol, .id = id, .fragment = static_cast<uint16_t>(offset | (more ? 0x2000 : 0))};
    if ((how & 0xe0) == 0xc0) header.options = input.take(input.next<uint8_t>() % 11 * 4u);
    return bed.deliver(ethernet(0x0800, ip4(header, part)));
  }
  Bytes payload{protocol, 0};
  put16(payload, static_cast<uint32_t>(offset * 8) | (more ? 1 : 0));
  put32(payload, id);
  put(payload, part);
  uint8_t next = kFragment;
  if ((how & 0xe0) == 0xc0) {  // behind another header, which each fragment may have its own of
    Bytes before{kFragment, 0};
    put(before, input.take(6));
    put(before, payload);
    payload = before;
    next = 60;
  }
  bed.deliver(ethernet(0x86dd, ip6({.next = next}, payload)));
}
