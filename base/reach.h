// What the settings say of an address while there is no stack to ask.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/config.h"

namespace base {

enum class Reach : uint8_t {
  own,         // one of the stack's addresses, as configured
  network,     // in a network of the stack's, as configured
  gateway,     // by the stack's gateway, as configured
  wires,       // 198.18.0.0/15 or fdc6:1200::/48, of which the default wire takes its networks
  interface,   // by an interface of the kernel's, on a wire that shares one: its own if that is it
  kernel_has,  // of those as well, but the kernel has it, or reaches it from an address of such a network
  shared,      // an address of the kernel's own, on a wire that shares them
  outside,     // by nothing that is known
};

// IPv4's addresses are v4-mapped. May make a probe of the kernel.
[[nodiscard]] Reach reach_of(const Config& config, const uint8_t (&address)[16]) noexcept;
[[nodiscard]] inline bool is_stacks(Reach reach) noexcept { return reach <= Reach::interface; }

}  // namespace base
