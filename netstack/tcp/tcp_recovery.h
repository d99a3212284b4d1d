// What becomes of the connections when a member of the family has died inside the lock, or when another peer comes to the wire.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP's state and the arena are taken as lost at any point of any operation, and start anew (LwipStack::recover()). The connections are
// gone; their peers are told by resets, as Linux's tcp_send_active_reset() tells the peers of a process that is killed with unread data:
// they may have nothing to send and would wait for ever. The numbers are read from what is left of the PCBs. One that is off is answered by
// the peer with a challenge ACK (RFC 5961, 3.2), and that again by an exact reset (RFC 9293, 3.10.7.1).
//
// The other way round: somebody new at the other end of a memory wire may be a stack that was started after the old one died. It has no
// memory of our connections, and says so when it is asked: a segment of keepalive finds a half-open connection (RFC 9293, 3.5.1), without
// waiting for its time.
#pragma once

#include <cstdint>

#include "netstack/tcp/four_tuple.h"
#include "netstack/wire.h"

namespace netstack {

class Tcp;

// A connection that a member's death inside the lock has ended, as far as its peer must be told of it.
struct OwedReset {
  FourTuple tuple;
  uint32_t sequence, acknowledgement;
};

class TcpRecovery {
 public:
  explicit TcpRecovery(Tcp& tcp) noexcept;

  // Notes, while the arena still holds what it held, where each connection stood.
  void note_connections() noexcept;
  // lwIP is there again: tells the peers of what was noted, as many as the wire takes.
  void begin_resets() noexcept;

  [[nodiscard]] bool resets_owed() const noexcept { return resets_owed_; }
  void send_resets() noexcept;
  [[nodiscard]] bool new_peers() const noexcept { return peers_asked_ != facts_.peers; }
  void ask_peers() noexcept;

 private:
  Tcp& tcp_;
  const WireFacts& facts_;
  uint32_t peers_asked_;                 // facts_.peers, when the connections were last asked whether they still are
  uint32_t peers_told_;                  // facts_.peers, when resets were last begun anew for somebody
  uint32_t noted_ = 0, sent_ = 0;        // of TcpTables::resets
  uint32_t asked_ = 0;                   // as far as neighbours were asked for
  uint64_t neighbours_wait_until_ns_ = 0;
  bool resets_owed_ = false;
};

}  // namespace netstack
