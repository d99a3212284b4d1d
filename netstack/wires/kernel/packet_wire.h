// A Wire over the packet sockets of one link: frames are copied out of a ring, and sent with what the kernel can do for them.
// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's af_packet driver is not used: it copies what it sends into a ring, which is slower than sendmsg() (packet_sockets.h), and knows
// neither unfinished checksums nor segmentation. Frames still are mbufs of the wire's DPDK pool. Both ends of the link then may keep their
// offloads: the kernel's TCP sends segments of up to 64 KB without checksums, and so do we (segment_train.h). What the kernel says
// about a received frame's checksum (valid, or not finished because the frame never left the machine) spares the stack the sum.
//
// Invariants: 1 everything lies in memory the family shares, the arrays of messages too, which are too large for a program's stack; 2 a
// frame the kernel refuses for want of memory stays queued, if it fits its mbuf; one that it refuses for any other reason is dropped, and
// all are once it takes none for long;
// 3 what is queued when a call returns holds its whole frame, or its sender flushes next (send_tcp_with); 4 what departs (departures.h)
// holds its whole frame.
#pragma once

#include <atomic>

#include "netstack/wires/dpdk_wire.h"
#include "netstack/wires/kernel/departures.h"
#include "netstack/wires/kernel/packet_burst.h"
#include "netstack/wires/kernel/packet_ring.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/packet_sockets.h"
#include "netstack/wires/opening.h"

namespace netstack {

// What a packet wire is made of.
struct PacketParts {
  const PacketSockets* sockets;  // finished
  uint8_t* ring;                 // theirs
  int own_link;                  // index of a link that is ours alone, or 0
  RingShape shape;
  uint32_t mtu;
  FramePool* pool;
  WireMemory memory;
};

class PacketWire : public DpdkWire {
 public:
  explicit PacketWire(const PacketParts& parts) noexcept;

  [[nodiscard]] int receive(RxFrame* out, int capacity) noexcept override;
  [[nodiscard]] bool rests() const noexcept override { return ring_.is_empty() && backlog() == 0; }
  [[nodiscard]] bool crowded() const noexcept override { return ring_.half_full(); }
  void arm() noexcept override;
  [[nodiscard]] const WakeBells& bells() const noexcept override { return bells_; }
  [[nodiscard]] bool hang_bells() noexcept override { return own_link_ == 0 || hang_bells_late(bell_sockets_, own_link_); }
  void send_tcp(void* handle, uint32_t length) noexcept override;
  void send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept override;
  [[nodiscard]] bool allocate(TxFrame* out) noexcept override;
  void flush() noexcept override;
  [[nodiscard]] bool refused() const noexcept override { return backlog() > 0 && !departs(); }
  [[nodiscard]] bool delivered() const noexcept override { return backlog() == 0 && departures_.frames_back() == departures_.frames(); }
  void allow_departures() noexcept override { departs_allowed_ = true; }
  [[nodiscard]] int take_departure() noexcept override;
  [[nodiscard]] bool depart(int number) noexcept override;
  [[nodiscard]] SendCost send_cost() const noexcept override {
    return {sent_messages_.load(std::memory_order_relaxed), sent_cycles_.load(std::memory_order_relaxed)};
  }
  [[nodiscard]] int free_frames() const noexcept override;
  void recover() noexcept override;

 protected:
  ~PacketWire() = default;

 private:
  static constexpr uint64_t kMostRefusedNs = 100'000'000;  // below the least retransmission time-out
  static constexpr uint32_t kMostDropped = 4096;

  [[nodiscard]] uint16_t give_burst(rte_mbuf** frames, uint16_t count) noexcept override;
  void flush_now() noexcept;
  [[nodiscard]] long transmit() noexcept;
  void look_at_departures() noexcept;
  void note_cost(const Departure& departure) noexcept;
  [[nodiscard]] bool refused_for_long() noexcept;
  [[nodiscard]] bool fetch(const tpacket2_hdr& slot, rte_mbuf** frames, uint32_t pieces) noexcept;
  bool discard_queued() noexcept;

  const int receiving_, sending_;
  const int own_link_;
  int bell_sockets_[BellFds::kSockets];
  int bell_fds_[WakeBells::kBells];
  WakeBells bells_;
  const uint32_t frame_room_;
  PacketRing ring_;
  bool bypassing_ = true;          // the device's queueing discipline
  uint64_t refused_since_ns_ = 0;  // 0: the kernel took the last that it was given
  bool departs_allowed_ = false;
  bool judges_ = false;  // something was refused on its way: it goes with the lock held, and it is seen why
  bool refers_ = false;  // something that is queued does not hold its payload
  std::atomic<uint64_t> sent_messages_{0}, sent_cycles_{0};  // of departures that are back; written with the lock held
  std::atomic<bool> left_behind_{false};  // something is queued behind what is under way
  // Not constructed: zeros, of which few are ever touched.
  PacketBurst burst_;
  Departures departures_;
};

}  // namespace netstack
