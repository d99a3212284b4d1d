// TCP's turn, its endpoints' life, and its way through a recovery.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp.h"

#include <cerrno>
#include <cstddef>

#include "netstack/lwip/frame_fields.h"

namespace netstack {
namespace {

constexpr uint64_t kRetryNs = 1'000'000;
constexpr uint64_t kTellWritersNs = 2'000'000;  // those who wait for memory are looked at so often
// Of a frame of IPv6, whose fields lie there.
FourTuple tuple_at(const uint8_t* frame, size_t local, size_t peer, size_t local_port, size_t peer_port) noexcept {
  return {field<IpAddress>(frame + local), field<IpAddress>(frame + peer), lwip_ntohs(field<uint16_t>(frame + local_port)),
          lwip_ntohs(field<uint16_t>(frame + peer_port))};
}

static_assert(sizeof(tcp_pcb) <= FrameView::kStateBytes, "raise kStateBytes: so much is asked for ahead");
static_assert(sizeof(LwipStream) - LwipStream::kRareBytes <= FrameView::kOwnerBytes, "raise kOwnerBytes: so much is asked for ahead");

}  // namespace

Tcp* the_tcp = nullptr;

Tcp::Tcp(LwipCore& owner, TcpTables& memory, const base::BiasedLock& lock) noexcept
    : arena_(owner.arena()),
      clock_(owner.clock),
      facts_(owner.facts()),
      core(owner),
      tables(memory),
      owners(*this),
      handshakes(*this),
      output(*this),
      acks(*this, lock),
      timers(*this, owner.setup().time_wait_ms),
      repairs(*this),
      recovery(*this) {
  tables.demux.start(owner.setup().seed);
  tables.ports.start(owner.setup().ports, SteeredPorts::of_tcp(owner.wire().steering()));
}

// ---------------------------------------------------------------- a turn

void Tcp::run_due() noexcept {
  if (recovery.new_peers()) [[unlikely]] recovery.ask_peers();
  if (core.output.starved()) output.retry();
  if (recovery.resets_owed()) [[unlikely]] recovery.send_resets();
  timers.run_due();
  handshakes.run_due();
  if (memory_awaited_) [[unlikely]] tell_writers();
}

void Tcp::tell_writers() noexcept {
  if (now_ns() - writers_told_ns_ < kTellWritersNs) return;
  memory_awaited_ = false;
  writers_told_ns_ = now_ns();
  tables.streams.for_each([](LwipStream& stream) { stream.look_for_room(); });
}

uint64_t Tcp::next_timer_ns() const noexcept {
  const uint64_t handshake_ns = handshakes.next_ns(), acks_ns = acks.next_ns();
  const uint64_t first_ns = timers.next_ns() < handshake_ns ? timers.next_ns() : handshake_ns;
  const uint64_t due = acks_ns < first_ns ? acks_ns : first_ns;
  const bool retries = recovery.resets_owed() || recovery.new_peers();
  const uint64_t retry = now_ns() + (retries ? kRetryNs : kTellWritersNs);
  return (retries || memory_awaited_) && retry < due ? retry : due;
}

void Tcp::begin_burst(FrameView* frames, int count) noexcept {
  output.begin_burst();
  for (int i = 0; i < count; i++) {
    FrameView& frame = frames[i];
    if (frame.protocol != IP_PROTO_TCP) continue;
    const uint8_t* d = frame.bytes;
    frame.owner_at = offsetof(tcp_pcb, callback_arg);
    if (frame.v6) {
      frame.slot = tables.demux.locate(tuple_at(d, kDestination6At, kSource6At, kDestinationPort6At, kSourcePort6At));
      continue;
    }
    frame.slot = tables.demux.locate(field<uint32_t>(d + kDestinationAt), field<uint32_t>(d + kSourceAt),
                                     lwip_ntohs(field<uint16_t>(d + kDestinationPortAt)), lwip_ntohs(field<uint16_t>(d + kSourcePortAt)));
  }
}

bool Tcp::defer(const uint8_t* frame) noexcept {
  const bool v6 = field<uint16_t>(frame + kEtherTypeAt) == PP_HTONS(ETHTYPE_IPV6);
  tcp_pcb* const pcb =
      v6 ? demux().find(tuple_at(frame, kSource6At, kDestination6At, kSourcePort6At, kDestinationPort6At))
         : demux().find(field<uint32_t>(frame + kSourceAt), field<uint32_t>(frame + kDestinationAt),
                        lwip_ntohs(field<uint16_t>(frame + kSourcePortAt)), lwip_ntohs(field<uint16_t>(frame + kDestinationPortAt)));
  if (pcb == nullptr) return false;
  if (pcb->state == TIME_WAIT) {
    output.owe_last_ack();
    return true;
  }
  if (pcb->errf == nullptr) return false;
  output.defer(*static_cast<LwipStream*>(pcb->callback_arg));
  return true;
}

// ---------------------------------------------------------------- endpoints

void Tcp::free_stream(LwipStream& stream) noexcept {
  stream.dispose();
  tables.streams.free(&stream);
}

void Tcp::connection_destroyed(tcp_pcb* pcb) noexcept {
  repairs.forget(pcb);
  timers.forget(pcb);
  if (demux().remove(pcb)) ports().unuse(pcb->local_port, TcpDemux::port_use(pcb));
  if (pcb->errf != nullptr) {
    static_cast<LwipStream*>(pcb->callback_arg)->pcb_gone();
  }
}

PortBinding* Tcp::bind(const PortRequest& request, long* error) noexcept {
  SocketAddress local;
  *error = owners.find(request, nullptr, &local);
  if (*error != 0) return nullptr;
  LwipBinding* const binding = tables.bindings.make(*this, local, request.v6_only, request.sharing);
  if (binding == nullptr) {
    *error = -ENOBUFS;
    return nullptr;
  }
  owners.add(*binding);
  return binding;
}

void Tcp::free_binding(LwipBinding& binding) noexcept {
  owners.remove(binding);
  tables.bindings.free(&binding);
}

TcpListener* Tcp::listen(const PortRequest& request, const PortBinding* own, int backlog, long* error) noexcept {
  SocketAddress local;
  *error = owners.find(request, own, &local);
  if (*error != 0) return nullptr;
  LwipListener* const listener = tables.listeners.make(*this, local, request.v6_only, request.sharing, backlog);
  if (listener == nullptr) {
    *error = -ENOBUFS;
    return nullptr;
  }
  file(*listener);
  return listener;
}

void Tcp::file(LwipListener& listener) noexcept {
  listeners.add(listener);
  ports().note_bound({listener.local().address, listener.v6_only()}, lwip_ntohs(listener.local().port_be), listener.sharing());
  ports().use(lwip_ntohs(listener.local().port_be), PortUse::bound);
}

void Tcp::free_listener(LwipListener& listener) noexcept {
  listeners.remove(listener);
  ports().unuse(lwip_ntohs(listener.local().port_be), PortUse::bound);
  tables.listeners.free(&listener);
}

// ---------------------------------------------------------------- recovery

void Tcp::forget_holders() noexcept {
  tables.streams.rebuild();
  tables.streams.for_each([](LwipStream& stream) { stream.hold(false); });
  tables.listeners.rebuild();
  tables.listeners.for_each([](LwipListener& listener) { listener.hold(false); });
  tables.bindings.rebuild();
  tables.bindings.for_each([](LwipBinding& binding) { binding.held = false; });
}

bool Tcp::hold(LwipStream* stream) noexcept {
  if (!tables.streams.owns(stream) || stream->held() || stream->released()) return false;
  stream->hold();
  return true;
}

bool Tcp::hold(LwipListener* listener) noexcept {
  if (!tables.listeners.owns(listener) || listener->held()) return false;
  listener->hold(true);
  return true;
}

bool Tcp::hold(LwipBinding* binding) noexcept {
  if (!tables.bindings.owns(binding) || binding->held) return false;
  binding->held = true;
  return true;
}

void Tcp::note_what_is_lost() noexcept {
  tables.streams.rebuild();
  recovery.note_connections();
}

// What survives is what lies in the region and was only read: which slots are in use, the listeners' and bindings' addresses and options,
// the streams' options and observers. An endpoint that is in use and that nobody holds was being made or released.
void Tcp::reset() noexcept {
  memory_awaited_ = false;
  output.reset();
  acks.reset();
  timers.reset();
  repairs.reset();
  tables.demux.reset();
  tables.ports.reset();
  tables.listeners.rebuild();
  listeners.reset();
  tables.listeners.for_each([&](LwipListener& listener) {
    if (!listener.held()) {
      tables.listeners.free(&listener);
      return;
    }
    listener.rebuild();
    file(listener);
  });
  tables.bindings.rebuild();
  owners.reset();
  tables.bindings.for_each([&](LwipBinding& binding) {
    if (binding.held) {
      owners.add(binding);
    } else {
      tables.bindings.free(&binding);
    }
  });
  handshakes.recover();
}

void Tcp::tell_what_is_lost() noexcept {
  recovery.begin_resets();
  tables.streams.for_each([&](LwipStream& stream) {
    if (!stream.held() || stream.released()) {
      tables.streams.free(&stream);
      return;
    }
    stream.forget_everything();
    stream.announce(stream.ready());
  });
}

}  // namespace netstack
