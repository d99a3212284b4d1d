// Opens a wire from its description: "veth", "host:dev", "memif:/path,role=auto", "tap", "af_packet:dev" ... No DPDK type is seen here.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/arena.h"
#include "base/result.h"
#include "netstack/make_stack.h"
#include "netstack/wire.h"

namespace netstack {

// What the wire chose or was given, for the stack's interface and for the line that tells a person.
struct WireAddress {
  uint32_t address_be = 0;
  uint8_t prefix = 24;
  uint32_t gateway_be = 0;  // 0: none
  IpNetwork ip6[kMostIp6Addresses] = {};
  IpAddress gateway6;
  char wire[64] = "";       // "veth zps0 (af_packet)"
  char reach[128] = "";     // "198.18.0.2 from this host"; may be empty
};

// Opens `config.wire`. The Wire lies in `shared_arena` (memory the family shares) and is never closed: it goes with the last
// member of the family. Only the process that opens its first wire may open more; a forked child of it gets an error.
// Runs on a thread of its own (signals blocked, joined before the return): the caller's affinity, namespaces and signal mask stay
// as they are. No lock may be held. The error is one line that says what is missing and how to mend it.
base::Result<Wire*> open_wire(const StackConfig& config, base::Arena* shared_arena, WireAddress* out) noexcept;

// In a program that was executed with a wire: what DPDK's code has to be told anew. False if it refuses.
[[nodiscard]] bool prepare_frame_pools() noexcept;

}  // namespace netstack
