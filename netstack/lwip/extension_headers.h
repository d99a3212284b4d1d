// IPv6's extension headers (RFC 8200, 4), looked at before lwIP does.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace netstack {

// Whether each of them, and each option in them, ends within the packet: lwIP reads the length of one before it asks whether that is there.
// `packet` begins with the IPv6 header; `bytes`, at least that, lie together. A fragment must hold something, and no further header behind
// the fragment header: what those are would be known to lwIP alone, when it has joined them.
[[nodiscard]] bool extension_headers_are_sound(const uint8_t* packet, uint32_t bytes) noexcept;

}  // namespace netstack
