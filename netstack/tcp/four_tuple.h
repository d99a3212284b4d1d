// What a connection is known by.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "netstack/socket_address.h"

namespace netstack {

// A connection's addresses, both of one family, and its ports in the host's order.
struct FourTuple {
  IpAddress local, peer;
  uint16_t local_port, peer_port;
  [[nodiscard]] bool operator==(const FourTuple&) const noexcept = default;
  [[nodiscard]] bool is_v4() const noexcept { return local.is_v4(); }
};

}  // namespace netstack
