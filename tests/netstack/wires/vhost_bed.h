// Both ends of a vhost-user wire's rings on one piece of memory that ends at unmapped pages, either of them in the test's hands.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "netstack/wires/eal.h"
#include "netstack/wires/frame_pool.h"
#include "netstack/wires/vhost/device_queues.h"
#include "netstack/wires/vhost/driver_queues.h"

namespace vhost_bed {

using netstack::DeviceQueues;
using netstack::DriverMemory;
using netstack::DriverQueues;
using netstack::FramePool;
using netstack::Piece;
using netstack::QueueEvents;
using netstack::RxFrame;
namespace virtio = netstack::virtio;

constexpr uint32_t kFrameBytes = 2048, kBufferBytes = 2112;
constexpr uint64_t kAll =
    virtio::kVersion1 | virtio::kMergeableBuffers | virtio::kChecksum | virtio::kGuestChecksum | virtio::kHostTso4 | virtio::kGuestTso4;
constexpr uint64_t kGuestBase = 0x100000;  // where the driver's memory is by its guest's addresses

[[noreturn]] inline void give_up(const char* what) {
  fprintf(stderr, "vhost_bed: %s\n", what);
  abort();
}

// Made once a process.
inline FramePool& pool() {
  static FramePool* made = [] {
    if (auto started = netstack::start_eal(); !started) give_up(started.error().text);
    auto pool = FramePool::create("bed", 256, 128 + kFrameBytes, false);
    if (!pool) give_up("no pool");
    return *pool;
  }();
  return *made;
}

class Bed {
 public:
  explicit Bed(uint64_t in_force = kAll) : features(in_force) {
    const size_t bytes = DriverQueues::memory_bytes(kBufferBytes);
    auto* const room = static_cast<uint8_t*>(mmap(nullptr, bytes + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memory = static_cast<uint8_t*>(mmap(room + 4096, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    if (memory != room + 4096) give_up("no memory");
    for (QueueEvents& each : events) each = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};
    driver = new DriverQueues("virtio-user", kFrameBytes, memory, kBufferBytes, &events[0], &events[1]);
    device = new DeviceQueues("vhost", kFrameBytes, &shared);
    // The driver tells its own addresses for the guest's.
    if (!shared.add({address(memory), address(memory), bytes, memory})) give_up("no region");
    start();
  }
  ~Bed() {
    delete driver;
    delete device;
    munmap(memory - 4096, DriverQueues::memory_bytes(kBufferBytes) + 8192);
    for (const QueueEvents& each : events) close(each.kick), close(each.call);
  }
  Bed(const Bed&) = delete;
  Bed& operator=(const Bed&) = delete;

  void start() {
    driver->start(features);
    device->start(features, {driver->from_device(), 0, &events[0]}, {driver->to_device(), 0, &events[1]});
  }
  static uint64_t address(const void* at) { return reinterpret_cast<uint64_t>(at); }

  // Lays out `frame` in `pieces` parts, shows it, and says whether there was room.
  static bool send(netstack::FrameQueues& from, const std::string& frame, int pieces = 1, uint8_t flags = 0) {
    virtio::Header header{};
    header.net.flags = flags;
    Piece parts[4];
    size_t at = 0;
    for (int i = 0; i < pieces; i++) {
      const size_t bytes = i + 1 == pieces ? frame.size() - at : frame.size() / static_cast<size_t>(pieces);
      parts[i] = {frame.data() + at, static_cast<uint32_t>(bytes)};
      at += bytes;
    }
    const bool laid = from.lay(header, parts, pieces);
    from.publish();
    from.notify();
    return laid;
  }
  // The next frame that comes, put together; empty if none does.
  std::string receive(netstack::FrameQueues& to) {
    RxFrame frames[netstack::kBurst];
    const int count = to.receive(frames, netstack::kBurst, pool());
    std::string got;
    received = 0;
    for (int i = 0; i < count; i++) {
      if (!frames[i].continues) received++;
      if (received == 1) got.append(reinterpret_cast<char*>(frames[i].data), frames[i].length);
      if (i == 0) verified = frames[i].checksum_verified;
      pool().give(&frames[i].handle, 1);
    }
    return got;
  }
  static bool rang(int event) {
    uint64_t count;
    return read(event, &count, sizeof count) == sizeof count;
  }

  uint64_t features;
  uint8_t* memory;
  QueueEvents events[2];  // of the ring to the driver, and of the one from it
  DriverMemory shared;
  DriverQueues* driver;
  DeviceQueues* device;
  int received = 0;  // frames, by the last receive()
  bool verified = false;
};

}  // namespace vhost_bed
