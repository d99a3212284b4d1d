// An interface whose addresses a stack shares with the kernel: which one it is, and what the wires on it have in common.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <net/if.h>

#include "netstack/port_steering.h"
#include "netstack/wires/kernel/kernel_routes.h"
#include "netstack/wires/opening.h"

namespace netstack {

struct SharedInterface {
  const char* kind;  // of the wire
  char name[IFNAMSIZ];
  int index;
  enum class State : uint8_t { usual, without_address, down, gone } said = State::usual;  // what a person was told last
};

// The interface of this name, or that of the default route if it is empty. The error is a line for a person, as all here.
base::Result<SharedInterface> find_interface(const char* kind, const char* name) noexcept;
// The address that is shared: the one that is configured, or the interface's first.
base::Result<IpNetwork> find_address(const Opening& opening, const SharedInterface& device, const KernelRoutes& routes) noexcept;
// The kernel does not let us do `what`.
[[nodiscard]] base::Error refused(const SharedInterface& device, const char* what, long error) noexcept;

// Into opening.out, but for the wire's own name.
void say_where(const Opening& opening, const IpNetwork& address, const KernelRoutes& routes) noexcept;
// What does not change.
void fill_shared_facts(const SharedInterface& device, const IpNetwork& address, WireFacts& facts) noexcept;
// The address may have gone, for good or for a moment: its frames are the kernel's then. Another one takes its place. `longest` is the
// longest IP packet that the wire takes. What a person wants to know of it is said once.
void follow_interface(const KernelRoutes& routes, uint32_t longest, SharedInterface& device, PortSteering& steering,
                      WireFacts& facts) noexcept;

}  // namespace netstack
