// Handshakes that peers begin: everything between a SYN for a listener and the connection in its accept queue.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP makes a PCB for each SYN. Here a PCB is made when the handshake's last ACK is in, directly as lwIP would have it then; before
// that there is an entry in RequestTable, or nothing but a number (syn_cookies.h). So segments for listeners, and those for nobody, never
// reach lwIP's own code, and what comes in great number from forged addresses costs neither its memory nor its neighbour table.
//
// What becomes of a SYN (Linux: tcp_conn_request()):
//   1 There is room in the accept queue, also for those that have just been answered and will be there in a moment: an entry and a SYN-ACK.
//   2 There is none: the SYN is held, and answered when there is. So a peer takes itself for connected only when it will be served, and
//     soon after the program has begun to accept. (Linux drops it and has the peer repeat it, but looks at one SYN after the other, each
//     ACK in between. A poll takes many at once: if all were answered most of their peers would be stuck in front of a full queue, if the
//     rest were dropped a burst would take seconds.)
//   3 If as many as fit into the queue have got no answer in the time that a near peer needs they are likely to be forged, and hold
//     nobody up any more.
//   4 As many handshakes are under way as may be: a cookie is the answer; none while the queue is full or SYNs are held.
// The last ACK is dropped while the accept queue is full: the peer's data, or its answer to our repeated SYN-ACK, completes the
// handshake later. A cookie is accepted for two minutes after the listener has sent one. While it has, an ACK that fits nothing gets no
// reset as long as its queue is full: it may be the second segment of a peer whose first was dropped.
//
// TCP_DEFER_ACCEPT: a bare ACK does not complete the handshake before its time is up, data does (tcp_check_req()).
//
// Timestamps are agreed on if the SYN has one (RFC 7323, 3.2): then each answer without a PCB has one as well. TS.Recent is the SYN's
// until there is a PCB; after a cookie, what the last ACK says. An ACK older than the SYN is none (section 5.3).
//
// Resets for segments that belong to nothing are limited in number, as answers that anybody can provoke.
#pragma once

#include <cstdint>

#include "lwip/priv/tcp_priv.h"
#include "netstack/tcp/request_table.h"

namespace netstack {

class Tcp;
class LwipListener;
struct SavedSyn;
struct ControlSegment;

// Where the options of the segment under input lie; those that do not fit the first piece of its frame are not looked at.
struct OptionBytes {
  const uint8_t* data;
  uint32_t bytes;
};

class Handshakes {
 public:
  explicit Handshakes(Tcp& tcp) noexcept : tcp_(tcp) {}

  // The connection that this segment completes the handshake of, as SYN-RECEIVED: lwIP then takes the segment for it. nullptr: none.
  // `length`: of the segment in sequence numbers.
  [[nodiscard]] tcp_pcb* complete(const tcp_hdr& header, uint32_t option_bytes, uint32_t length) noexcept;
  // Its segment was taken: it is about to be in the accept queue, and gets what was kept of its SYN. When that was answered, or 0: it is
  // not known, or was more than once.
  uint64_t completed(const tcp_pcb& pcb, SavedSyn** saved_syn) noexcept;
  // Any other segment for `listener`, or for nobody (nullptr), with `payload` bytes; lwIP does not get it.
  void input(LwipListener* listener, const tcp_hdr& header, OptionBytes options, uint32_t payload) noexcept;
  // Repeats SYN-ACKs that are due and gives up what got no answer.
  void run_due() noexcept;
  [[nodiscard]] uint64_t next_ns() const noexcept;
  // The program has accepted a connection while SYNs are held: they are looked at in the next turn.
  void room_made() noexcept { room_made_ = true; }
  // A listener is gone: nobody waits for these any more.
  void forget(const LwipListener& listener) noexcept;
  // The stack is about to be gone: their peers are reset now, since nobody answers when they ask again. On a shared wire the kernel does.
  void refuse_all() noexcept;
  // After a member died inside the lock; listeners are whole again.
  void recover() noexcept;

 private:
  static constexpr uint64_t kCookieLifeNs = 120'000'000'000;
  static constexpr uint32_t kResetsPerTurn = 1000;
  static constexpr uint64_t kTurnNs = 100'000'000;

  [[nodiscard]] RequestTable& table() const noexcept;
  [[nodiscard]] uint32_t hash(const FourTuple& tuple) const noexcept;
  [[nodiscard]] uint32_t minute() const noexcept;
  [[nodiscard]] bool takes_connections() const noexcept;
  void syn(LwipListener& listener, const FourTuple& tuple, const tcp_hdr& header, OptionBytes options) noexcept;
  [[nodiscard]] bool awaits(const LwipListener& listener, Request* request, const FourTuple& tuple, const tcp_hdr& header,
                            uint32_t option_bytes) noexcept;
  [[nodiscard]] bool reads_cookie(const LwipListener& listener, const FourTuple& tuple, const tcp_hdr& header,
                                  SynOptions* options) const noexcept;
  [[nodiscard]] tcp_pcb* make_connection(LwipListener& listener, const Request& request) noexcept;
  void begin(Request& request) noexcept;
  void age_fresh() noexcept;
  void answer_held() noexcept;
  void advance(Request& request, uint64_t now_ns) noexcept;
  void remove(Request& request) noexcept;
  void add_timestamps(ControlSegment& segment, const Request& request) const noexcept;
  void send_syn_ack(const LwipListener& listener, const Request& request) noexcept;
  void reject(Request& request) noexcept;
  void refuse(const Request& request) noexcept;
  void send_reset(const FourTuple& tuple, const tcp_hdr& header, uint32_t payload) noexcept;

  Tcp& tcp_;
  uint64_t turn_ns_ = 0;  // when resets were last counted anew
  uint32_t resets_ = 0;
  bool room_made_ = false;
};

}  // namespace netstack
