// The two rings of a connected vhost-user wire, from either side: frames in and out of memory that both ends share.
// SPDX-License-Identifier: BSD-3-Clause
//
// Who is the driver lays rings and buffers into its own memory and keeps to itself where they are (driver_queues.h); who is the device
// finds them in the driver's memory (device_queues.h). Whatever lies in shared memory may change at any time: each field is read once and
// checked, and indices that cannot be are taken as "nothing there". A peer that writes such things harms its own frames only; the first of
// each connection is logged.
//
// What is sent is shown to the peer by publish() only, for a whole burst (memif_rings.h has the reasons).
//
// Everything here is called with the stack's lock held; the objects lie in memory the family shares, and their pointers hold in every
// member that has caught up (control.h).
#pragma once

#include <cstdint>
#include <cstring>

#include "base/log.h"
#include "netstack/wires/frame_pieces.h"
#include "netstack/wires/vhost/virtio.h"

namespace netstack {

// The descriptors by which the two ends wake each other: "kick" wakes the device, "call" the driver. -1: nobody is woken.
struct QueueEvents {
  int kick = -1, call = -1;
};

class FrameQueues {
 public:
  // The longest frame in either direction, whatever was negotiated.
  static constexpr uint32_t kLongestFrame = 65535 + 14;

  // Copies up to `capacity` frames, or pieces of frames, into frames of `pool`; what is no frame is dropped. A frame of several pieces that
  // has no place among `capacity` waits for the next call.
  [[nodiscard]] virtual int receive(RxFrame* out, int capacity, FramePool& pool) noexcept = 0;
  [[nodiscard]] virtual bool waits() const noexcept = 0;
  // Lays one frame out: `header`, then the pieces. False if the peer has no room for it now.
  [[nodiscard]] virtual bool lay(const virtio::Header& header, const Piece* pieces, int count) noexcept = 0;
  // Shows the peer what was laid out. notify() wakes it if it sleeps.
  virtual void publish() noexcept = 0;
  virtual void notify() noexcept = 0;
  [[nodiscard]] virtual bool unpublished() const noexcept = 0;
  // The peer has taken all that it was shown.
  [[nodiscard]] virtual bool taken() const noexcept = 0;
  // Whether the peer shall wake us when it sends.
  virtual void want_event(bool wanted) noexcept = 0;
  // That says so, or -1.
  [[nodiscard]] virtual int event_fd() const noexcept = 0;
  // After a member died in here: goes on from what the peer was shown.
  virtual void recover() noexcept = 0;

 protected:
  ~FrameQueues() = default;

  void set_features(uint64_t features) noexcept {
    mergeable_ = (features & virtio::kMergeableBuffers) != 0;
    header_bytes_ = virtio::header_bytes(features);
    complained_ = false;
  }
  [[gnu::cold, gnu::noinline]] void complain(const char* what) noexcept {
    if (!complained_) base::log(base::LogLevel::warn, "wire %s: the peer %s", kind_, what);
    complained_ = true;
  }
  static void wake(int fd) noexcept;

  explicit FrameQueues(const char* kind, uint32_t frame_bytes) noexcept : kind_(kind), frame_bytes_(frame_bytes) {}

  const char* const kind_;      // of the wire, for messages
  const uint32_t frame_bytes_;  // in a frame of the pool
  uint32_t header_bytes_ = sizeof(virtio::Header);
  bool mergeable_ = false;

 private:
  bool complained_ = false;
};

// The bytes of a frame that is being laid out, taken from its header and pieces in turn.
class PieceCursor {
 public:
  PieceCursor(const void* header, uint32_t header_bytes, const Piece* pieces, int count) noexcept
      : at_(static_cast<const uint8_t*>(header)), left_here_(header_bytes), next_(pieces), end_(pieces + count), left_(header_bytes) {
    for (const Piece* piece = pieces; piece != end_; piece++) left_ += piece->bytes;
  }
  [[nodiscard]] uint32_t left() const noexcept { return left_; }
  // Copies as many as there are, `room` at most; how many.
  uint32_t copy(uint8_t* to, uint32_t room) noexcept {
    uint32_t copied = 0;
    while (copied < room && left_ > 0) {
      if (left_here_ == 0) {
        at_ = static_cast<const uint8_t*>(next_->data);
        left_here_ = next_++->bytes;
        continue;
      }
      const uint32_t n = left_here_ < room - copied ? left_here_ : room - copied;
      memcpy(to + copied, at_, n);
      at_ += n;
      left_here_ -= n;
      left_ -= n;
      copied += n;
    }
    return copied;
  }

 private:
  const uint8_t* at_;
  uint32_t left_here_;
  const Piece *next_, *end_;
  uint32_t left_;
};

// The bytes of a frame that comes, buffer after buffer: first its header, then what goes into frames of the pool.
class FrameTaker {
 public:
  FrameTaker(uint32_t header_bytes, uint32_t frame_bytes, FramePieces* pieces, FramePool& pool) noexcept
      : pieces_(pieces), pool_(pool), header_left_(header_bytes), header_bytes_(header_bytes), frame_bytes_(frame_bytes) {}

  // False: it has to wait (then nothing of it is held), or is none of ours any more.
  [[nodiscard]] bool add(const uint8_t* data, uint32_t bytes) noexcept;
  // It ends here. Whether there is something to be received.
  [[nodiscard]] bool finish() noexcept;
  [[nodiscard]] bool waits() const noexcept { return waits_; }
  void drop() noexcept { pieces_->give_back(pool_); }
  // Once its first buffer has been added.
  [[nodiscard]] uint16_t buffers() const noexcept { return header_.buffers; }

 private:
  FramePieces* pieces_;
  FramePool& pool_;
  virtio::Header header_{};
  uint32_t header_left_, length_ = 0;
  const uint32_t header_bytes_, frame_bytes_;
  bool waits_ = false;
};

}  // namespace netstack
