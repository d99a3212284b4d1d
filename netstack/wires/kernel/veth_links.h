// The part of a wire over a veth pair that takes rights: the pair, its addresses, and the packet sockets on the stack's end.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/result.h"
#include "netstack/wires/kernel/packet_sockets.h"
#include "netstack/wires/kernel/steering_program.h"
#include "netstack/wires/opening.h"

namespace netstack {

struct VethLinks {
  PacketFds packets;
  int name_fd;       // holds the pair's name (hold_link_name())
  int interface;     // index of the stack's end in its namespace
  int host_interface;  // and of the other, in the host's
  int number;        // of the pair: zps<number>
  uint32_t host_be;  // the kernel side's address; 0: none
  bool in_namespace; // the stack's end is in a namespace of its own
  int drop_fd = -1;  // link of the program that drops what comes there, if the host's end has no address
  SteeringFds steering = {};  // of a shared interface
};

// Makes them, links of `mtu` bytes, and fills *opening.out. The calling thread's network namespace is the host's before and after; in
// between it is not: call it on a thread of its own, or in a process of its own.
base::Result<VethLinks> make_veth_links(const Opening& opening, uint32_t mtu) noexcept;
// The same with a host's end that has no address; only opening.out->wire is filled.
base::Result<VethLinks> make_bare_links(const Opening& opening, uint32_t mtu) noexcept;
// For a wire that did not come about. The packet sockets stay.
void remove_veth_links(const VethLinks& links) noexcept;

}  // namespace netstack
