// Virtio's split ring and the header of its network frames, as they lie in memory that driver and device share.
// SPDX-License-Identifier: BSD-3-Clause
//
// The driver owns descriptors and the ring of available buffers, the device the ring of used ones. Both indices only grow, modulo 2^16. A
// buffer is a chain of descriptors, named by the number of its first. Everything is little endian (VIRTIO_F_VERSION_1, and before it the
// machine's own order, which is the same here).
// Source: Virtual I/O Device (VIRTIO) Version 1.1, 2.6 and 5.1.6.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "netstack/wires/segment_train.h"

namespace netstack::virtio {

// Features, as bits. What the device offers and the driver takes is in force.
inline constexpr uint64_t kChecksum = 1ULL << 0;       // the device takes frames whose checksum is not finished
inline constexpr uint64_t kGuestChecksum = 1ULL << 1;  // the driver does
inline constexpr uint64_t kGuestTso4 = 1ULL << 7;      // the driver takes TCP segments over IPv4 that are longer than a frame
inline constexpr uint64_t kHostTso4 = 1ULL << 11;      // the device does
inline constexpr uint64_t kMergeableBuffers = 1ULL << 15;
inline constexpr uint64_t kAnyLayout = 1ULL << 27;
inline constexpr uint64_t kVersion1 = 1ULL << 32;

struct Descriptor {
  static constexpr uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
  uint64_t address;
  uint32_t length;
  uint16_t flags, next;
};
static_assert(sizeof(Descriptor) == 16);

struct Available {
  static constexpr uint16_t kNoInterrupt = 1;
  std::atomic<uint16_t> flags, index;
  uint16_t ring[1];  // as many as the queue has
};

struct UsedElement {
  uint32_t id, length;
};

struct Used {
  static constexpr uint16_t kNoNotify = 1;
  std::atomic<uint16_t> flags, index;
  UsedElement ring[1];
};

struct Ring {
  Descriptor* descriptors = nullptr;
  Available* available = nullptr;
  Used* used = nullptr;
  uint16_t mask = 0;  // entries - 1

  [[nodiscard]] uint32_t entries() const noexcept { return mask + 1U; }
  [[nodiscard]] static constexpr size_t descriptor_bytes(uint32_t entries) noexcept { return entries * sizeof(Descriptor); }
  [[nodiscard]] static constexpr size_t available_bytes(uint32_t entries) noexcept { return 4 + entries * sizeof(uint16_t); }
  [[nodiscard]] static constexpr size_t used_bytes(uint32_t entries) noexcept { return 4 + entries * sizeof(UsedElement); }
};

// In front of each frame. Before version 1 the number of buffers is there only where they can be merged.
struct Header {
  static constexpr uint8_t kDataValid = 2;  // in net.flags: the checksum has been verified
  VnetHeader net;
  uint16_t buffers;
};
static_assert(sizeof(Header) == 12);

[[nodiscard]] constexpr uint32_t header_bytes(uint64_t features) noexcept {
  return (features & (kVersion1 | kMergeableBuffers)) != 0 ? sizeof(Header) : sizeof(VnetHeader);
}

}  // namespace netstack::virtio
