// Who may have memory when it gets short: the stack's heap and the wire's frames, shared by all connections.
// SPDX-License-Identifier: BSD-3-Clause
//
// Linux bounds what all of TCP holds (tcp_mem), lets each connection have a little whatever the state (sk_forced_mem_schedule(),
// tcp_rmem[0] and tcp_wmem[0]), and shrinks buffers and windows under pressure. The same here, without a list of connections to go through:
//  - Bulk, which is what a program has written or not read yet, may use seven eighths of the heap. Of what is free of that each connection
//    may hold a quarter (the dynamic thresholds of shared-memory switches, Choudhury and Hahne 1998). So n greedy connections
//    leave 4/(n+4) of it free, the next one finds room at once, one alone may have a fifth of all, and what one gives back is everybody's.
//  - Each may hold kLeastShare in any case, out of the next sixteenth: a program that must send before it reads on can, and the other way
//    round.
//  - A connection may be made until a thirty-second is left, and that is for segments and acknowledgements alone: what is queued can
//    always be sent and acknowledged, and so gives its memory back.
//  - A quarter of the frames is never held by received data, which is copied into the heap then: so acknowledgements can always be
//    received.
//
// All figures are in bytes of the heap, as they are now: nobody has to be told when memory comes back.
#pragma once

#include <cstddef>

#include "base/heap.h"
#include "netstack/wire.h"

namespace netstack {

class MemoryBudget {
 public:
  static constexpr size_t kLeastShare = 4096;
  static constexpr size_t kSegmentBytes = 256;   // what lwIP needs for a segment besides its payload
  static constexpr size_t kHeaderBytes = 2048;   // a longer piece of lwIP's holds payload

  MemoryBudget(const base::Heap& heap, const Wire& wire) noexcept
      : heap_(heap),
        bulk_(heap.capacity() / 8 * 7),
        short_(heap.capacity() / 16 * 13),
        data_(heap.capacity() / 16 * 15),
        connections_(heap.capacity() / 32 * 31),
        frame_bytes_(wire.facts().mtu),
        kept_frames_(wire.total_frames() / 4) {}

  // What a connection may have queued to send; 0 if there is no room even for the least.
  [[nodiscard]] size_t send_share() const noexcept { return share(0, true); }
  // What a connection may have received and its program not read.
  [[nodiscard]] size_t receive_share() const noexcept { return share(spare_frame_bytes_, spare_frame_bytes_ == 0); }
  // Whether the share is so much; while memory is plentiful, which the hot path asks for nothing else, told by one comparison.
  [[nodiscard]] bool send_share_is(size_t bytes) const noexcept { return heap_.used() + 4 * bytes <= bulk_ || send_share() >= bytes; }
  [[nodiscard]] bool receive_share_is(size_t bytes) const noexcept { return heap_.used() + 4 * bytes <= bulk_ || receive_share() >= bytes; }
  [[nodiscard]] bool takes_data() const noexcept { return heap_.used() < data_; }
  // Dozens hold all they may, and who comes next gets little.
  [[nodiscard]] bool is_short() const noexcept { return heap_.used() >= short_; }
  [[nodiscard]] bool takes_connections() const noexcept { return heap_.used() < connections_; }

  // How many frames are free: once a turn.
  void note_free_frames(int frames) noexcept {
    frames_low_ = frames < kept_frames_;
    spare_frame_bytes_ = frames_low_ ? 0 : static_cast<size_t>(frames - kept_frames_) * frame_bytes_;
  }
  // What comes must be copied out of its frame to be kept.
  [[nodiscard]] bool frames_low() const noexcept { return frames_low_; }
  // The segment that lwIP is about to process lies in a frame that must go back: its payload cannot be kept.
  bool payload_is_lent = false;

 private:
  [[nodiscard]] size_t share(size_t more, bool heap_only) const noexcept {
    const size_t used = heap_.used();
    if (heap_only && used >= data_) return 0;
    const size_t quarter = ((used < bulk_ ? bulk_ - used : 0) + more) / 4;
    return quarter > kLeastShare ? quarter : kLeastShare;
  }

  const base::Heap& heap_;
  const size_t bulk_, short_, data_, connections_;
  const size_t frame_bytes_;
  const int kept_frames_;
  size_t spare_frame_bytes_ = 0;
  bool frames_low_ = false;
};

}  // namespace netstack
