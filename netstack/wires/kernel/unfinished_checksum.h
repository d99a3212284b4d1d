// Whether a frame's TCP or UDP checksum is one that the kernel has left to a device, and which no device has finished.
// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernel sends to another namespace, or to another machine of the same host, may come as it was queued (CHECKSUM_PARTIAL): in the
// checksum's place is the sum over the pseudo-header, not complemented, for a device to go on with. A packet socket is told of it, a socket
// of AF_XDP is not. A frame that went over a cable has this value by chance once in 65536 times.
#pragma once

#include <cstdint>

namespace netstack {

// `frame` is an Ethernet frame, of which `length` bytes are here.
[[nodiscard]] bool has_unfinished_checksum(const uint8_t* frame, uint32_t length) noexcept;

}  // namespace netstack
