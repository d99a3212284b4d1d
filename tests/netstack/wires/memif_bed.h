// MemifRings with the peer's end in the test's hands: regions that end at unmapped memory, and descriptors and positions to write at will.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/arena.h"
#include "netstack/wires/control.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/frame_pool.h"
#include "netstack/wires/memif/memif_peer.h"
#include "netstack/wires/memif/memif_rings.h"

namespace memif_bed {

using netstack::Control;
using netstack::FramePool;
using netstack::MemifPeer;
using netstack::MemifRing;
using netstack::MemifRings;
using netstack::RxFrame;
using netstack::TxFrame;

constexpr uint32_t kFrameBytes = 2048;
constexpr uint32_t kCookie = 0x3e31f20;
constexpr uint16_t kMore = 1;

struct Descriptor {
  uint16_t flags, region;
  uint32_t length, offset, metadata;
};

// The protocol's ring, as the peer sees it.
struct Ring {
  uint32_t cookie;
  uint16_t flags, head;
  alignas(64) uint16_t tail;
  alignas(64) Descriptor descriptors[1];
};
static_assert(offsetof(Ring, tail) == 64 && offsetof(Ring, descriptors) == 128);

[[noreturn]] inline void give_up(const char* what) {
  fprintf(stderr, "memif_bed: %s\n", what);
  abort();
}

// Region 0 holds both rings, region 1 the buffers; the others are not there. Behind each, and before, is memory that cannot be touched.
class Bed {
 public:
  static constexpr uint32_t kRingBytes = 4096, kBuffersBytes = 32 << 10;

  Bed(bool client, uint8_t log2_slots) : slots(1U << log2_slots) {
    arena_ = base::Arena::map_shared(1 << 20);
    auto made = Control::create(arena_);
    if (!made) give_up(made.error().text);
    control = *made;
    (void)add_memory(4096);  // takes the first place, so that both regions have unmapped memory in front of them
    peer.client = client;
    rings_base = add_region(0, 2 * kRingBytes);
    buffers = add_region(1, kBuffersBytes);
    peer.to_server = MemifRing{-1, 0, 0, log2_slots};
    peer.to_client = MemifRing{-1, 0, kRingBytes, log2_slots};
    lay_rings();
  }
  ~Bed() {
    for (const auto& region : mapped_) (void)control->unmap_region(region.address), (void)control->drop_fd(region.fd);
  }
  Bed(const Bed&) = delete;
  Bed& operator=(const Bed&) = delete;

  // Rings as they are at the begin of a connection.
  void lay_rings() {
    memset(rings_base, 0, 2 * kRingBytes);
    to_server().cookie = to_client().cookie = kCookie;
    for (uint32_t i = 0; i < slots; i++) {
      incoming().descriptors[i] = usable(i);
      outgoing().descriptors[i] = usable(i + slots);
    }
    if (!peer.client) outgoing().head = static_cast<uint16_t>(slots);  // all of the peer's buffers are offered
  }
  [[nodiscard]] bool attach() { return rings.attach(peer, *control, kFrameBytes, longest); }
  [[nodiscard]] Ring& to_server() const { return *reinterpret_cast<Ring*>(rings_base); }
  [[nodiscard]] Ring& to_client() const { return *reinterpret_cast<Ring*>(rings_base + kRingBytes); }
  // What the peer sends in, and what we send out on.
  [[nodiscard]] Ring& incoming() const { return peer.client ? to_client() : to_server(); }
  [[nodiscard]] Ring& outgoing() const { return peer.client ? to_server() : to_client(); }
  // The position that the peer moves in each.
  [[nodiscard]] uint16_t& sent() const { return peer.client ? incoming().tail : incoming().head; }
  [[nodiscard]] uint16_t& room() const { return peer.client ? outgoing().tail : outgoing().head; }
  // A whole buffer; they lie one behind the other and come again.
  [[nodiscard]] static Descriptor usable(uint32_t index) {
    return {0, 1, kFrameBytes, index * kFrameBytes % kBuffersBytes, 0};
  }
  // The peer sends what `descriptor` says.
  void send(Descriptor descriptor) {
    const uint16_t at = sent();
    incoming().descriptors[at & (slots - 1)] = descriptor;
    std::atomic_ref<uint16_t>(sent()).store(static_cast<uint16_t>(at + 1), std::memory_order_release);
  }

  // Made once a process.
  static FramePool& pool() {
    static FramePool* made = [] {
      if (auto started = netstack::start_eal(); !started) give_up(started.error().text);
      auto pool = FramePool::create("bed", kFrames, kHeadroom + kFrameBytes + kGuard, false);
      if (!pool || !(*pool)->take(all, kFrames)) give_up("no pool");
      for (void* frame : all) memset(behind(frame), kGuardByte, kGuard);
      (*pool)->give(all, kFrames);
      return *pool;
    }();
    return *made;
  }
  // Receives, and looks whether what lies behind each frame is as it was.
  int receive(RxFrame* out, int capacity) {
    const int count = rings.receive(out, capacity, pool());
    for (void* frame : all) {
      for (const uint8_t *at = behind(frame), *end = at + kGuard; at != end; at++) {
        if (*at != kGuardByte) give_up("wrote behind a frame");
      }
    }
    return count;
  }
  static void release(const RxFrame& frame) {
    void* piece = frame.handle;
    pool().give(&piece, 1);
  }

  const uint32_t slots;
  Control* control;
  MemifPeer peer;
  MemifRings rings;
  uint8_t *rings_base, *buffers;
  uint32_t longest = kFrameBytes;  // of frames that come, when attach() is called

 private:
  static constexpr uint32_t kFrames = 8, kHeadroom = 128, kGuard = 128;
  static inline void* all[kFrames];
  static constexpr uint8_t kGuardByte = 0xa5;

  struct Mapped {
    int fd;
    uint8_t* address;
  };
  Mapped add_memory(uint32_t bytes) {
    const int memory = memfd_create("region", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    if (ftruncate(memory, bytes) != 0 || fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) != 0) give_up("cannot make a region");
    const int fd = control->adopt_fd(memory);
    auto* address = static_cast<uint8_t*>(control->map_region(fd, bytes));
    if (address == nullptr) give_up("cannot map a region");
    return mapped_[mapped_count_++] = {fd, address};
  }
  uint8_t* add_region(int index, uint32_t bytes) {
    const Mapped mapped = add_memory(bytes);
    peer.region_fd[index] = mapped.fd;
    return mapped.address;
  }
  // A frame's data begins behind mbuf, private bytes and headroom.
  static uint8_t* behind(void* frame) {
    return static_cast<uint8_t*>(frame) + 128 + netstack::kFramePrivateBytes + kHeadroom + kFrameBytes;
  }

  base::Arena* arena_;
  Mapped mapped_[3] = {};
  int mapped_count_ = 0;
};

}  // namespace memif_bed
