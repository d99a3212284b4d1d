// Notes of lost connections, and the resets made from them.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_recovery.h"

#include <cstring>

#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_tables.h"
#include "netstack/tcp/tuples.h"

namespace netstack {
namespace {

constexpr uint64_t kNeighboursWaitNs = 4'000'000'000;

}  // namespace

TcpRecovery::TcpRecovery(Tcp& tcp) noexcept : tcp_(tcp), facts_(tcp.core.facts()), peers_asked_(facts_.peers), peers_told_(facts_.peers) {}

// A peer whose SYN was answered may know that it is connected, or not. If not it shall ask again: its SYN is not what the reset
// acknowledges. What was sent may lie behind a window that has shrunk or was probed, where a reset would not be looked at; or the window
// that is noted may be newer than the rest. One of two numbers is right then.
void TcpRecovery::note_connections() noexcept {
  TcpTables& tables = tcp_.tables;
  const uint32_t unsent = sent_ < noted_ ? noted_ - sent_ : 0;
  memmove(tables.resets, tables.resets + sent_, unsent * sizeof(OwedReset));
  sent_ = asked_ = 0;
  noted_ = unsent;
  const auto note = [&](const tcp_pcb& pcb, uint32_t sequence, uint32_t acknowledgement) {
    if (noted_ >= TcpTables::kMostResets) return;
    tables.resets[noted_] = {tuple_of(pcb), sequence, acknowledgement};
    noted_++;
  };
  tables.demux.for_each_left(tcp_.arena(), [&](const tcp_pcb& pcb) {
    if (pcb.state < SYN_RCVD || pcb.state == TIME_WAIT) return;
    if (pcb.state == SYN_RCVD) return note(pcb, pcb.snd_nxt, pcb.rcv_nxt - 1);
    note(pcb, pcb.snd_nxt, pcb.rcv_nxt);
    const uint32_t edge = pcb.lastack + pcb.snd_wnd;
    if (TCP_SEQ_LT(edge, pcb.snd_nxt)) note(pcb, edge, pcb.rcv_nxt);
  });
}

void TcpRecovery::begin_resets() noexcept {
  neighbours_wait_until_ns_ = tcp_.now_ns() + kNeighboursWaitNs;
  send_resets();
}

// A neighbour that nobody knows any more is asked for first: fewer packets wait for it than there may be resets, and the answers to what
// peers go on sending would push them out. Sent is what the wire has shown.
void TcpRecovery::send_resets() noexcept {
  FrameOutput& frames = tcp_.core.output;
  Neighbours& neighbours = tcp_.core.neighbours;
  const bool starved_before = frames.starved();
  uint32_t next = sent_;
  for (frames.set_starved(false); next < noted_; next++) {
    const OwedReset& owed = tcp_.tables.resets[next];
    if (tcp_.now_ns() < neighbours_wait_until_ns_ && !neighbours.knows_way_to(owed.tuple.peer)) {
      if (asked_ <= next && neighbours.ask_way_to(owed.tuple.peer)) asked_ = next + 1;
      break;
    }
    const ip_addr_t local = to_lwip(owed.tuple.local), peer = to_lwip(owed.tuple.peer);
    tcp_rst(nullptr, owed.sequence, owed.acknowledgement, &local, &peer, owed.tuple.local_port, owed.tuple.peer_port);
    if (frames.starved()) break;
  }
  frames.set_starved(frames.starved() || starved_before);
  if (next != sent_) {
    tcp_.core.wire().flush();
    sent_ = next;
  }
  resets_owed_ = sent_ < noted_;
}

// Somebody new is at the other end of the wire. If it is a stack that was started after the old one died, it says so (a reset) when it is
// asked about a connection that it does not know; a switch, or the same stack, passes the question on or answers it.
// As many at a time as the wire takes.
void TcpRecovery::ask_peers() noexcept {
  const uint32_t peers = facts_.peers;
  if (peers_told_ != peers) {
    peers_told_ = peers;
    tcp_.core.follow_wire();
    // A recovery had the wire begin anew, and nobody was there to be told.
    if (tcp_.now_ns() < neighbours_wait_until_ns_) sent_ = asked_ = 0;
    resets_owed_ = sent_ < noted_;
  }
  bool refused = false;
  tcp_.tables.streams.for_each([&](LwipStream& stream) { refused = refused || !stream.ask_peer(peers); });
  if (!refused) peers_asked_ = peers;
}

// What a stream knew of a stack that is made anew.
void LwipStream::forget_everything() noexcept {
  pcb_ = nullptr;
  received_head_ = received_tail_ = nullptr;
  received_bytes_ = 0;
  urgent_ = Urgent::none;
  chunks_ = last_chunk_ = feeding_ = nullptr;
  rare_.saved_syn = nullptr;
  acknowledged_ = fed_ = written_;
  DirtyLink::prev = DirtyLink::next = nullptr;
  DelayedAck::prev = DelayedAck::next = nullptr;
  AcceptLink::prev = AcceptLink::next = nullptr;
  const bool alive = phase_ == Phase::connected || phase_ == Phase::connecting;
  if (alive && !(peer_closed_ && fin_sent_)) error_ = ECONNRESET;
  if (phase_ != Phase::fresh) {
    phase_ = Phase::closed;
    read_closed_ = write_closed_ = true;
  }
}

}  // namespace netstack
