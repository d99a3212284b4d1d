// Copies what a peer sent into frames of the pool.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/frame_pieces.h"

#include <cstring>

#include "netstack/wires/frame_layout.h"

namespace netstack {

FramePieces::Added FramePieces::add(const uint8_t* data, uint32_t bytes, uint32_t frame_bytes, FramePool& pool) noexcept {
  while (bytes > 0) {
    RxFrame* last = out + count - 1;
    if (count == 0 || last->length == frame_bytes) {
      void* piece;
      if (count == capacity) return Added::no_room;
      if (!pool.take(&piece, 1)) return Added::no_frames;
      auto* const frame = static_cast<uint8_t*>(piece);
      *++last = RxFrame{frame + kDataOffset, 0, piece, frame + kScratchOffset, false, count > 0};
      count++;
    }
    const uint32_t room = frame_bytes - last->length, n = bytes < room ? bytes : room;
    memcpy(last->data + last->length, data, n);
    last->length += n;
    data += n;
    bytes -= n;
  }
  return Added::all;
}

}  // namespace netstack
