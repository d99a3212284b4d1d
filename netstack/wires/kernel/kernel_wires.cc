// The ring of a packet socket, and a wire over one.
#include "netstack/wires/kernel/kernel_wires.h"

#include <new>

#include "netstack/wires/kernel/packet_wire.h"

namespace netstack {
namespace {

// The packet socket's ring: a slot holds the kernel's header (80 bytes before the frame), the frame and a VLAN tag.
constexpr uint32_t kSlotOverhead = 80 + 18;
constexpr uint32_t kPage = 4096;
constexpr uint32_t kMostSlots = 1024;
constexpr uint32_t kLeastSlots = 64;

}  // namespace

// The ring takes a sixth of the memory that the stack may use at most. A slot of 4 KB would hold what the stack sends, one of 8 KB holds 16
// MSETs of ten keys as well: what does not fit takes a system call more (redis-benchmark -P 16 -t mset: 1.02 instead of 0.98 times
// loopback).
RingShape ring_shape(const Opening& opening, uint32_t mtu) noexcept {
  uint32_t slot_bytes = power_of_two(mtu + kSlotOverhead < 2048 ? 2048 : mtu + kSlotOverhead);
  const uint32_t budget = (memory_mb(opening.config) << 20) / 12;
  uint32_t slots = kMostSlots;
  while (slots > kLeastSlots && slots * slot_bytes > budget) slots /= 2;
  const uint32_t room = slot_bytes;
  if (room == kPage) slot_bytes *= 2;
  return RingShape{slot_bytes < kPage ? kPage : slot_bytes, slot_bytes, slots, room};
}

base::Result<DpdkWire*> open_packet_wire(const Opening& opening, const char* interface, uint32_t mtu, PacketSockets& sockets) noexcept {
  const RingShape shape = ring_shape(opening, mtu);
  auto pool = make_pool(opening, shape.frame_room);
  if (!pool) return pool.error();
  auto memory = wire_memory(opening, sizeof(PacketWire), **pool);
  if (!memory) return memory.error();
  if (auto finished = sockets.finish(interface); !finished) return finished.error();

  const PacketRing ring(sockets.ring(), shape.slot_bytes, shape.slots);
  auto* wire = new (memory->object) PacketWire(sockets, ring, shape.frame_room, *pool, memory->queue, memory->queue_capacity);
  wire->mutable_facts().mtu = static_cast<uint16_t>(mtu);
  wire->mutable_facts().link_needs_checksum = true;
  wire->mutable_facts().tcp_checksum_offload = true;
  return wire;
}

}  // namespace netstack
