// Where a pool's frame has its private bytes and its data, without a look at its mbuf.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_mbuf.h>

#include "netstack/wire.h"

namespace netstack {

inline constexpr size_t kScratchOffset = sizeof(rte_mbuf);
inline constexpr size_t kDataOffset = sizeof(rte_mbuf) + kFramePrivateBytes + RTE_PKTMBUF_HEADROOM;

}  // namespace netstack
