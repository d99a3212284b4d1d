// One connection of a vhost-user wire, in either role: what the two ends tell each other until frames flow.
// SPDX-License-Identifier: BSD-3-Clause
//
// A session is used again for each peer that comes. Everything is called with the stack's lock held and Control::current() set.
#pragma once

#include <cstdint>

#include "netstack/wires/vhost/device_queues.h"
#include "netstack/wires/vhost/driver_queues.h"
#include "netstack/wires/vhost/vhost_channel.h"

namespace netstack {

// What both roles have in common, from the two ends' point of view.
struct VhostOffer {
  bool long_segments = true;  // of TCP over IPv4, longer than a frame
  bool trusted = false;       // a driver's memory may be of a kind that it could take away (device only)
};

class VhostSession {
 public:
  // A channel has been opened. False: nothing comes of it.
  [[nodiscard]] virtual bool begin() noexcept = 0;
  // A message has come with `count` descriptors, of which what is not kept is closed. False: the connection is to be ended.
  [[nodiscard]] virtual bool take(const VhostMessage& message, const int* fds, int count) noexcept = 0;
  // The channel is to be closed: gives up what came over it.
  virtual void end() noexcept = 0;

  // Frames flow.
  [[nodiscard]] bool up() const noexcept { return up_; }
  [[nodiscard]] virtual FrameQueues& queues() noexcept = 0;
  // What the peer takes, and sends: frames whose checksums are unfinished, and segments that are longer than a frame.
  [[nodiscard]] bool peer_takes_unfinished() const noexcept { return unfinished_; }
  [[nodiscard]] bool peer_takes_long() const noexcept { return long_out_; }
  [[nodiscard]] bool peer_sends_long() const noexcept { return long_in_; }
  // Counts the times that frames began to flow: it tells one peer from the next.
  [[nodiscard]] uint32_t ups() const noexcept { return ups_; }

 protected:
  VhostSession(const char* kind, VhostChannel* channel, Control* control, const VhostOffer& offer) noexcept
      : kind_(kind), channel_(channel), control_(control), offer_(offer) {}
  ~VhostSession() = default;

  void go_up() noexcept {
    ups_++;
    up_ = true;
  }
  void go_down() noexcept { up_ = false; }
  [[gnu::cold]] bool refuse(const char* why) noexcept;

  const char* const kind_;
  VhostChannel* const channel_;
  Control* const control_;
  const VhostOffer offer_;
  bool unfinished_ = false, long_out_ = false, long_in_ = false;

 private:
  bool up_ = false, refused_ = false;
  uint32_t ups_ = 0;
};

// The driver's end ("virtio-user"): offers its memory and rings.
class VhostDriver final : public VhostSession {
 public:
  // With memory for DriverQueues in file `fd`, and `events` that were made for each of the two rings.
  VhostDriver(const char* kind, VhostChannel* channel, Control* control, const VhostOffer& offer, uint32_t frame_bytes, uint8_t* memory,
              uint32_t buffer_bytes, int fd, const QueueEvents (&events)[2]) noexcept;

  [[nodiscard]] bool begin() noexcept override;
  [[nodiscard]] bool take(const VhostMessage& message, const int* fds, int count) noexcept override;
  void end() noexcept override;
  [[nodiscard]] FrameQueues& queues() noexcept override { return queues_; }

 private:
  [[nodiscard]] bool tell_ring(uint32_t index, const virtio::Ring& ring) noexcept;
  [[nodiscard]] uint64_t wanted() const noexcept;

  uint8_t* const memory_;
  const uint64_t memory_bytes_;
  const int fd_;
  QueueEvents events_[2];
  DriverQueues queues_;
};

// The device's end ("vhost"): works in the memory of a driver, which may be a virtual machine's.
class VhostDevice final : public VhostSession {
 public:
  VhostDevice(const char* kind, VhostChannel* channel, Control* control, const VhostOffer& offer, uint32_t frame_bytes) noexcept
      : VhostSession(kind, channel, control, offer), queues_(kind, frame_bytes, &memory_) {}

  [[nodiscard]] bool begin() noexcept override;
  [[nodiscard]] bool take(const VhostMessage& message, const int* fds, int count) noexcept override;
  void end() noexcept override;
  [[nodiscard]] FrameQueues& queues() noexcept override { return queues_; }

 private:
  static constexpr int kRings = 2;  // 0 to the driver, 1 from it
  struct Vring {
    uint32_t entries = 0;
    uint16_t base = 0;
    uint64_t descriptors = 0, available = 0, used = 0;  // the driver's addresses
    bool placed = false, kicked = false, enabled = false;
    QueueEvents events;
  };
  struct Mapped {
    void* base = nullptr;
    int fd = -1;
  };

  [[nodiscard]] uint64_t offered() const noexcept;
  [[nodiscard]] bool set_memory(const VhostMessage& message, const int* fds, int count) noexcept;
  [[nodiscard]] bool set_ring(const VhostMessage& message, Vring& ring) noexcept;
  [[nodiscard]] bool set_event(const VhostMessage& message, int* event, bool has_fd, int fd) noexcept;
  [[nodiscard]] bool answer_base(uint32_t index) noexcept;
  void pause() noexcept;
  void forget_memory() noexcept;
  void forget_event(int* event) noexcept;
  // Starts or stops the queues, as what is known of both rings says. False: it makes no sense.
  [[nodiscard]] bool look_at_rings() noexcept;
  [[nodiscard]] bool place(const Vring& told, DeviceQueues::Side* side) const noexcept;

  uint64_t features_ = 0;
  Vring rings_[kRings];
  Mapped mapped_[DriverMemory::kRegions];
  DriverMemory memory_;
  DeviceQueues queues_;
};

}  // namespace netstack
