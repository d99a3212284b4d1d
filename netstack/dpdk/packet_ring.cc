// Finding one's place in a receive ring again.
#include "netstack/dpdk/packet_ring.h"

namespace netstack {

void PacketRing::realign() noexcept {
  uint64_t oldest = UINT64_MAX, newest = 0;
  uint32_t first_waiting = next_, behind_newest = next_;
  for (uint32_t i = 0; i < slots_; i++) {
    tpacket2_hdr& slot = at(i);
    const bool waits = (status_of(slot) & TP_STATUS_USER) != 0;
    const uint64_t stamp = uint64_t{slot.tp_sec} * 1'000'000'000u + slot.tp_nsec;
    if (waits && stamp < oldest) oldest = stamp, first_waiting = i;
    if (stamp > newest) newest = stamp, behind_newest = (i + 1) % slots_;
  }
  next_ = oldest != UINT64_MAX ? first_waiting : behind_newest;
}

}  // namespace netstack
