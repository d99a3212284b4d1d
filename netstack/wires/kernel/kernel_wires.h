// The wires whose other side is an interface of this kernel: their openers, and what those over packet sockets share.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/result.h"
#include "netstack/wires/dpdk_wire.h"
#include "netstack/wires/kernel/packet_sockets.h"
#include "netstack/wires/opening.h"

namespace netstack {

struct PacketParts;
class RtNetlink;

// The ring of a packet wire.
struct RingShape {
  uint32_t block_bytes, slot_bytes, slots;
  uint32_t frame_room;  // of the pool's frames: one that the stack sends fits
};
[[nodiscard]] RingShape ring_shape(const Opening& opening, uint32_t mtu) noexcept;
// What a wire over `sockets` is made of, on the link of this index in their namespace, which is up, and `ours` if nobody else uses it; with
// memory for an object of so many bytes.
base::Result<PacketParts> prepare_packet_wire(const Opening& opening, int interface, bool ours, uint32_t mtu, PacketSockets& sockets,
                                              size_t object_bytes) noexcept;
// A wire over them.
base::Result<DpdkWire*> open_packet_wire(const Opening& opening, int interface, bool ours, uint32_t mtu,
                                         PacketSockets& sockets) noexcept;

base::Result<Wire*> open_veth(const Opening& opening) noexcept;
base::Result<Wire*> open_host(const Opening& opening) noexcept;
// Keep the rights that these take, for a process that is about to lose them.
void keep_veth_rights(const StackConfig& config) noexcept;
void keep_host_rights(const StackConfig& config) noexcept;
base::Result<Wire*> open_af_xdp(const Opening& opening) noexcept;
base::Result<Wire*> open_packet(const Opening& opening) noexcept;
base::Result<Wire*> open_tap(const Opening& opening) noexcept;

// Gives the link at the other end of a wire the IPv6 addresses that go with opening.out->ip6, and says so in its reach. A kernel without
// IPv6 leaves the wire without it, unless it was asked for: then 0 or a negative errno.
[[nodiscard]] long add_host_addresses6(const Opening& opening, RtNetlink& netlink, const char* link) noexcept;

}  // namespace netstack
