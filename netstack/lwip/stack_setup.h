// What a stack image is told when it makes a stack, and its one door.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/heap.h"
#include "base/log.h"
#include "netstack/stack.h"
#include "netstack/wire.h"

namespace netstack {

// Everything pointed to lies in memory the family shares and outlives the stack.
struct StackSetup {
  Wire* wire;
  base::Heap* arena;  // lwIP's heap: emptied by recover()
  void* region;        // region_bytes zero bytes, 64-byte aligned: the stack object, endpoints and tables; survives recover()
  size_t region_bytes;
  uint32_t address_be;
  uint32_t gateway_be;  // 0: none
  uint8_t prefix;
  IpNetwork ip6[kMostIp6Addresses];  // with a prefix of 0: none
  IpAddress gateway6;                 // zeros: none
  IpAddress link_local6;              // zeros: made of the hardware address
  bool autoconfigure;                 // routers are asked for more of both
  bool dhcp;                          // a server is asked for IPv4's
  base::LogLevel log_level;
  uint16_t mtu;  // 0: the wire's own
  uint32_t time_wait_ms;
  LocalPorts ports;
  uint64_t seed[2];       // from getrandom(2)
  uint64_t (*now_ns)();   // the clock whose readings poll() is given
  void* image_data;       // the image's writable data, and a copy of it from before it ran
  const void* image_pristine;
  size_t image_bytes;
};

struct StackDoor {
  size_t setup_bytes;   // of a StackSetup: image and loader are of one version
  size_t region_bytes;  // how large the region must be; mapped NORESERVE, it costs only what is used
  // Makes the one stack of this copy of the image; nullptr if region or arena are too small.
  Stack* (*make)(const StackSetup* setup);
};

// The image's entry point in its ELF header.
extern "C" StackDoor zps_stack_door();

}  // namespace netstack
