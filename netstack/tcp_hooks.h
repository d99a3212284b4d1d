// The callbacks that follow a PCB from its birth to its memory's release.
#pragma once

#include "lwip/priv/tcp_priv.h"

namespace netstack {

// Set as ext_args[0] of every PCB: `passive_open` files a half-open connection, `destroy` unfiles whatever the PCB was.
extern const tcp_ext_arg_callbacks kPcbCallbacks;

// What to send next, or the end of the peer's window if a probe of it went further: behind a shut window nobody takes an ACK or a reset.
[[nodiscard]] inline uint32_t acceptable_sequence(const tcp_pcb& pcb) noexcept {
  const uint32_t edge = pcb.lastack + pcb.snd_wnd;
  return TCP_SEQ_LT(edge, pcb.snd_nxt) ? edge : pcb.snd_nxt;
}

}  // namespace netstack
