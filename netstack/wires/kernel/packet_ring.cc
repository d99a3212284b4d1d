// Finding one's place in a receive ring again.
#include "netstack/wires/kernel/packet_ring.h"

namespace netstack {

// Given back, a slot is empty, or the kernel has filled it again, once round the ring, and written its length over our mark.
void PacketRing::realign() noexcept {
  tpacket2_hdr& slot = at(place_.next);
  const bool given_back = place_.popping != 0 && (!is_filled(slot) || slot.tp_len != kEmptied);
  set_place({given_back ? (place_.next + 1) % slots_ : place_.next, 0});
}

}  // namespace netstack
