// A virtio peer's writes to rings and descriptors, between our receiving, sending and recovering, as the device and as the driver.
// SPDX-License-Identifier: BSD-3-Clause
#include "input.h"
#include "vhost_bed.h"

#include "base/log.h"

using namespace vhost_bed;

namespace {

constexpr int kFewFrames = 5;
constexpr uint32_t kFewEntries = 8;  // that are written to: what is sent uses them first

const uint8_t data[kFrameBytes] = {};

void receive(netstack::FrameQueues& queues, int capacity) {
  RxFrame frames[kFewFrames];
  const int count = queues.receive(frames, capacity, pool());
  if (count < 0 || count > capacity) give_up("more frames than asked for");
  for (int i = 0; i < count; i++) {
    if (frames[i].length == 0 || frames[i].length > kFrameBytes) give_up("a frame of a length that it cannot have");
    pool().give(&frames[i].handle, 1);
  }
}

void send(netstack::FrameQueues& queues, uint32_t length) {
  const Piece pieces[] = {{data, length}, {data, length}, {data, length}};
  (void)queues.lay({}, pieces, 1 + static_cast<int>(length) % 3);
}

// An address: at random, somewhere in the memory, or near its end.
uint64_t an_address(const Bed& bed, fuzz::Input& input) {
  const auto what = input.next<uint8_t>();
  if (what % 4 == 0) return input.next<uint64_t>();
  const size_t bytes = DriverQueues::memory_bytes(kBufferBytes);
  return Bed::address(bed.memory) + (what % 4 == 1 ? bytes - input.next<uint8_t>() : input.next<uint32_t>() % bytes);
}

void write(const Bed& bed, const virtio::Ring& ring, uint8_t what, fuzz::Input& input) {
  const uint32_t at = input.next<uint8_t>() % kFewEntries;
  switch (what % 6) {
    case 0:
      ring.descriptors[at] = {an_address(bed, input), input.next<uint32_t>(), input.next<uint16_t>(), input.next<uint16_t>()};
      break;
    case 1:
      ring.descriptors[at] = {an_address(bed, input), input.next<uint16_t>(), static_cast<uint16_t>(input.next<uint8_t>() & 3),
                              static_cast<uint16_t>(input.next<uint8_t>() % kFewEntries)};
      break;
    case 2: ring.available->ring[at] = static_cast<uint16_t>(input.next<uint16_t>() % (what > 128 ? 65536 : kFewEntries)); break;
    case 3: ring.used->ring[at] = {input.next<uint32_t>() % (what > 128 ? UINT32_MAX : kFewEntries), input.next<uint16_t>()}; break;
    case 4: ring.available->index.fetch_add(static_cast<uint16_t>(input.next<int8_t>())); break;
    default: ring.used->index.fetch_add(static_cast<uint16_t>(input.next<int8_t>())); break;
  }
}

void step(Bed& bed, netstack::FrameQueues& queues, fuzz::Input& input) {
  const auto what = input.next<uint8_t>();
  const virtio::Ring& ring = (what & 0x40) != 0 ? bed.driver->from_device() : bed.driver->to_device();
  switch (what & 15) {
    case 0: queues.recover(); break;
    case 1: queues.publish(); break;
    case 2: case 3: case 4: send(queues, 1 + input.next<uint16_t>() % kFrameBytes); break;
    case 5: case 6: case 7: receive(queues, 1 + (what >> 4) % kFewFrames); break;
    case 8: (void)(queues.taken() && queues.waits()), queues.want_event((what & 0x80) != 0); break;
    default: write(bed, ring, input.next<uint8_t>(), input); break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t count) {
  constexpr uint64_t kFeatures[] = {kAll, virtio::kVersion1, virtio::kMergeableBuffers, 0};
  static Bed bed;
  base::set_log_level(base::LogLevel::error);
  fuzz::Input input(bytes, count);
  const auto what = input.next<uint8_t>();
  bed.features = kFeatures[what / 2 % 4];
  bed.start();
  netstack::FrameQueues& queues = what % 2 != 0 ? static_cast<netstack::FrameQueues&>(*bed.driver) : *bed.device;
  while (!input.empty()) step(bed, queues, input);
  receive(queues, kFewFrames);
  if (pool().free_count() != pool().total()) give_up("frames leak");
  return 0;
}
