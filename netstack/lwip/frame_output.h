// Frames from lwIP to the wire: when they leave, and what becomes of those that cannot.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP hands over one frame at a time; they lie with the wire until a flush (Linux: xmit_more, the doorbell once per batch). A wire without
// room refuses (lwIP marks the connection and keeps the segment), and the protocols are asked to try again in the next turn: a frame is
// never dropped for lack of room.
//
// Segments longer than a frame (GSO) stay where lwIP holds them, and the wire refers to them until it has sent them. That is safe in a
// flush only, because nothing that lwIP holds goes away in one: a long segment that lwIP would send while it processes input is deferred to
// the turn's flush if its connection can be told so, and copied otherwise.
#pragma once

#include "lwip/netif.h"
#include "netstack/wire.h"

namespace netstack {

class LwipCore;
class Protocol;

class FrameOutput {
 public:
  explicit FrameOutput(LwipCore& core) noexcept;

  // netif->linkoutput. ERR_MEM if the frame must be sent again later.
  [[nodiscard]] err_t send(pbuf* p) noexcept;
  // A frame for a protocol that writes all of it itself. False if there is no room for one now, as send() refuses.
  [[nodiscard]] bool open(TxFrame* frame) noexcept {
    if (wire_.backlog() <= most_backlog_ && wire_.allocate(frame)) [[likely]] return true;
    starved_ = true;
    return false;
  }
  // The protocol that long segments belong to.
  void serve(Protocol& protocol) noexcept { protocol_ = &protocol; }

  // Between these two the connections hand over what they have, and nothing else happens.
  void begin_flush() noexcept {
    may_defer = false;
    flushing_ = true;
  }
  void end_flush() noexcept;

  // The wire had no room for something since clear_starved().
  [[nodiscard]] bool starved() const noexcept { return starved_; }
  void set_starved(bool starved) noexcept { starved_ = starved; }
  // Whether what is sent now comes from a connection that would notice if it were not.
  bool may_defer = false;
  void reset() noexcept;

 private:
  [[nodiscard]] bool waits_its_turn(const pbuf& p) noexcept;
  [[nodiscard]] err_t refuse(const pbuf& p) noexcept;
  [[nodiscard]] bool send_by_reference(const TxFrame& frame, const pbuf& p) noexcept;
  [[nodiscard]] bool send_segment(const TxFrame& frame, pbuf* p) noexcept;
  void send_copy(const TxFrame& frame, const pbuf& p) noexcept;
  void keep_until_flushed(pbuf* p) noexcept;

  LwipCore& core_;
  Wire& wire_;
  const int most_backlog_;  // frames that wait for room in the peer's ring; the peer needs free ones of ours to make some
  Protocol* protocol_ = nullptr;
  pbuf* kept_ = nullptr;  // until flushed, chained
  bool starved_ = false;
  bool flushing_ = false;
};

}  // namespace netstack
