// Puts a stack on a wire that is already open: image, memory, random seed. make_stack() is this plus open_wire().
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/result.h"
#include "netstack/stack.h"

namespace netstack {

struct StackPlan {
  Wire* wire = nullptr;
  uint32_t address_be = 0;
  uint32_t gateway_be = 0;
  uint8_t prefix = 24;
  IpNetwork ip6[kMostIp6Addresses] = {};  // with a prefix of 0: none
  IpAddress gateway6;                      // zeros: none
  IpAddress link_local6;                   // zeros: made of the hardware address
  bool autoconfigure = false;              // routers are asked for more of both
  bool dhcp = false;                       // a server is asked for IPv4's
  uint16_t mtu = 0;
  uint32_t time_wait_ms = 2000;
  LocalPorts ports;
  size_t arena_bytes = 32 << 20;
  uint64_t (*now_ns)() = nullptr;  // nullptr: the monotonic clock
};

// All memory the family will ever use for the stack is mapped when it returns. Start-up code, no lock held.
base::Result<Stack*> build_stack(const StackPlan& plan) noexcept;

}  // namespace netstack
