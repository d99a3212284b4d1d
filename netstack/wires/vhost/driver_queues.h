// The rings of a vhost-user wire as its driver drives them: rings and buffers are in memory of ours that the device may write to.
// SPDX-License-Identifier: BSD-3-Clause
//
// The memory, once for the life of the wire: for each of the two rings descriptors, available and used; then a buffer for each descriptor
// of either. Buffer i belongs to descriptor i, so nothing that says where a buffer is has to be read back from where the device can write.
//
// To receive, each buffer is a chain of one, and goes back into the available ring when it has been copied: as many are out as the ring has
// entries, always. To send, descriptors are used in turn, a chain of as many as the frame takes; a device may give chains back in any
// order, and room is made from the oldest on.
#pragma once

#include "netstack/wires/vhost/frame_queues.h"

namespace netstack {

class DriverQueues final : public FrameQueues {
 public:
  static constexpr uint32_t kEntries = 1024;

  // In memory of memory_bytes(buffer_bytes), page-aligned; `events` stay where they are.
  DriverQueues(const char* kind, uint32_t frame_bytes, uint8_t* memory, uint32_t buffer_bytes, const QueueEvents* from_device,
               const QueueEvents* to_device) noexcept;
  [[nodiscard]] static size_t memory_bytes(uint32_t buffer_bytes) noexcept { return kRingBytes * 2 + size_t{2} * kEntries * buffer_bytes; }

  // With another device: everything anew.
  void start(uint64_t features) noexcept;
  void stop() noexcept { started_ = false; }
  // What the device fills, and what we do.
  [[nodiscard]] const virtio::Ring& from_device() const noexcept { return from_; }
  [[nodiscard]] const virtio::Ring& to_device() const noexcept { return to_; }

  [[nodiscard]] int receive(RxFrame* out, int capacity, FramePool& pool) noexcept override;
  [[nodiscard]] bool waits() const noexcept override;
  [[nodiscard]] bool lay(const virtio::Header& header, const Piece* pieces, int count) noexcept override;
  void publish() noexcept override;
  void notify() noexcept override;
  [[nodiscard]] bool unpublished() const noexcept override { return chains_ != published_chains_; }
  [[nodiscard]] bool taken() const noexcept override;
  void want_event(bool wanted) noexcept override;
  [[nodiscard]] int event_fd() const noexcept override { return from_events_->call; }
  void recover() noexcept override;

 private:
  static constexpr uint16_t kMask = kEntries - 1;
  static constexpr size_t kAvailableAt = virtio::Ring::descriptor_bytes(kEntries);
  static constexpr size_t kUsedAt = (kAvailableAt + virtio::Ring::available_bytes(kEntries) + 63) / 64 * 64;
  static constexpr size_t kRingBytes = (kUsedAt + virtio::Ring::used_bytes(kEntries) + 4095) / 4096 * 4096;

  [[nodiscard]] static virtio::Ring ring_at(uint8_t* memory) noexcept;
  void lay_ring(const virtio::Ring& ring, uint8_t* buffers, bool to_be_filled) noexcept;
  [[nodiscard]] uint8_t* receive_buffer(uint32_t index) const noexcept { return receive_buffers_ + size_t{index} * buffer_bytes_; }
  [[nodiscard]] uint8_t* send_buffer(uint32_t index) const noexcept { return send_buffers_ + size_t{index} * buffer_bytes_; }
  // Takes the frame that begins at *slot of `end`, and moves *slot behind it. False: it has to wait.
  [[nodiscard]] bool take_frame(uint16_t* slot, uint16_t end, FrameTaker* taker) noexcept;
  void offer_again(uint16_t slot, uint32_t id) noexcept;
  void reclaim() noexcept;
  void kick(const virtio::Ring& ring, const QueueEvents& events) noexcept;

  const virtio::Ring from_, to_;
  uint8_t *const receive_buffers_, *const send_buffers_;
  const uint32_t buffer_bytes_;
  const QueueEvents *const from_events_, *const to_events_;
  bool started_ = false;
  uint16_t next_used_ = 0;                         // of from_: the next one to be received
  uint16_t next_ = 0, oldest_ = 0;                 // of to_: descriptors from oldest_ to next_ are taken
  uint16_t chains_ = 0, chains_back_ = 0;          // laid out so far, and given back by the device
  uint16_t published_ = 0, published_chains_ = 0;  // next_ and chains_ as the device knows them
  uint16_t length_[kEntries] = {};                 // by first descriptor: of the chain
  bool back_[kEntries] = {};                       // by first descriptor: it has been given back, and is not the oldest
};

}  // namespace netstack
