// A Wire over AF_XDP sockets, at an interface whose addresses the kernel has as well.
// SPDX-License-Identifier: BSD-3-Clause
//
// What comes is steered (steering_program.h) into a socket's ring without having been in the kernel's stack, in frames of the wire's own
// pool; what goes lies in frames of the same pool and goes to the device past everything, so the wire finds the next station itself
// (next_hops.h): the stack sends all to the interface's own hardware address, as on every shared wire, and that is replaced here.
//
// Whose is a frame? Each says in which ring it was put, and where (Hold). It is the kernel's from when it was published there until it is
// read out of the ring that answers. After a member died inside, what the rings say is put beside what the frames say, and nothing is lost.
//
// What is sent is published under the stack's lock; the call that has the kernel take it (sendto) is made behind the lock by whoever leaves
// it, and costs nobody a wait.
//
// An interface has one such wire. Who is killed leaves somebody behind for a while, who sends what is left. A server that is started in its
// place meanwhile says by a name that it waits (xdp_next_name()), and gets the interface as soon as that one has seen it.
//
// Invariants: 1 a frame's Hold is written before it is published, and cleared before the ring that has answered is told so; 2 only the
// holder of the stack's lock touches a ring; 3 so many frames as the pool can spare are with the kernel to receive into, whenever all that
// came has been taken.
#pragma once

#include "netstack/wires/dpdk_wire.h"
#include "netstack/wires/kernel/next_hops.h"
#include "netstack/wires/kernel/shared_interface.h"
#include "netstack/wires/kernel/xdp_sockets.h"

namespace netstack {

// What it is made of.
struct XdpParts {
  const XdpSockets* sockets;
  FramePool* pool;
  uint32_t chunk_bytes;
  WireMemory memory;
  PortSteering* steering;
  int sleep_fd;
  int link_fd, name_fd;
  bool unfinished_come;  // what the kernel has sent may come with unfinished checksums
};

class XdpWire final : public DpdkWire {
 public:
  XdpWire(const XdpParts& parts, const SharedInterface& device, const IpNetwork& address, const KernelRoutes& routes) noexcept;
  // 0 or a negative errno.
  [[nodiscard]] long start() noexcept { return hops_.open(routes_); }
  // So many frames of each queue are with the kernel to receive into.
  [[nodiscard]] static uint32_t frames_to_receive(uint32_t all, int queues) noexcept;

  [[nodiscard]] int receive(RxFrame* out, int capacity) noexcept override;
  [[nodiscard]] bool crowded() const noexcept override;
  [[nodiscard]] bool allocate(TxFrame* out) noexcept override;
  void send_tcp(void* handle, uint32_t length) noexcept override;
  void send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept override;
  void flush() noexcept override;
  void allow_departures() noexcept override { departs_allowed_ = true; }
  [[nodiscard]] int take_departure() noexcept override;
  [[nodiscard]] bool depart(int number) noexcept override;
  [[nodiscard]] bool refused() const noexcept override { return !departs() && (backlog() > 0 || is_waiting()); }
  [[nodiscard]] bool delivered() const noexcept override { return gone_ || (backlog() == 0 && first().send.filled() == 0); }
  void leave_name() noexcept override { left_ = true; }
  [[nodiscard]] int control_fd() noexcept override { return routes_.changes_fd(); }
  void run_control() noexcept override;
  [[nodiscard]] PortSteering* steering() const noexcept override { return steering_; }
  [[nodiscard]] bool leads_to(const IpAddress& address) const noexcept override { return routes_.lead_to(address); }
  [[nodiscard]] int free_frames() const noexcept override;
  void recover() noexcept override;

 private:
  static constexpr int kMostParked = 128;
  static constexpr uint32_t kOurs = 0, kToSend = 1, kToReceive = 2;  // the last with the queue's number added

  [[nodiscard]] uint16_t give_burst(rte_mbuf** frames, uint16_t count) noexcept override;
  [[nodiscard]] const XdpQueue& first() const noexcept { return sockets_.queue[0]; }
  [[nodiscard]] rte_mbuf* frame_of(uint64_t address) const noexcept;
  [[nodiscard]] int receive_from(int number, RxFrame* out, int capacity) noexcept;

  void refill(int number) noexcept;
  void take_completed() noexcept;
  [[nodiscard]] bool publish_to_send(rte_mbuf* frame) noexcept;
  void kick() noexcept;
  void park(rte_mbuf* frame) noexcept;
  void send_parked() noexcept;
  void follow_changes() noexcept;
  [[nodiscard]] bool is_published(uint32_t ring, uint32_t index) const noexcept;
  void hold_unread() noexcept;
  void make_room_for_next() noexcept;
  // Something is published that the kernel has to be called for.
  [[nodiscard]] bool is_waiting() const noexcept { return !gone_ && first().send.filled() > 0 && first().send.needs_call(); }

  XdpSockets sockets_;
  uint8_t* const frames_;
  const uint32_t chunk_shift_;
  const uint32_t to_receive_;  // frames of each queue
  const uint32_t longest_;     // IP packet that fits a frame of the pool
  const bool unfinished_come_;
  const int link_fd_;
  PortSteering* const steering_;
  uint32_t receiving_[kMostXdpQueues] = {};  // frames with the kernel
  int next_queue_ = 0;
  bool departs_allowed_ = false;
  bool left_ = false, gone_ = false;
  uint64_t looked_ns_ = 0;
  int parked_count_ = 0;
  rte_mbuf* parked_[kMostParked];  // until their next station is known
  SharedInterface device_;
  KernelRoutes routes_;
  NextHops hops_;
};

}  // namespace netstack
