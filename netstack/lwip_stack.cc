// The stack's turn and its recovery.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip_stack.h"

#include <cstring>

namespace netstack {

LwipStack::LwipStack(const StackSetup& setup, StackRegion& region) noexcept
    : Stack(*setup.wire), core_(setup, region.neighbours), tcp_(core_, region.tcp, lock), udp_(core_, region.udp) {
  core_.input.add(tcp_);
  core_.output.serve(tcp_);
}

void LwipStack::start() noexcept {
  the_core = &core_;
  the_tcp = &tcp_;
  the_udp = &udp_;
  core_.start();
  tcp_.start();
}

int LwipStack::poll(uint64_t now_ns) noexcept {
  core_.begin_turn(now_ns);
  tcp_.begin_turn();
  udp_.begin_turn();
  int taken = 0;
  if (udp_.readers().hold_back(core_.wire())) [[unlikely]] {
    core_.input.receive_own();
  } else {
    taken = core_.input.receive();
  }
  tcp_.run_due();
  udp_.run_due();
  core_.groups.run_due();
  core_.autoconfiguration.run_due();
  core_.dhcp.run_due();
  core_.link_timers.run_due(tcp_.timers.running());
  flush();
  core_.end_turn();
  return taken;
}

uint64_t LwipStack::next_timer_ns() const noexcept {
  const uint64_t core_ns = core_.next_timer_ns();
  const uint64_t tcp_ns = tcp_.next_timer_ns();
  const uint64_t udp_ns = udp_.next_timer_ns();
  const uint64_t first_ns = tcp_ns < core_ns ? tcp_ns : core_ns;
  return udp_ns < first_ns ? udp_ns : first_ns;
}

void LwipStack::run_control() noexcept {
  core_.wire().run_control();
  core_.follow_wire();
}

TcpStream* LwipStack::make_stream() noexcept {
  LwipStream* stream = tcp_.make_stream();
  if (stream != nullptr) stream->hold();
  return stream;
}

long LwipStack::bind_stream(TcpStream* stream, const SocketAddress& local) noexcept {
  return static_cast<LwipStream*>(stream)->bind(local);
}

PoolLevels LwipStack::levels() const noexcept {
  const TcpTables& tables = tcp_.tables;
  const StackSetup& setup = core_.setup();
  return {setup.arena->used(),       tables.streams.used(),         tables.listeners.used(),  tables.bindings.used(),
          tables.demux.connections(), setup.wire->free_frames(), tables.demux.waiting_count(), tables.requests.count(),
          udp_.endpoints()};
}

// A member of the family has died inside the lock: lwIP's state and the arena are taken as lost at any point of any operation. lwIP starts
// anew in the image's first data; the neighbour table is carried over, and TCP tells users and peers what is lost. Another death at any
// instruction of this has it begun anew.
void LwipStack::recover() noexcept {
  tcp_.note_what_is_lost();
  core_.neighbours.save();
  const StackSetup& setup = core_.setup();
  memcpy(setup.image_data, setup.image_pristine, setup.image_bytes);
  core_.reset();
  tcp_.reset();
  udp_.reset();
  start();
  core_.neighbours.restore();
  udp_.rejoin();
  tcp_.tell_what_is_lost();
  udp_.tell_what_is_lost();
  core_.wire().flush();
}

}  // namespace netstack
