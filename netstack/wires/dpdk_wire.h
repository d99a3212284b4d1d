// A Wire over one DPDK port and queue; the kinds of wires differ in how they are opened and how they wake a sleeper.
// SPDX-License-Identifier: BSD-3-Clause
//
// The object lies in the family's arena. DPDK's port table is process-private memory that fork() copies and nobody changes after the
// open; the queues it points to lie in EAL's shared memory; descriptors and rings of the peer are Control's business. So any
// member may call in here, one at a time, as long as it catches up first.
//
// Frames to send wait in a ring of pointers as large as the pool: it cannot overflow. A memory wire whose ring is full keeps them there
// (dropping makes bulk transfers collapse); a wire without a peer keeps the last few for the peer that comes (a first ARP request, lost,
// would cost its sender a second) and drops the rest.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "netstack/wires/control.h"
#include "netstack/wires/frame_pool.h"
#include "netstack/wire.h"

namespace netstack {

class DpdkWire : public Wire {
 public:
  DpdkWire(uint16_t port, FramePool* pool, Control* control, int sleep_fd, rte_mbuf** queue, uint32_t queue_capacity) noexcept;

  [[nodiscard]] const WireFacts& facts() const noexcept override { return facts_; }
  [[nodiscard]] WireFacts& mutable_facts() noexcept { return facts_; }

  [[nodiscard]] int receive(RxFrame* out, int capacity) noexcept override;
  void release(void* handle) noexcept override;
  [[nodiscard]] bool allocate(TxFrame* out) noexcept override;
  void send(void* handle, uint32_t length) noexcept override;
  void flush() noexcept override;
  [[nodiscard]] int backlog() const noexcept override { return static_cast<int>(queued_end_ - queued_begin_); }

  [[nodiscard]] int sleep_fd() noexcept override { return sleep_fd_; }
  void arm() noexcept override {}
  void disarm() noexcept override {}

  [[nodiscard]] int control_fd() noexcept override { return -1; }
  void run_control() noexcept override {}

  // The few frames kept for a peer that may come count as free: they are no leak.
  [[nodiscard]] int free_frames() const noexcept override { return static_cast<int>(pool_->free_count()) + (plugged() ? 0 : backlog()); }
  [[nodiscard]] int total_frames() const noexcept override { return static_cast<int>(pool_->total()); }
  void recover() noexcept override;

 protected:
  static constexpr uint32_t kKeptUnplugged = 32;

  ~DpdkWire() = default;

  // False while nobody is at the other end: of what is sent then only the last kKeptUnplugged frames are kept.
  [[nodiscard]] virtual bool plugged() const noexcept { return true; }
  // After frames were handed to the driver.
  virtual void pushed() noexcept {}
  // Hands frames to the device, which owns those it takes: the first so many.
  [[nodiscard]] virtual uint16_t give_burst(rte_mbuf** frames, uint16_t count) noexcept;
  // Behind what frame `first` has, copies `pieces` into more frames of the pool, `frame_bytes` in each. False: there are not so many.
  [[nodiscard]] bool append_copies(rte_mbuf* first, const Piece* pieces, int count, uint32_t frame_bytes) noexcept;
  // Gives back a chain of such frames.
  void release_chain(rte_mbuf* frame) noexcept;
  // Gives back what was to be sent.
  virtual void release_queued(rte_mbuf* frame) noexcept { release(frame); }
  // Drops of what waits the frames for which `keep` returns false.
  template <class Keep>
  void keep_queued(Keep keep) noexcept {
    take_queued([&](rte_mbuf* frame) {
      const bool drop = !keep(frame);
      if (drop) release_queued(frame);
      return drop;
    });
  }
  // Takes out of what waits the frames for which `take` returns true.
  template <class Take>
  void take_queued(Take take) noexcept {
    uint32_t kept = queued_begin_;
    for (uint32_t i = queued_begin_; i != queued_end_; i++) {
      rte_mbuf* const frame = queue_[i & queue_mask_];
      if (!take(frame)) queue_[kept++ & queue_mask_] = frame;
    }
    queued_end_ = kept;
  }
  // In front of what waits.
  void queue_again(rte_mbuf** frames, uint32_t count) noexcept {
    while (count > 0) queue_[--queued_begin_ & queue_mask_] = frames[--count];
  }
  // Drops the oldest queued frames until `kept` are left.
  void drop_queued(uint32_t kept) noexcept;
  // Hands queued frames to the driver.
  void push_out() noexcept;
  // All but those for which `kept` returns true.
  template <class Kept>
  void forget_all_frames_but(Kept kept) noexcept {
    queued_begin_ = queued_end_ = 0;
    pool_->reset(kept);
  }

  WireFacts facts_{};
  Control* const control_;  // nullptr: nothing changes after the open
  FramePool* const pool_;
  const uint16_t port_;

 private:
  const int sleep_fd_;
  rte_mbuf** const queue_;
  const uint32_t queue_mask_;
  uint32_t queued_begin_ = 0;
  uint32_t queued_end_ = 0;
};

}  // namespace netstack
