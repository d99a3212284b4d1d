// Queued frames as messages for a packet socket: each a frame, or several segments of one connection that travel as one (segment_train.h).
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <sys/socket.h>

#include "netstack/wire.h"

struct rte_mbuf;

namespace netstack {

// Where the payload of a frame lies that holds its headers only: then pkt_len says more than data_len, and the pieces are as many as that
// takes.
struct Elsewhere {
  Piece pieces[kMostPieces];
};
static_assert(sizeof(Elsewhere) <= kFramePrivateBytes);

[[nodiscard]] Elsewhere& elsewhere(rte_mbuf* frame) noexcept;
[[nodiscard]] bool is_headers_only(const rte_mbuf* frame) noexcept;

// Too large for a program's stack. Valid as zeros.
class PacketBurst {
 public:
  // Makes messages of `count` frames, kBurst at most, which stay as they are for as long as these are sent. `facts` are the link's.
  void assemble(rte_mbuf** frames, uint16_t count, const WireFacts& facts) noexcept;
  // Gives the kernel the messages from `first` on. How many of them it has taken, or a negative errno.
  [[nodiscard]] long submit(int socket, uint32_t first) const noexcept;

  [[nodiscard]] uint32_t count() const noexcept { return count_; }
  // Of which a message is made.
  [[nodiscard]] uint16_t frames_of(uint32_t message) const noexcept { return frames_of_[message]; }
  [[nodiscard]] uint16_t frames_of_first(uint32_t messages) const noexcept;

 private:
  uint16_t add(rte_mbuf** frames, uint16_t count, const WireFacts& facts, iovec* pieces) noexcept;

  mmsghdr messages_[kBurst];
  iovec pieces_[(1 + kMostPieces) * kBurst];
  uint16_t frames_of_[kBurst];
  uint32_t count_;
};

}  // namespace netstack
