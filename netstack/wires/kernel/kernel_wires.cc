// The ring of a packet socket, and a wire over one.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/kernel_wires.h"

#include <arpa/inet.h>
#include <cstring>
#include <new>

#include "netstack/wires/kernel/packet_wire.h"
#include "netstack/wires/kernel/rtnetlink.h"

namespace netstack {
namespace {

// The packet socket's ring: a slot holds the kernel's header (80 bytes before the frame), the frame and a VLAN tag.
constexpr uint32_t kSlotOverhead = 80 + 18;
constexpr uint32_t kPage = 4096;
constexpr uint32_t kSmallSlot = 2048;
constexpr uint32_t kSmallestSlot = 1024;
constexpr uint32_t kMostSlots = 4096;
constexpr uint32_t kLeastSlots = 64;
constexpr uint32_t kBlock = 64 << 10;  // no larger than the smallest ring

}  // namespace

// A sixth of the memory that the stack may use is the ring's. It has to hold what comes until somebody polls, which while the program
// works can take the service's 10 ms: thousands of frames if thousands of clients send at once. So it has many slots, and a frame that does
// not fit its slot takes a system call more. With 1024 slots of 8 KB one frame in ten was lost to `wrk -c4000`, with these none;
// redis-benchmark -P 16 -t mset, whose frames have 8 KB, is 4 % slower and ahead of loopback (1.03 to 1.25 times), values of 3 KB are set
// as fast. Where frames are larger than a page a slot is as large as a frame.
//
// Each fork copies the page tables of the ring (the kernel's pages are mapped, not faulted in) and each exit empties them: 120 ns a page,
// 120 us for 4 MB. The pages of a block are one folio, whose entries the kernel copies and clears together: in blocks of 64 KB it is 50 us,
// in larger ones no less. Where the kernel finds no memory in such pieces it takes single pages.
// (Rejected: MADV_DONTFORK, and each child that drives the wire maps the ring itself. Mapping and unmapping takes 260 ns a page.) So where
// the link lets larger frames through than a slot could hold anyway, slots are for requests with their usual headers, and for
// acknowledgements.
RingShape ring_shape(const Opening& opening, uint32_t mtu) noexcept {
  const uint32_t room = power_of_two(mtu + kSlotOverhead < kSmallSlot ? kSmallSlot : mtu + kSlotOverhead);
  const uint32_t slot_bytes = room <= kSmallSlot ? kSmallSlot : room <= kPage ? kSmallestSlot : room;
  const uint32_t budget = (memory_mb(opening.config) << 20) / 6;
  uint32_t slots = kMostSlots;
  while (slots > kLeastSlots && slots * slot_bytes > budget) slots /= 2;
  return RingShape{slot_bytes < kBlock ? kBlock : slot_bytes, slot_bytes, slots, room};
}

base::Result<PacketParts> prepare_packet_wire(const Opening& opening, int interface, bool ours, uint32_t mtu, PacketSockets& sockets,
                                              size_t object_bytes) noexcept {
  const RingShape shape = ring_shape(opening, mtu);
  auto pool = make_pool(opening, shape.frame_room);
  if (!pool) return pool.error();
  auto memory = wire_memory(opening, object_bytes, **pool);
  if (!memory) return memory.error();
  if (auto finished = sockets.finish(interface, ours); !finished) return finished.error();

  return PacketParts{&sockets, sockets.ring(), ours ? interface : 0, shape, mtu, *pool, *memory};
}

base::Result<DpdkWire*> open_packet_wire(const Opening& opening, int interface, bool ours, uint32_t mtu,
                                         PacketSockets& sockets) noexcept {
  auto parts = prepare_packet_wire(opening, interface, ours, mtu, sockets, sizeof(PacketWire));
  if (!parts) return parts.error();
  return new (parts->memory.object) PacketWire(*parts);
}

long add_host_addresses6(const Opening& opening, RtNetlink& netlink, const char* link) noexcept {
  WireAddress& out = *opening.out;
  for (const IpNetwork& network : out.ip6) {
    if (network.prefix == 0) break;
    const long error = netlink.add_address(link, {neighbour_of(network), network.prefix});
    if (error == 0) continue;
    if (opening.config.ip6[0].prefix != 0) return error;
    out.ip6[0].prefix = 0;
  }
  char text[INET6_ADDRSTRLEN] = "";
  if (out.ip6[0].prefix == 0 || inet_ntop(AF_INET6, &out.ip6[0].address, text, sizeof text) == nullptr) return 0;
  char ip4[16];
  format_address(out.address_be, ip4);
  memcpy(out.reach, base::make_error("%s from this host, and %s", ip4, text).text, sizeof out.reach);
  return 0;
}

}  // namespace netstack
