// The tag that says of which VLAN a frame is (IEEE 802.1Q, 9.3), between its addresses and its type.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <cstring>

namespace netstack::vlan_tag {

inline constexpr uint32_t kBytes = 4, kAddressBytes = 12, kTaggedBytes = kAddressBytes + kBytes + 2;  // with the type behind it
inline constexpr uint16_t kNumber = 0xfff;
inline constexpr int kNone = -1;

// Of a frame that has a tag's type; kTaggedBytes of it are there.
[[nodiscard]] inline int number_of(const uint8_t* frame) noexcept {
  if (frame[kAddressBytes] != 0x81 || frame[kAddressBytes + 1] != 0) return kNone;
  return (frame[kAddressBytes + 2] << 8 | frame[kAddressBytes + 3]) & kNumber;
}

// The frame then begins kBytes later.
inline void take_out(uint8_t* frame) noexcept { memmove(frame + kBytes, frame, kAddressBytes); }

// Of a frame that begins kBytes behind `frame`, which it does then. Its priority is the least.
inline void put_in(uint8_t* frame, uint16_t number) noexcept {
  memmove(frame, frame + kBytes, kAddressBytes);
  const uint8_t tag[kBytes] = {0x81, 0, static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number)};
  memcpy(frame + kAddressBytes, tag, sizeof tag);
}

}  // namespace netstack::vlan_tag
