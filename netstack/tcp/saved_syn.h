// The headers of a SYN, as they came, for the program that asks its connection for them (TCP_SAVE_SYN, TCP_SAVED_SYN).
// SPDX-License-Identifier: BSD-3-Clause
//
// Kept for listeners that want it only, and for what is known in between: a handshake that a cookie completes has none (Linux:
// tcp_reqsk_record_syn()). The piece of memory goes from the half-open connection to the stream, where the first who reads it frees it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lwip/priv/tcp_priv.h"

namespace netstack {

class LwipCore;

struct SavedSyn {
  uint32_t bytes;
  uint8_t headers[];
};

// Of the segment under input, whose TCP header lwIP has brought to host order, with the frame's header if `with_frame`. nullptr if memory
// is short.
[[nodiscard]] SavedSyn* save_syn(LwipCore& core, const tcp_hdr& header, bool with_frame) noexcept;
// The pointer is nullptr afterwards; it may have been before.
void free_saved_syn(LwipCore& core, SavedSyn** saved) noexcept;

}  // namespace netstack
