// The stack's outer face: polling, endpoints, listeners.
#include "netstack/lwip/lwip_stack.h"

#include <cerrno>
#include <cstring>
#include <sys/epoll.h>

#include "lwip/etharp.h"
#include "lwip/init.h"
#include "netif/ethernet.h"
#include "netstack/lwip/siphash.h"
#include "netstack/lwip/wire_netif.h"

namespace netstack {
namespace {

uint32_t mask_be(int prefix) noexcept { return prefix == 0 ? 0 : __builtin_bswap32(~uint32_t{0} << (32 - prefix)); }

}  // namespace

LwipStack::LwipStack(const StackSetup& setup) noexcept
    : setup_(setup),
      early_flush_(setup.wire->facts().memory ? kEarlyFlush : INT32_MAX),
      tcp_checksum_offload_(setup.wire->facts().tcp_checksum_offload),
      checks_of_unchecked_(setup.wire->facts().link_needs_checksum ? NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP : 0),
      random_state_{setup.seed[0], setup.seed[1]},
      wire_facts_(setup.wire->facts()),
      peers_asked_(wire_facts_.peers),
      peers_told_(wire_facts_.peers) {
  now_ns_ = clock_origin_ns_ = setup.now_ns();
  const uint64_t ticks = uint64_t{setup.time_wait_ms} * 1'000'000 / kSlowTickNs;
  time_wait_ticks_ = static_cast<uint32_t>(ticks == 0 ? 1 : ticks);
}

void LwipStack::start_lwip() noexcept {
  lwip_init();
  set_clock(setup_.now_ns());
  last_slow_tick_ = tcp_ticks;
  next_second_ns_ = now_ns_ + 1'000'000'000;
  memset(static_cast<void*>(&netif_), 0, sizeof netif_);
  const ip4_addr_t address{setup_.address_be}, mask{mask_be(setup_.prefix)}, gateway{setup_.gateway_be};
  CHECK(netif_add(&netif_, &address, &mask, &gateway, setup_.wire, wire_netif_init, ethernet_input) != nullptr);
  netif_set_default(&netif_);
  netif_set_link_up(&netif_);
  netif_set_up(&netif_);  // announces the address with a gratuitous ARP
  setup_.wire->flush();
}

// ---------------------------------------------------------------- moving frames

void LwipStack::finish_input() noexcept {
  if (repair.pcb == nullptr) [[likely]] return;
  tcp_pcb& pcb = *repair.pcb;
  repair.pcb = nullptr;
  if (repair.dupacks > 0 && pcb.dupacks == 0) pcb.dupacks = static_cast<u8_t>(repair.dupacks);
  if (repair.close_window && pcb.rcv_wnd > 0) pcb.rcv_wnd--;
  if (pcb.errf == nullptr) return;
  auto& stream = *static_cast<LwipStream*>(pcb.callback_arg);
  const bool recovering = tcp_is_flag_set(&pcb, TF_INFR);
  if (recovering && !repair.recovering) {
    stream.recovery_point = pcb.snd_nxt;
  } else if (repair.recovering && !recovering && pcb.unacked != nullptr && TCP_SEQ_GT(pcb.lastack, repair.lastack) &&
             TCP_SEQ_LT(pcb.lastack, stream.recovery_point) && tcp_rexmit(&pcb) == ERR_OK) {
    // A partial acknowledgement: the next hole begins where it ends.
    tcp_set_flags(&pcb, TF_INFR);
    pcb.rtime = 0;
    pcb.nrtx = 0;
    (void)tcp_output(&pcb);
  }
}

int LwipStack::poll(uint64_t now_ns) noexcept {
  in_poll_ = puts_off = true;
  set_clock(now_ns);
  pay_acks();
  RxFrame frames[kBurst];
  const int taken = setup_.wire->receive(frames, kBurst);
  if (taken > 0) {
    arrivals_ = 0;
    input_frames(netif_, *setup_.wire, frames, taken);
  }
  if (netif_.loop_first != nullptr) {
    netif_poll(&netif_);
    finish_input();
  }
  if (peers_asked_ != wire_facts_.peers) [[unlikely]] ask_peers();
  if (starved_) retry_output();
  if (owes_resets_) [[unlikely]] pay_resets();
  run_timers();
  flush();
  in_poll_ = false;
  return taken;
}

void LwipStack::owe_ack(tcp_pcb* pcb) noexcept {
  tcp_set_flags(pcb, TF_ACK_DELAY);
  if (pcb->errf == nullptr) {
    tcp_ack_now(pcb);
    return;
  }
  OwedAck* link = static_cast<LwipStream*>(pcb->callback_arg);
  if (!link->linked()) owed_acks_.push_back(link);
}

void LwipStack::pay_ack(tcp_pcb* pcb) noexcept {
  if (pcb->errf == nullptr || !tcp_is_flag_set(pcb, TF_ACK_DELAY)) return;
  OwedAck* link = static_cast<LwipStream*>(pcb->callback_arg);
  if (!link->linked() && !tcp_is_flag_set(pcb, TF_ACK_NOW)) return;
  link->unlink();
  (void)tcp_send_empty_ack(pcb);
}

// What no segment has said since goes out with this turn's flush.
void LwipStack::pay_acks() noexcept {
  while (OwedAck* link = owed_acks_.pop_front()) {
    auto& stream = *static_cast<LwipStream*>(link);
    tcp_pcb* const pcb = stream.pcb();
    if (pcb == nullptr || !tcp_is_flag_set(pcb, TF_ACK_DELAY)) continue;
    tcp_ack_now(pcb);
    if (!static_cast<DirtyLink&>(stream).linked()) add_dirty(stream);
  }
}

void LwipStack::flush() noexcept {
  dirty_count_ = 0;
  unflushed_bytes_ = 0;
  puts_off = false;
  flushing_ = true;
  while (DirtyLink* link = dirty_.pop_front()) (void)static_cast<LwipStream*>(link)->output();
  setup_.wire->flush();
  flushing_ = false;
  while (kept_ != nullptr) {
    pbuf* const p = kept_;
    kept_ = p->next;
    p->next = nullptr;
    (void)pbuf_free(p);
  }
}

void LwipStack::keep_until_flushed(pbuf* p) noexcept {
  p->next = kept_;
  kept_ = p;
}

bool LwipStack::put_off(const uint8_t* headers) noexcept {
  if (!puts_off) return false;
  const auto field = [&](size_t at, auto value) {
    memcpy(&value, headers + at, sizeof value);
    return value;
  };
  tcp_pcb* const pcb = demux().find(field(26, uint32_t{}), field(30, uint32_t{}), lwip_ntohs(field(34, uint16_t{})), lwip_ntohs(field(36, uint16_t{})));
  if (pcb == nullptr || pcb->errf == nullptr) return false;
  auto& stream = *static_cast<LwipStream*>(pcb->callback_arg);
  if (!static_cast<DirtyLink&>(stream).linked()) add_dirty(stream);
  stream.was_put_off = true;
  return true;
}

// The wire had no frame for something. What was refused is marked in its connection, and all that wait are armed.
void LwipStack::retry_output() noexcept {
  starved_ = false;
  for (tcp_pcb* pcb = demux().armed().front(); pcb != nullptr && !starved_;) {
    tcp_pcb* const next = PcbList::after(pcb);
    if (pcb->unsent != nullptr || tcp_is_flag_set(pcb, TF_ACK_NOW)) (void)tcp_output(pcb);
    pcb = next;
  }
}

// Somebody new is at the other end of the wire. If it is a stack that was started after the old one died, it says so (a reset) when it is
// asked about a connection that it does not know; a switch, or the same stack, passes the question on or answers it.
// As many at a time as the wire takes.
void LwipStack::ask_peers() noexcept {
  const uint32_t peers = wire_facts_.peers;
  if (peers_told_ != peers) {
    peers_told_ = peers;
    if (now_ns_ < resets_wait_until_ns_) paid_resets_ = asked_resets_ = 0;  // a recovery had the wire begin anew, and nobody was there to be told
    owes_resets_ = paid_resets_ < noted_resets_;
  }
  bool refused = false;
  region_of(*this).streams.for_each([&](LwipStream& stream) { refused = refused || !stream.ask_peer(peers); });
  if (!refused) peers_asked_ = peers;
}

// ---------------------------------------------------------------- endpoints

LwipStream* LwipStack::take_stream() noexcept { return region_of(*this).streams.make(*this); }

bool LwipStack::streams_exhausted() const noexcept { return static_cast<StackRegion*>(setup_.region)->streams.full(); }

TcpStream* LwipStack::make_stream() noexcept {
  LwipStream* stream = take_stream();
  if (stream != nullptr) stream->hold();
  return stream;
}

void LwipStack::free_stream(LwipStream& stream) noexcept {
  stream.dispose();
  region_of(*this).streams.free(&stream);
}

long LwipStack::bind_stream(TcpStream* stream, const SocketAddress& local) noexcept { return static_cast<LwipStream*>(stream)->bind(local); }

void LwipStack::connection_destroyed(tcp_pcb* pcb) noexcept {
  if (repair.pcb == pcb) repair.pcb = nullptr;
  if (ticking_ == pcb) ticking_ = nullptr;
  if (demux().remove(pcb)) ports().unuse(pcb->local_port);
  if (pcb->errf != nullptr) {
    static_cast<LwipStream*>(pcb->callback_arg)->pcb_gone();
  } else if (pcb->listener != nullptr && pcb->callback_arg != nullptr) {
    LwipListener::of(pcb->listener)->half_open_changed(-1);
  }
}

// ---------------------------------------------------------------- listeners

bool LwipStack::port_taken_by_listener(const SocketAddress& local, bool reuse_port) noexcept {
  if (listener_count_ == 0) return false;
  for (LwipListener* other = listeners_[local.port_be % kListenerBuckets]; other != nullptr; other = other->next_in_bucket) {
    const SocketAddress there = other->local();
    const bool overlap = there.address_be == local.address_be || there.address_be == 0 || local.address_be == 0;
    if (there.port_be == local.port_be && overlap && !(reuse_port && other->reuse_port())) return true;
  }
  return false;
}

TcpListener* LwipStack::listen(const SocketAddress& wanted, int backlog, bool reuse_port, long* error) noexcept {
  SocketAddress local = wanted;
  if (local.address_be != 0 && !owns(local.address_be)) {
    *error = -EADDRNOTAVAIL;
    return nullptr;
  }
  if (local.port_be == 0) {
    local.port_be = lwip_htons(ports().choose(random(), [&](uint16_t port) { return ports().users(port) == 0; }));
  }
  if (local.port_be == 0 || port_taken_by_listener(local, reuse_port)) {
    *error = -EADDRINUSE;
    return nullptr;
  }
  LwipListener* listener = region_of(*this).listeners.make(*this, local, backlog, reuse_port);
  if (listener == nullptr) {
    *error = -ENOBUFS;
    return nullptr;
  }
  file_listener(*listener);
  *error = 0;
  return listener;
}

void LwipStack::file_listener(LwipListener& listener) noexcept {
  LwipListener*& bucket = listeners_[listener.local().port_be % kListenerBuckets];
  listener.next_in_bucket = bucket;
  bucket = &listener;
  listener_count_++;
  ports().use(lwip_ntohs(listener.local().port_be));
}

void LwipStack::free_listener(LwipListener& listener) noexcept {
  LwipListener** at = &listeners_[listener.local().port_be % kListenerBuckets];
  while (*at != &listener) at = &(*at)->next_in_bucket;
  *at = listener.next_in_bucket;
  listener_count_--;
  ports().unuse(lwip_ntohs(listener.local().port_be));
  region_of(*this).listeners.free(&listener);
}

// The most specific listener; among several that share address and port, the one that `spread` picks.
LwipListener* LwipStack::find_listener(const SocketAddress& local, uint32_t spread) noexcept {
  for (const uint32_t address : {local.address_be, 0u}) {
    const SocketAddress exact{address, local.port_be};
    int matches = 0;
    LwipListener* first = nullptr;
    for (LwipListener* l = listeners_[local.port_be % kListenerBuckets]; l != nullptr; l = l->next_in_bucket) {
      if (l->local() == exact && matches++ == 0) first = l;
    }
    if (matches <= 1) {
      if (matches == 1) return first;
      continue;
    }
    int skip = static_cast<int>(spread % static_cast<uint32_t>(matches));
    for (LwipListener* l = first;; l = l->next_in_bucket) {
      if (l->local() == exact && skip-- == 0) return l;
    }
  }
  return nullptr;
}

// ---------------------------------------------------------------- facts

bool LwipStack::routes(uint32_t address_be) const noexcept {
  if (owns(address_be)) return true;
  if (address_be == 0 || address_be == ~uint32_t{0} || (address_be & 0xff) == 127) return false;
  const bool near = ((address_be ^ setup_.address_be) & mask_be(setup_.prefix)) == 0;
  return near || setup_.gateway_be != 0;
}

uint32_t LwipStack::hop_to(uint32_t address_be) const noexcept {
  const bool near = ((address_be ^ setup_.address_be) & mask_be(setup_.prefix)) == 0;
  return near ? address_be : setup_.gateway_be;
}

bool LwipStack::neighbour_known(uint32_t address_be) noexcept {
  if (owns(address_be)) return true;
  const ip4_addr_t hop{hop_to(address_be)};
  eth_addr* mac;
  const ip4_addr_t* found;
  return etharp_find_addr(&netif_, &hop, &mac, &found) >= 0;
}

PoolLevels LwipStack::levels() const noexcept {
  auto& region = *static_cast<StackRegion*>(setup_.region);
  return {setup_.arena->used(), region.streams.used(), region.listeners.used(), region.demux.connections(), setup_.wire->free_frames(), region.demux.waiting_count()};
}

uint32_t LwipStack::random() noexcept {
  random_state_[1]++;
  return static_cast<uint32_t>(siphash(random_state_, &random_state_[1], 1));
}

}  // namespace netstack
