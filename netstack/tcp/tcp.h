// TCP on a stack: lwIP's connections, and around them what lwIP lacks.
// SPDX-License-Identifier: BSD-3-Clause
//
// The parts, each a class with its reason in its own file:
//   TcpTables      connections by four-tuple, ports, endpoints: in the region, and they outlive lwIP
//   ListenerTable  which listener a SYN belongs to
//   PortOwners     what bind() gives out, and who may share a port
//   Handshakes     from a peer's SYN to a connection; segments that belong to nothing
//   OutputQueue    who has something to send, and when it leaves
//   DelayedAcks    acknowledgements owed
//   TcpTimers      when lwIP's timers run
//   TcpRepairs     what lwIP's state machine does wrong, segment by segment
//   TcpRecovery    connections that a dead member leaves behind
//   tcp_reports.h  what routers say of segments
// LwipStream and LwipListener are the endpoints that users see. lwIP reaches all this through `the_tcp`, from the hooks in tcp_hooks.cc.
#pragma once

#include <cstdint>

#include "netstack/lwip/lwip_core.h"
#include "netstack/tcp/delayed_acks.h"
#include "netstack/tcp/handshakes.h"
#include "netstack/tcp/listener_table.h"
#include "netstack/tcp/output_queue.h"
#include "netstack/tcp/tcp_recovery.h"
#include "netstack/tcp/tcp_repairs.h"
#include "netstack/tcp/tcp_tables.h"
#include "netstack/tcp/tcp_timers.h"

namespace netstack {

class Tcp final : public Protocol {
 public:
  // `lock`: that around everything here.
  Tcp(LwipCore& owner, TcpTables& memory, const base::BiasedLock& lock) noexcept;

  // lwIP has started, for the first time or again.
  void start() noexcept { timers.start(); }

  // A turn, as the stack's top drives it: before the wire is asked; after it was; and when this protocol wants the next one.
  void begin_turn() noexcept {
    output.begin_turn();
    acks.send_all();
  }
  void run_due() noexcept;
  void flush() noexcept { output.flush(); }
  // In the middle of a turn: what is queued leaves, what has come is taken in.
  void look_at_wire() noexcept {
    output.note_look();
    output.flush();
    (void)core.input.receive();
  }
  [[nodiscard]] uint64_t next_timer_ns() const noexcept;

  // Protocol.
  void begin_burst(FrameView* frames, int count) noexcept override;
  void finish_input() noexcept override { repairs.after_segment(); }
  [[nodiscard]] bool defer(const uint8_t* frame) noexcept override;

  // Endpoints.
  [[nodiscard]] LwipStream* make_stream() noexcept { return tables.streams.make(*this); }
  [[nodiscard]] bool streams_exhausted() const noexcept { return tables.streams.full(); }
  void free_stream(LwipStream& stream) noexcept;
  // A stream cannot take a write because memory is short. It may have nothing to send that an acknowledgement or a tick would be about, so
  // it is told from here when there is some again.
  void await_memory() noexcept { memory_awaited_ = true; }
  [[nodiscard]] PortBinding* bind(const PortRequest& request, long* error) noexcept;
  void free_binding(LwipBinding& binding) noexcept;
  [[nodiscard]] TcpListener* listen(const PortRequest& request, const PortBinding* own, int backlog, long* error) noexcept;
  void free_listener(LwipListener& listener) noexcept;

  // A PCB is about to be freed, for whatever reason.
  void connection_destroyed(tcp_pcb* pcb) noexcept;

  // After a member died inside the lock: who holds which endpoints, as Stack has it.
  void forget_holders() noexcept;
  [[nodiscard]] bool hold(LwipStream* stream) noexcept;
  [[nodiscard]] bool hold(LwipListener* listener) noexcept;
  [[nodiscard]] bool hold(LwipBinding* binding) noexcept;
  // And then, in this order: while lwIP's memory is still as it was left; when that is empty; when lwIP runs again.
  void note_what_is_lost() noexcept;
  void reset() noexcept;
  void tell_what_is_lost() noexcept;

  // Short ways to what endpoints ask for all the time.
  [[nodiscard]] TcpDemux& demux() noexcept { return tables.demux; }
  [[nodiscard]] PortTable& ports() noexcept { return tables.ports; }
  [[nodiscard]] base::Heap& arena() noexcept { return arena_; }
  [[nodiscard]] uint64_t now_ns() const noexcept { return clock_.now_ns(); }
  // The largest segment of what fits a frame, options included: the connection's, or what a frame holds.
  [[nodiscard]] uint32_t frame_mss(const tcp_pcb& pcb) const noexcept {
    const uint32_t ip_and_tcp = IP_IS_V6_VAL(pcb.remote_ip) ? 60 : 40;
    return pcb.mss + ip_and_tcp < facts_.mtu ? pcb.mss : facts_.mtu - ip_and_tcp;
  }
  [[nodiscard]] uint32_t wires_mtu() const noexcept { return core.interface().mtu < facts_.mtu ? core.interface().mtu : facts_.mtu; }
  [[nodiscard]] uint32_t path_mtu(const IpAddress& to) const noexcept {
    const uint32_t wires = wires_mtu(), advertised = core.interface().mtu6;  // what a router has said of the link
    return core.path_mtus.of(to, !to.is_v4() && advertised < wires ? advertised : wires, now_ns());
  }
  // What counts as a full segment of what comes: without options.
  [[nodiscard]] uint32_t full_payload(const tcp_pcb& pcb) const noexcept { return frame_mss(pcb) - (pcb.mss - tcp_mss(&pcb)); }

  // The wire's facts; what its offloads mean for a stream.
  [[nodiscard]] const WireFacts& facts() const noexcept { return facts_; }

 private:
  void file(LwipListener& listener) noexcept;
  void tell_writers() noexcept;

  // Of the core's, without the way through it.
  base::Heap& arena_;
  const Clock& clock_;
  const WireFacts& facts_;
  bool memory_awaited_ = false;
  uint64_t writers_told_ns_ = 0;

 public:
  LwipCore& core;
  TcpTables& tables;
  ListenerTable listeners;
  PortOwners owners;
  Handshakes handshakes;
  OutputQueue output;
  DelayedAcks acks;
  TcpTimers timers;
  TcpRepairs repairs;
  TcpRecovery recovery;
};

// The TCP of this copy of the image. Lies in the image's data: whoever puts that back to its first state sets it again.
extern Tcp* the_tcp;

}  // namespace netstack
