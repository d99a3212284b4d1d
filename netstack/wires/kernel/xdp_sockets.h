// The AF_XDP sockets of an interface's receive queues, which share one memory of frames.
// SPDX-License-Identifier: BSD-3-Clause
//
// A frame can only go to a socket of the queue that it came by, so there is one for each; what is sent goes by the first. The memory (umem)
// is the wire's pool of frames: the kernel, or the device by itself, writes what comes where the stack reads it.
//
// How the device and the kernel work together is found out by trying, the best first, and is told to a person: the program native (in the
// driver) or generic (behind it, once the kernel has made an sk_buff), the frames without a copy by the kernel or with one.
#pragma once

#include <cstdint>

#include "netstack/wires/kernel/shared_interface.h"
#include "netstack/wires/kernel/xdp_rings.h"

namespace netstack {

inline constexpr int kMostXdpQueues = 32;
inline constexpr uint32_t kXdpHeadroom = 256;  // before a received frame: the frame's own head (frame_pool.h)

struct XdpMemory {
  void* frames;
  uint64_t bytes;
  uint32_t chunk_bytes;
};

struct XdpQueue {
  int fd = -1;
  XdpRing<uint64_t> fill, completion;
  XdpRing<xdp_desc> receive, send;  // the latter of the first queue's only
};

struct XdpSockets {
  XdpQueue queue[kMostXdpQueues];
  int count = 0;
  bool zero_copy = false;
  bool scatters = false;  // a frame may come in several pieces
};

// What hold_link_name() takes: for the interface, and for who waits for it to be given up.
[[nodiscard]] base::Error xdp_name(int interface) noexcept;
[[nodiscard]] base::Error xdp_next_name(int interface) noexcept;
// Of an interface: how many queues receive.
[[nodiscard]] int receive_queues(const char* name) noexcept;
// Makes sockets with rings of these sizes, neither bound nor in the map. The error is a line for a person.
base::Result<bool> make_xdp_sockets(const SharedInterface& device, const XdpMemory& memory, uint32_t receive_size, uint32_t send_size,
                                    XdpSockets* out) noexcept;
// Binds them to their queues, without a copy if `zero_copy` and the device can. A queue whose last user has just died is waited for.
base::Result<bool> bind_xdp_sockets(const SharedInterface& device, bool zero_copy, XdpSockets* sockets) noexcept;
void close_xdp_sockets(XdpSockets* sockets) noexcept;

}  // namespace netstack
