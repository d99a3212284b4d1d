// The rings of a vhost-user wire as its device drives them, in the driver's memory.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "netstack/wires/vhost/frame_queues.h"

namespace netstack {

// What the driver has shared of its memory. It names places in it by two kinds of addresses: rings by its own, buffers by the guest's.
class DriverMemory {
 public:
  static constexpr int kRegions = 8;
  struct Region {
    uint64_t guest, own, bytes;
    uint8_t* base;
  };

  void clear() noexcept { count_ = 0; }
  // False: more than there may be, or it wraps.
  [[nodiscard]] bool add(const Region& region) noexcept;
  // Where `bytes` at an address are mapped, all in one region; or nullptr.
  [[nodiscard]] uint8_t* at(uint64_t guest, uint64_t bytes) const noexcept { return find(guest, bytes, &Region::guest); }
  [[nodiscard]] uint8_t* at_own(uint64_t own, uint64_t bytes) const noexcept { return find(own, bytes, &Region::own); }

 private:
  [[nodiscard]] uint8_t* find(uint64_t address, uint64_t bytes, uint64_t Region::*begin) const noexcept;

  Region regions_[kRegions];
  int count_ = 0;
};

class DeviceQueues final : public FrameQueues {
 public:
  // Frames are sent through `to_driver` and received from `from_driver`; both rings begin at the given positions, and `memory` and the
  // events stay where they are.
  struct Side {
    virtio::Ring ring;
    uint16_t next = 0;
    const QueueEvents* events = nullptr;
  };
  DeviceQueues(const char* kind, uint32_t frame_bytes, const DriverMemory* memory) noexcept
      : FrameQueues(kind, frame_bytes), memory_(memory) {}

  void start(uint64_t features, const Side& to_driver, const Side& from_driver) noexcept;
  void stop() noexcept;
  // The position that a driver is told, to go on from.
  [[nodiscard]] uint16_t position(bool to_driver) const noexcept { return to_driver ? published_ : from_.next; }

  [[nodiscard]] int receive(RxFrame* out, int capacity, FramePool& pool) noexcept override;
  [[nodiscard]] bool waits() const noexcept override;
  [[nodiscard]] bool lay(const virtio::Header& header, const Piece* pieces, int count) noexcept override;
  void publish() noexcept override;
  void notify() noexcept override;
  [[nodiscard]] bool unpublished() const noexcept override { return to_.next != published_; }
  [[nodiscard]] bool taken() const noexcept override;
  void want_event(bool wanted) noexcept override;
  [[nodiscard]] int event_fd() const noexcept override { return from_.events == nullptr ? -1 : from_.events->kick; }
  void recover() noexcept override;

 private:
  [[nodiscard]] bool started() const noexcept { return from_.ring.used != nullptr; }
  // Filled buffers from `next` on; 0 if the index makes no sense.
  [[nodiscard]] uint16_t offered(const Side& side) noexcept;
  enum class Chain : uint8_t { done, wait, bad };
  [[nodiscard]] Chain take_chain(uint16_t head, FrameTaker* taker) noexcept;
  [[nodiscard]] bool fill_chain(uint16_t head, PieceCursor* cursor, uint8_t** first, uint32_t* written) noexcept;
  static void finish_buffer(const Side& side, uint16_t slot, uint32_t head, uint32_t bytes) noexcept;
  static void call(const Side& side) noexcept;

  const DriverMemory* memory_;
  Side to_, from_;
  uint16_t published_ = 0;  // to_.next as the driver knows it
  uint16_t most_room_ = 0;  // empty buffers that the driver has had out at once
};

}  // namespace netstack
