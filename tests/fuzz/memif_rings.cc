// A memif peer's writes to descriptors and positions, between our receiving, sending and recovering.
// SPDX-License-Identifier: BSD-3-Clause
#include "input.h"
#include "memif_bed.h"

#include "base/log.h"

using namespace memif_bed;

namespace {

constexpr uint8_t kLog2 = 2;
constexpr int kFewFrames = 5;  // fewer than the pool has

void receive(Bed& bed, int capacity) {
  RxFrame frames[kFewFrames];
  const int count = bed.receive(frames, capacity);
  if (count < 0 || count > capacity) give_up("more frames than asked for");
  for (int i = 0; i < count; i++) {
    if (frames[i].length == 0 || frames[i].length > kFrameBytes) give_up("a frame of a length that it cannot have");
    Bed::release(frames[i]);
  }
}

const uint8_t data[kFrameBytes] = {};

void send_in_place(Bed& bed, uint32_t length) {
  TxFrame frame;
  if (!bed.rings.open(&frame)) return;
  if (frame.capacity < kFrameBytes) give_up("a buffer that is too small");
  memset(frame.data, 7, length);
  if (length % 2 != 0) return bed.rings.fill(length);
  const netstack::Piece pieces[] = {{data, length}, {data, kFrameBytes}};
  (void)bed.rings.fill_with(length, pieces, 2);
}

void copy(Bed& bed, uint32_t length) {
  const netstack::Piece pieces[] = {{data, length}, {data, length}, {data, length}};
  (void)bed.rings.copy(pieces, 1 + static_cast<int>(length) % 3);
}

void step(Bed& bed, fuzz::Input& input) {
  const auto what = input.next<uint8_t>();
  Ring& ring = (what & 0x80) != 0 ? bed.incoming() : bed.outgoing();
  switch (what & 15) {
    case 0: case 1: case 2: ring.descriptors[input.next<uint8_t>() % bed.slots] = input.next<Descriptor>(); break;
    case 3:
      bed.send(
          {static_cast<uint16_t>(what >> 4 & 1), static_cast<uint16_t>(what >> 5 & 3), input.next<uint16_t>(), input.next<uint16_t>(), 0});
      break;
    case 4: bed.sent() = static_cast<uint16_t>(bed.sent() + input.next<int8_t>()); break;
    case 5: bed.room() = static_cast<uint16_t>(bed.room() + input.next<int8_t>()); break;
    case 6: bed.sent() = input.next<uint16_t>(); break;
    case 7: bed.room() = input.next<uint16_t>(); break;
    case 8: ring.head = ring.tail = input.next<uint16_t>(); break;
    case 9: bed.rings.recover(); break;
    case 10: bed.rings.publish(); break;
    case 11: copy(bed, 1 + input.next<uint16_t>() % kFrameBytes); break;
    case 12: send_in_place(bed, 1 + input.next<uint16_t>() % kFrameBytes); break;
    default: receive(bed, 1 + (what >> 4) % kFewFrames); break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t count) {
  static Bed client(true, kLog2), server(false, kLog2);
  base::set_log_level(base::LogLevel::error);
  fuzz::Input input(bytes, count);
  Bed& bed = (input.next<uint8_t>() & 1) != 0 ? client : server;
  bed.longest = kFewFrames / 2 * kFrameBytes;
  bed.lay_rings();
  if (!bed.attach()) give_up("rings that are right are refused");
  while (!input.empty()) step(bed, input);
  receive(bed, kFewFrames);
  if (Bed::pool().free_count() != Bed::pool().total()) give_up("frames leak");
  return 0;
}
