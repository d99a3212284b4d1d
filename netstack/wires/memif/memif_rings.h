// The two rings of a connected memif wire: frames in and out of memory that both ends share, without a driver in between.
// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's driver makes the connection: socket, handshake, regions, event descriptors. Its queue functions are not used: they put an mbuf
// with a copy of the frame between the ring and the stack on the way out, and wait for each cache line of the peer's in turn on the way in.
// Here a frame is written where the peer reads it, and buffers are asked for ahead.
//
// Who owns what (protocol version 2): the client lays both rings and all buffers into its regions. In the ring to the server
// the client fills buffers and moves `head`, the server reads them and moves `tail`. In the ring to the client the client offers empty
// buffers by `head`, the server fills them and moves `tail`. Both positions only grow, modulo 2^16.
//
//     to the server:  client fills, head ->        server reads, tail ->      (client: room = slots - (next - tail))
//     to the client:  client offers empty, head -> server fills, tail ->      (server: room = head - next)
//
// Filled slots become the peer's with one store-release of the position for a whole burst, which its load-acquire pairs with (as
// virtqueue_kick() and io_uring's tails do it): publish(). The position that the peer moves is read only when the room known is used up,
// since each read fetches a cache line from the other core. The same cost is why slots are asked for ahead, four of them at a time: the
// descriptors and buffers were written last by the other core, and to be written here they must be owned (prefetchw), not merely read.
//
// Whatever lies in shared memory may change at any time: each descriptor is read once and checked against its region, and positions
// that cannot be are taken as "nothing there". A peer that writes such things harms its own frames only; the first of each connection is
// logged.
//
// Invariants: 1 everything here is called with the stack's lock held; 2 the object lies in memory the family shares, and its pointers hold
// in every member that has caught up (control.h).
// Sources: the memif protocol, version 2 (libmemif's memif.h); docs/decisions/memif-rings.md.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "netstack/wires/control.h"
#include "netstack/wires/frame_pieces.h"
#include "netstack/wires/frame_pool.h"
#include "netstack/wires/memif/memif_peer.h"
#include "netstack/wire.h"

namespace netstack {

class MemifRings {
 public:
  static constexpr uint16_t kMaskInterrupt = 1;  // in a ring's flags: its reader needs no event

  // Begins with a new connection whose buffers, ours as the peer's, have `frame_bytes`; frames that come have up to `longest_bytes`, in as
  // many pieces as it takes. False if what the peer told makes no sense.
  [[nodiscard]] bool attach(const MemifPeer& peer, const Control& control, uint32_t frame_bytes, uint32_t longest_bytes) noexcept;
  void detach() noexcept {
    // A member may die between two lines, and others then ask attached(): what it implies is taken away after it and put there before it.
    receive_ = {};
    std::atomic_signal_fence(std::memory_order_seq_cst);
    send_ = {};
    published_ = 0;
    room_ = 0;
    open_ = nullptr;
  }
  [[nodiscard]] uint32_t send_slots() const noexcept { return send_.mask + 1u; }
  [[nodiscard]] bool attached() const noexcept { return receive_.ring != nullptr; }

  // Copies up to `capacity` frames, or pieces of frames, into frames of `pool`; what is no frame of ours is dropped. A frame of several
  // pieces that has no place among `capacity` waits for the next call.
  [[nodiscard]] int receive(RxFrame* out, int capacity, FramePool& pool) noexcept;
  // Something waits to be received.
  [[nodiscard]] bool waits() const noexcept {
    return attached() && receive_.next != (client_ ? receive_.ring->tail : receive_.ring->head).load(std::memory_order_acquire);
  }

  // The next free buffer of the peer's ring if it holds a whole frame, and if there are `slots` free ones; to be filled by fill() or
  // fill_with() before anything else is sent.
  [[nodiscard]] bool open(TxFrame* out, uint32_t slots = 1) noexcept;
  [[nodiscard]] bool is_open(const void* handle) const noexcept { return handle == open_; }
  void fill(uint32_t length) noexcept;
  // The same for a frame whose first `length` bytes are in the open buffer. The others are copied, into as many more as it takes; false if
  // the ring has not so many.
  [[nodiscard]] bool fill_with(uint32_t length, const Piece* pieces, int count) noexcept { return lay(length, pieces, count); }
  // Copies one frame into as many buffers as it takes; false if the ring has not so many.
  [[nodiscard]] bool copy(const Piece* pieces, int count) noexcept {
    (void)look_for_room();
    return lay(0, pieces, count);
  }
  [[nodiscard]] bool copy(const uint8_t* data, uint32_t length) noexcept {
    const Piece whole{data, length};
    return copy(&whole, 1);
  }
  // Shows the peer what was filled.
  void publish() noexcept;
  [[nodiscard]] uint32_t unpublished() const noexcept { return static_cast<uint16_t>(send_.next - published_); }
  // The peer has read all that it was shown.
  [[nodiscard]] bool taken() const noexcept;
  // After a member died in here: goes on from what the peer was shown. What was filled behind that is forgotten; its sender's
  // connection may not know that it was sent.
  void recover() noexcept;

  [[nodiscard]] std::atomic<uint16_t>& receive_flags() noexcept { return receive_.ring->flags; }
  [[nodiscard]] std::atomic<uint16_t>& send_flags() noexcept { return send_.ring->flags; }

 private:
  struct Descriptor {
    uint16_t flags;
    uint16_t region;
    uint32_t length;
    uint32_t offset;
    uint32_t metadata;
  };
  struct Ring {
    uint32_t cookie;
    std::atomic<uint16_t> flags;
    std::atomic<uint16_t> head;
    alignas(64) std::atomic<uint16_t> tail;
    alignas(64) Descriptor descriptors[1];  // as many as the ring has
  };
  static_assert(offsetof(Ring, flags) == 4 && offsetof(Ring, head) == 6 && offsetof(Ring, tail) == 64 &&
                offsetof(Ring, descriptors) == 128);
  struct Side {
    Ring* ring;
    uint16_t mask;  // slots - 1
    uint16_t next;  // the slot to read or fill next
  };
  struct Region {
    uint8_t* base;
    size_t bytes;
  };

  static constexpr uint32_t kCookie = 0x3e31f20;

  [[nodiscard]] bool place(const MemifRing& told, Side* side) const noexcept;
  // Says what the peer did, once a connection.
  [[gnu::cold, gnu::noinline]] void complain(const char* what) noexcept;
  [[nodiscard]] uint8_t* buffer(uint16_t region, uint32_t offset, size_t bytes) const noexcept;
  void prefetch(const Side& side, uint16_t slot) const noexcept;
  void give_slots_back() noexcept;
  [[nodiscard]] uint32_t look_for_room() noexcept;
  // Takes the frame that begins at *slot, into frames of `pool`. False: it has to wait, for frames of the pool or for more room. Else
  // *slot is behind it, and pieces->count is 0 if it is none of ours.
  [[nodiscard]] bool take_frame(uint16_t* slot, uint16_t end, FramePieces* pieces, FramePool& pool) noexcept;
  // The same for what does not lie in one buffer.
  [[nodiscard]] bool take_chain(uint16_t* slot, uint16_t end, FramePieces* pieces, FramePool& pool) noexcept;
  // The empty buffer that a slot has, and what it holds; nullptr if the peer tells of none.
  [[nodiscard]] uint8_t* empty_buffer(uint16_t slot, uint32_t* capacity) noexcept;
  void fill_slot(uint16_t slot, uint32_t bytes, uint16_t flags) noexcept;
  // Fills buffers from send_.next on, whose first has `length` bytes already.
  [[nodiscard]] bool lay(uint32_t length, const Piece* pieces, int count) noexcept;

  bool client_ = false;
  uint32_t frame_bytes_ = 0, longest_bytes_ = 0;
  Region regions_[MemifPeer::kRegions] = {};
  Side receive_{}, send_{};
  uint16_t published_ = 0;  // send_.next as the peer knows it
  uint32_t room_ = 0;       // free slots from send_.next on, as far as known
  const void* open_ = nullptr;
  bool complained_ = false;
};

}  // namespace netstack
