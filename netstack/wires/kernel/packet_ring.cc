// Finding one's place in a receive ring again.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/packet_ring.h"

namespace netstack {

// Given back, a slot is empty, or the kernel has filled it again, once round the ring, and written its length over our mark.
void PacketRing::realign() noexcept {
  tpacket2_hdr& slot = at(place_.next);
  const bool given_back = place_.popping != 0 && (!is_filled(slot) || slot.tp_len != kEmptied);
  set_place({given_back ? (place_.next + 1) % slots_ : place_.next, 0});
}

void PacketRing::empty_queued() noexcept {
  for (uint32_t i = 0; i < slots_; i++) {
    tpacket2_hdr& slot = at((place_.next + i) % slots_);
    if (!is_filled(slot)) break;
    if ((slot.tp_status & TP_STATUS_COPY) == 0) continue;
    slot.tp_len = kEmptied;
    slot.tp_status &= ~static_cast<uint32_t>(TP_STATUS_COPY);
  }
}

}  // namespace netstack
