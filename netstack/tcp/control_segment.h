// A segment that belongs to no PCB: the SYN-ACK of a half-open connection, a reset, an ACK.
// SPDX-License-Identifier: BSD-3-Clause
//
// It is written straight into a frame of the wire: nothing is allocated, and what the wire has no room for is dropped, since
// whoever asked asks again. It goes back to the link-layer address that the question came from. lwIP would look the neighbour up: sources
// that do not exist would then push the neighbours of connections out of its table, and queue packets for addresses that never answer.
#pragma once

#include <cstdint>

#include "netstack/tcp/four_tuple.h"

namespace netstack {

class LwipCore;

struct ControlSegment {
  FourTuple tuple;
  uint32_t sequence, acknowledgement;
  uint16_t window = 0;
  uint8_t flags;
  uint8_t ttl = 64, tos = 0;
  uint8_t option_bytes = 0;  // a multiple of four
  uint8_t options[40] = {};
};

// To the station `mac`; to the stack itself if the peer has its address.
void send_control_segment(LwipCore& core, const ControlSegment& segment, const uint8_t* mac) noexcept;

}  // namespace netstack
