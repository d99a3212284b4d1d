// The seam between lwIP's interface and a Wire: frames in without a copy, pbuf chains out with one.
#pragma once

#include "lwip/netif.h"
#include "netstack/wire.h"

namespace netstack {

// netif_add()'s init function; netif->state is the Wire.
err_t wire_netif_init(netif* interface) noexcept;

// Hands `count` received frames to lwIP, which keeps or releases each.
void input_frames(netif& interface, Wire& wire, RxFrame* frames, int count) noexcept;

}  // namespace netstack
