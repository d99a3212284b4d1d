// The end of those that are alone.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/orphans.h"

namespace netstack {

bool Orphans::tick(tcp_pcb& pcb, const MemoryBudget& memory) noexcept {
  const int32_t fin_wait = fin_wait_ticks(pcb), least_wait = pcb.sa != 0 ? pcb.rto * 7 / 2 : 0;
  if (noted(pcb) != pcb.lastack) note_progress(pcb, fin_wait);
  if (is_in_the_way(pcb, memory) || (pcb.state == FIN_WAIT_2 && fin_wait < 0)) {
    tcp_abort(&pcb);
    return false;
  }
  const auto patience = pcb.state != FIN_WAIT_2 ? kPatienceTicks : static_cast<uint32_t>(fin_wait > least_wait ? fin_wait : least_wait);
  if (tcp_ticks - pcb.tmr <= patience) return true;
  tcp_abandon(&pcb, 0);
  return false;
}

}  // namespace netstack
