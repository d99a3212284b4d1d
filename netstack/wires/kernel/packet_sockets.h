// The two packet sockets of a packet wire, made before and beside everything else because the kernel is slow at it.
// SPDX-License-Identifier: BSD-3-Clause
//
// Receiving: a ring (PACKET_RX_RING), which is looked at without a system call. A frame larger than a slot, as the kernel's own TCP
// sends where the device segments, is handed over whole through the socket's queue and only begins in its slot (PACKET_COPY_THRESH). A ring
// costs an RCU grace period (8 ms on an idle machine of 250 Hz, more on a busy one), so a thread makes it while DPDK's environment starts.
//
// Sending: no ring. The kernel would give the slots' pages to the receiver by reference and then, because the receiver is on the same
// machine, copy them to pages it must allocate first: one frame of 100 bytes costs 1.2 us through a ring, 0.9 us through send(), and in
// batches sendmmsg() is ahead as well (veth, this wire's frames). Each frame is led by a virtio header (PACKET_VNET_HDR), by which the
// kernel finishes checksums and takes several segments as one. The sending socket names no protocol, so nothing is delivered to it.
// A queueing discipline on the way out would only add latency, so there is none until the device needs it (PacketWire::transmit).
#pragma once

#include <cerrno>
#include <cstdint>
#include <linux/if_packet.h>

#include "base/own_thread.h"
#include "base/result.h"
#include "netstack/wires/kernel/bell_program.h"

namespace netstack {

// Whether what this socket sends goes to the device without its queueing discipline; 0 or a negative errno.
[[nodiscard]] long bypass_queueing(int sending, bool bypass) noexcept;

// The two as sockets of a network namespace, neither bound nor with a ring, and bells: what takes rights. Each a descriptor out of the
// program's sight or a negative errno.
struct PacketFds {
  int receiving, sending;
  BellFds bells;
};
// In the calling thread's namespace.
[[nodiscard]] PacketFds make_packet_fds() noexcept;
void close_packet_fds(PacketFds fds) noexcept;

class PacketSockets {
 public:
  // Takes `fds` over and starts to give the receiving one its ring: `slots` slots of `slot_bytes` in blocks of `block_bytes`.
  PacketSockets(const PacketFds& fds, uint32_t block_bytes, uint32_t slot_bytes, uint32_t slots) noexcept;
  ~PacketSockets();
  PacketSockets(const PacketSockets&) = delete;
  PacketSockets& operator=(const PacketSockets&) = delete;

  // Waits for the ring, maps it and binds both to the link of this index in their namespace, which may be ours alone. From here on they are
  // the caller's. An error is a line about capabilities if the kernel refused.
  base::Result<bool> finish(int interface, bool ours) noexcept;

  // Valid after finish().
  [[nodiscard]] int receiving() const noexcept { return fds_.receiving; }
  [[nodiscard]] int sending() const noexcept { return fds_.sending; }
  [[nodiscard]] uint8_t* ring() const noexcept { return ring_; }
  [[nodiscard]] const WakeBells& bells() const noexcept { return bells_; }
  [[nodiscard]] const BellFds& bell_fds() const noexcept { return fds_.bells; }

 private:
  static void make_ring(void* self) noexcept;
  [[nodiscard]] long bind_both(int interface) const noexcept;

  tpacket_req shape_;
  PacketFds fds_;
  long ring_result_ = -EAGAIN;
  uint8_t* ring_ = nullptr;
  WakeBells bells_;
  bool taken_ = false;
  base::OwnThread thread_;
};

}  // namespace netstack
