// The end of those that are alone.
#include "netstack/tcp/orphans.h"

namespace netstack {

bool Orphans::tick(tcp_pcb& pcb, const MemoryBudget& memory) noexcept {
  if (pcb.callback_arg != reinterpret_cast<void*>(uintptr_t{pcb.lastack})) note_progress(pcb);
  if (is_in_the_way(pcb, memory)) {
    tcp_abort(&pcb);
    return false;
  }
  if (tcp_ticks - pcb.tmr <= (pcb.state == FIN_WAIT_2 ? kFinWaitTicks : kPatienceTicks)) return true;
  tcp_abandon(&pcb, 0);
  return false;
}

}  // namespace netstack
