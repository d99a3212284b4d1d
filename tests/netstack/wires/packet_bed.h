// A packet wire whose ring lies in plain memory, between pages that cannot be touched; its sockets are real, and silent.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sched.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "netstack/wires/eal.h"
#include "netstack/wires/frame_pool.h"
#include "netstack/wires/kernel/packet_ring.h"
#include "netstack/wires/kernel/packet_wire.h"

namespace packet_bed {

using netstack::PacketRing;
using netstack::RxFrame;

// Its network namespace must be one of its own.
class Bed {
 public:
  static constexpr uint32_t kSlots = 4, kSlotBytes = 2048;

  Bed() {
    if (auto started = netstack::start_eal(); !started) give_up(started.error().text);
    auto pool = netstack::FramePool::create("packets", kFrames, 128 + kSlotBytes, false);
    if (!pool) give_up(pool.error().text);
    if (auto finished = sockets_.finish(1, true); !finished) give_up(finished.error().text);
    constexpr size_t kPage = 4096, kBytes = kSlots * kSlotBytes;
    void* range = mmap(nullptr, kBytes + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = static_cast<uint8_t*>(range) + kPage;
    if (range == MAP_FAILED || mprotect(memory, kBytes, PROT_READ | PROT_WRITE) != 0) give_up("no memory");
    // As a family has it.
    void* shared = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) give_up("no memory");
    auto* of_wire = static_cast<Shared*>(shared);
    const netstack::RingShape shape{kPage, kSlotBytes, kSlots, kSlotBytes};
    wire = new (of_wire->object) Wire({&sockets_, memory, 1, shape, kSlotBytes, *pool, {of_wire->object, of_wire->queue, kFrames}});
  }
  Bed(const Bed&) = delete;
  Bed& operator=(const Bed&) = delete;

  // The socket that frames leave by; what is put in its place gets them, each behind its virtio header.
  [[nodiscard]] int sending() const { return sockets_.sending(); }
  [[nodiscard]] tpacket2_hdr& slot(uint32_t index) const { return *reinterpret_cast<tpacket2_hdr*>(memory + index * kSlotBytes); }
  // Receives all there is, and touches every byte.
  void receive() {
    RxFrame out[netstack::kBurst];
    const int count = wire->receive(out, netstack::kBurst);
    for (int i = 0; i < count; i++) {
      if (out[i].length == 0 || out[i].length > kSlotBytes) give_up("a frame of a length that it cannot have");
      for (uint32_t at = 0; at < out[i].length; at++) sum += out[i].data[at];
      frames++;
      wire->release(out[i].handle);
    }
  }

  netstack::PacketWire* wire;
  uint8_t* memory;
  uint64_t frames = 0, sum = 0;

 private:
  static constexpr uint32_t kFrames = 128;

  [[noreturn]] static void give_up(const char* what) {
    fprintf(stderr, "packet_bed: %s\n", what);
    abort();
  }

  struct Wire final : netstack::PacketWire {
    using PacketWire::PacketWire;
  };
  struct Shared {
    alignas(Wire) unsigned char object[sizeof(Wire)];
    rte_mbuf* queue[kFrames];
  };

  netstack::PacketSockets sockets_{netstack::make_packet_fds(), 4096, kSlotBytes, kSlots};
};

}  // namespace packet_bed
