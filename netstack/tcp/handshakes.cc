// Handshakes that peers begin: SYNs, their answers, the ACKs that complete them.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/handshakes.h"

#include <cstring>
#include <utility>

#include "lwip/ip.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/tcp/control_segment.h"
#include "netstack/tcp/saved_syn.h"
#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_hooks.h"
#include "netstack/tcp/tcp_timestamps.h"
#include "netstack/tcp/tuples.h"
#include "zps_hooks.h"

namespace netstack {
namespace {

constexpr uint64_t kMinuteNs = 60'000'000'000;
constexpr uint32_t kSynWindow = 0xffff;  // without scaling, as every window of a SYN
constexpr uint32_t kRejectedTicks = 500 / TCP_SLOW_INTERVAL;

uint32_t isn_of(const FourTuple& tuple) noexcept {
  const ip_addr_t local = to_lwip(tuple.local), peer = to_lwip(tuple.peer);
  return zps_tcp_isn(&local, tuple.local_port, &peer, tuple.peer_port);
}

// How large a segment may be that comes to us.
uint16_t own_mss(const LwipCore& core, bool v4) noexcept {
  const uint32_t mtu = core.interface().mtu < core.frame_mtu() ? core.interface().mtu : core.frame_mtu();
  const uint32_t frame = core.gro_max_size() != 0 ? core.gro_max_size() : mtu;
  return static_cast<uint16_t>(frame - (v4 ? kIpHeader : kIp6Header) - kTcpHeader);
}

// From inside the window, and no older than the SYN.
bool is_acceptable(const Request& request, const tcp_hdr& header, uint32_t option_bytes) noexcept {
  Timestamps stamps;
  if (request.options.timestamps && find_timestamps(header, option_bytes, &stamps) && is_older(stamps.value, request.options.stamp)) {
    return false;
  }
  return TCP_SEQ_BETWEEN(header.seqno, request.peer_isn + 1, request.peer_isn + kSynWindow);
}

// How often the SYN-ACK's timer has run out.
int timeouts_of(const Request& request) noexcept {
  return request.stage > RequestTable::kAnswered ? request.stage - RequestTable::kAnswered : 0;
}

// What waits for data is not asked again before its time is nearly up: then the peer gets a last chance to complete the handshake, with
// data or an ACK (syn_ack_recalc()).
bool is_asked_again(const Request& request) noexcept {
  return !request.acked || timeouts_of(request) >= request.listener->deferred_timeouts() - 1;
}

}  // namespace

RequestTable& Handshakes::table() const noexcept { return tcp_.tables.requests; }

uint32_t Handshakes::hash(const FourTuple& tuple) const noexcept { return tcp_.demux().hash(tuple); }

uint32_t Handshakes::minute() const noexcept { return static_cast<uint32_t>(tcp_.now_ns() / kMinuteNs); }

// What is fresh while others are held must be noticed when it is so no longer.
uint64_t Handshakes::next_ns() const noexcept {
  if (table().count() == 0) return UINT64_MAX;
  if (room_made_) return tcp_.now_ns();
  const Request* const fresh = table().oldest(RequestTable::kHeld) != nullptr ? table().oldest(RequestTable::kFresh) : nullptr;
  const uint64_t next = table().next_ns();
  if (fresh == nullptr) return next;
  const uint64_t ages = fresh->since_ns + RequestTable::kStageNs[RequestTable::kFresh];
  return ages < next ? ages : next;
}

// ---------------------------------------------------------------- the last ACK

tcp_pcb* Handshakes::complete(const tcp_hdr& header, uint32_t option_bytes, uint32_t length) noexcept {
  if ((TCPH_FLAGS(&header) & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_ACK) return nullptr;
  const FourTuple tuple = tuple_of(header);
  Request* const kept = table().find(hash(tuple), tuple);
  LwipListener* const listener = kept != nullptr ? kept->listener : tcp_.listeners.find(tuple);
  if (listener == nullptr || listener->full() || !takes_connections()) return nullptr;
  Request request{};
  if (kept != nullptr && header.ackno == kept->isn + 1) {
    if (!is_acceptable(*kept, header, option_bytes)) return nullptr;
    if (length == 0 && timeouts_of(*kept) < listener->deferred_timeouts()) {
      kept->acked = true;
      return nullptr;
    }
    request = *kept;
  } else {
    if (!reads_cookie(*listener, tuple, header, &request.options)) return nullptr;
    Timestamps stamps;
    request.options.timestamps = find_timestamps(header, option_bytes, &stamps);
    if (request.options.timestamps) request.options.stamp = stamps.value;
    request.tuple = tuple;
    request.isn = header.ackno - 1;
    request.peer_isn = header.seqno - 1;
    request.window = header.wnd;
    request.stage = RequestTable::kRepeated;  // how long it took is not known
  }
  return make_connection(*listener, request);
}

uint64_t Handshakes::completed(const tcp_pcb& pcb, SavedSyn** saved_syn) noexcept {
  const FourTuple tuple = tuple_of(pcb);
  Request* const request = table().find(hash(tuple), tuple);
  if (request == nullptr) return 0;
  const uint64_t fresh_ns = request->stage == RequestTable::kAnswered ? RequestTable::kStageNs[RequestTable::kFresh] : 0;
  *saved_syn = std::exchange(request->saved_syn, nullptr);
  const uint64_t answered_ns = request->stage < RequestTable::kRepeated && !request->acked ? request->since_ns - fresh_ns : 0;
  remove(*request);
  return answered_ns;
}

bool Handshakes::takes_connections() const noexcept { return !tcp_.streams_exhausted() && tcp_.core.memory.takes_connections(); }

bool Handshakes::reads_cookie(const LwipListener& listener, const FourTuple& tuple, const tcp_hdr& header,
                              SynOptions* options) const noexcept {
  if (!listener.sent_cookie_since(tcp_.now_ns() - kCookieLifeNs)) return false;
  return read_syn_cookie(tcp_.core.setup().seed, tuple, header.seqno - 1, minute(), header.ackno - 1, options);
}

// As lwIP's tcp_listen_input() would have left it, and the SYN-ACK acknowledged: this is the one place that knows what SYN-RECEIVED looks
// like.
tcp_pcb* Handshakes::make_connection(LwipListener& listener, const Request& request) noexcept {
  tcp_pcb* const pcb = tcp_alloc(TCP_PRIO_NORMAL);
  if (pcb == nullptr) return nullptr;
  pcb->local_ip = to_lwip(request.tuple.local);
  pcb->remote_ip = to_lwip(request.tuple.peer);
  pcb->local_port = request.tuple.local_port;
  pcb->remote_port = request.tuple.peer_port;
  pcb->state = SYN_RCVD;
  pcb->listener = listener.pcb();
  pcb->callback_arg = &listener;
  pcb->ext_args[0] = {&kPcbCallbacks, pcb};
  pcb->ttl = listener.ttl(request.tuple.is_v4());
  pcb->tos = listener.tos(request.tuple.is_v4());
  pcb->rcv_nxt = request.peer_isn + 1;
  pcb->snd_wl1 = request.peer_isn - 1;  // any window is newer
  pcb->snd_wl2 = pcb->lastack = request.isn;
  pcb->snd_nxt = pcb->snd_lbb = request.isn + 1;
  pcb->snd_wnd = pcb->snd_wnd_max = request.window;
  if (request.options.scale != SynOptions::kNoScale) {
    pcb->snd_scale = request.options.scale;
    pcb->rcv_scale = TCP_RCV_SCALE;
    pcb->rcv_wnd = pcb->rcv_ann_wnd = TCP_WND;
    tcp_set_flags(pcb, TF_WND_SCALE);
  }
  if (request.options.sack) tcp_set_flags(pcb, TF_SACK);
  if (request.options.timestamps) {
    tcp_set_flags(pcb, TF_TIMESTAMP);
    pcb->ts_recent = request.options.stamp;
    pcb->ts_lastacksent = pcb->rcv_nxt;
  }
  pcb->rcv_ann_right_edge = pcb->rcv_nxt + pcb->rcv_ann_wnd;
  pcb->mss = tcp_eff_send_mss(request.options.mss < TCP_MSS ? request.options.mss : TCP_MSS, &pcb->local_ip, &pcb->remote_ip);
  // RFC 6298, 3: the first round trip that is measured, unless the SYN-ACK was repeated or its ACK was not taken.
  if (request.stage < RequestTable::kRepeated && !request.acked) {
    pcb->rttest = request.tick;
    pcb->rtseq = request.isn;
  }
  zps_pcb_register(pcb);
  return pcb;
}

// Whether this ACK is one that a handshake waits for, though nothing came of it now: the queue is full, memory is short, or it is not
// acceptable, where the answer is an ACK (RFC 9293, 3.10.7.4; RFC 7323, 5.3).
bool Handshakes::awaits(const LwipListener& listener, Request* request, const FourTuple& tuple, const tcp_hdr& header,
                        uint32_t option_bytes) noexcept {
  SynOptions options;
  if (request == nullptr || header.ackno != request->isn + 1) {
    const bool may_follow = listener.full() && listener.sent_cookie_since(tcp_.now_ns() - kCookieLifeNs);
    return may_follow || reads_cookie(listener, tuple, header, &options);
  }
  if (!is_acceptable(*request, header, option_bytes)) reject(*request);
  return true;
}

// ---------------------------------------------------------------- segments for listeners and for nobody

void Handshakes::input(LwipListener* listener, const tcp_hdr& header, OptionBytes options, uint32_t payload) noexcept {
  const FourTuple tuple = tuple_of(header);
  const unsigned flags = TCPH_FLAGS(&header);
  Request* const request = table().find(hash(tuple), tuple);
  if ((flags & TCP_RST) != 0) {
    if (request != nullptr && header.seqno == request->peer_isn + 1) remove(*request);
    return;
  }
  if (listener == nullptr) return send_reset(tuple, header, payload);
  if (current_ttl() < listener->min_ttl(tuple.is_v4())) return;  // the ACK that completes a handshake is not asked, as on Linux
  if ((flags & TCP_ACK) != 0) {
    if ((flags & TCP_SYN) == 0 && awaits(*listener, request, tuple, header, options.bytes)) return;
    return send_reset(tuple, header, payload);
  }
  if ((flags & (TCP_SYN | TCP_FIN)) != TCP_SYN) return;
  if (request == nullptr) return syn(*listener, tuple, header, options);
  if (request->stage == RequestTable::kHeld) return;
  if (header.seqno != request->peer_isn) return reject(*request);
  send_syn_ack(*request->listener, *request);
}

void Handshakes::syn(LwipListener& listener, const FourTuple& tuple, const tcp_hdr& header, OptionBytes options) noexcept {
  const bool own = tcp_.core.neighbours.owns(tuple.peer);
  const uint8_t* const mac = tcp_.core.input.source_mac();
  if (mac == nullptr ? !own : own || (mac[0] & 1) != 0) return;  // forged
  if (!tcp_.core.neighbours.routes(tuple.peer)) return;                     // nothing of the connection would reach it
  if (!takes_connections()) return;
  Request request{};
  request.tuple = tuple;
  request.peer_isn = header.seqno;
  request.options = parse_syn_options(options.data, options.bytes);
  request.window = header.wnd;
  request.listener = &listener;
  if (mac != nullptr) memcpy(request.mac, mac, sizeof request.mac);
  if (!listener.handshakes_full() && !table().full()) {
    if (listener.saves_syn() != 0) request.saved_syn = save_syn(tcp_.core, header, listener.saves_syn() == 2);
    return begin(request);
  }
  if (listener.full() || listener.holds_some()) return;
  listener.note_cookie(tcp_.now_ns());
  request.isn = make_syn_cookie(tcp_.core.setup().seed, tuple, request.peer_isn, minute(), request.options);
  send_syn_ack(listener, request);
}

// Answered at once, or held.
void Handshakes::begin(Request& request) noexcept {
  const bool admitted = request.listener->admits();
  request.isn = isn_of(request.tuple);
  request.tick = tcp_ticks;
  request.stage = admitted ? RequestTable::kFresh : RequestTable::kHeld;
  request.listener->count_handshake(request.stage, 1);
  const Request& kept = table().add(hash(request.tuple), request, tcp_.now_ns());
  if (admitted) send_syn_ack(*kept.listener, kept);
}

void Handshakes::advance(Request& request, uint64_t now_ns) noexcept {
  request.listener->count_handshake(request.stage, -1);
  table().advance(request, now_ns);
  request.listener->count_handshake(request.stage, 1);
}

void Handshakes::remove(Request& request) noexcept {
  LwipListener& listener = *request.listener;
  listener.count_handshake(request.stage, -1);
  if (listener.holds_some()) room_made();
  free_saved_syn(tcp_.core, &request.saved_syn);
  table().remove(hash(request.tuple), request);
}

void Handshakes::forget(const LwipListener& listener) noexcept {
  table().for_each([&](Request& request) {
    if (request.listener == &listener) remove(request);
  });
}

void Handshakes::refuse_all() noexcept {
  table().for_each([&](Request& request) {
    if (!tcp_.facts().shared) refuse(request);
    remove(request);
  });
}

void Handshakes::recover() noexcept {
  table().rebuild(
      tcp_.now_ns(), [&](const Request& request) { return tcp_.tables.listeners.owns(request.listener); },
      [&](const Request& request) {
        request.listener->count_handshake(request.stage, 1);
        return hash(request.tuple);
      });
  room_made_ = true;
}

// ---------------------------------------------------------------- time

void Handshakes::age_fresh() noexcept {
  const uint64_t now = tcp_.now_ns();
  for (Request* oldest; (oldest = table().oldest(RequestTable::kFresh)) != nullptr && table().due(*oldest, now);) {
    advance(*oldest, oldest->since_ns + RequestTable::kStageNs[RequestTable::kFresh]);
    if (oldest->listener->holds_some()) room_made();
  }
}

void Handshakes::answer_held() noexcept {
  room_made_ = false;
  for (Request* held = table().oldest(RequestTable::kHeld); held != nullptr;) {
    Request* const next = table().after(*held);
    if (held->listener->admits()) {
      send_syn_ack(*held->listener, *held);
      held->tick = tcp_ticks;
      advance(*held, tcp_.now_ns());
    }
    held = next;
  }
}

void Handshakes::run_due() noexcept {
  if (table().count() == 0) [[likely]] return;
  const uint64_t now = tcp_.now_ns();
  age_fresh();
  if (room_made_) answer_held();
  for (const int stage : {RequestTable::kHeld, RequestTable::kLast}) {
    for (Request* oldest; (oldest = table().oldest(stage)) != nullptr && table().due(*oldest, now);) remove(*oldest);
  }
  for (int stage = RequestTable::kLast - 1; stage >= RequestTable::kAnswered; stage--) {
    for (Request* oldest; (oldest = table().oldest(stage)) != nullptr && table().due(*oldest, now);) {
      if (is_asked_again(*oldest)) send_syn_ack(*oldest->listener, *oldest);
      advance(*oldest, now);
    }
  }
}

// ---------------------------------------------------------------- answers

void Handshakes::add_timestamps(ControlSegment& segment, const Request& request) const noexcept {
  if (!request.options.timestamps) return;
  const FourTuple& tuple = request.tuple;
  const uint32_t now = TcpTimestamps::now(to_lwip(tuple.local), to_lwip(tuple.peer), tcp_.core.setup().seed, tcp_.core.clock);
  const uint32_t words[3] = {PP_HTONL(0x0101080a), lwip_htonl(now), lwip_htonl(request.options.stamp)};
  memcpy(segment.options + segment.option_bytes, words, sizeof words);
  segment.option_bytes += sizeof words;
}

void Handshakes::send_syn_ack(const LwipListener& listener, const Request& request) noexcept {
  const bool v4 = request.tuple.is_v4();
  ControlSegment segment{request.tuple,     request.isn,      request.peer_isn + 1, kSynWindow,
                         TCP_SYN | TCP_ACK, listener.ttl(v4), listener.tos(v4)};
  uint8_t* const options = segment.options;
  const unsigned mss = own_mss(tcp_.core, v4);
  uint8_t bytes = 0;
  const auto add = [&](std::initializer_list<unsigned> list) {
    for (const unsigned byte : list) options[bytes++] = static_cast<uint8_t>(byte);
  };
  add({2, 4, mss >> 8, mss & 0xff});
  if (request.options.sack) add({1, 1, 4, 2});
  if (request.options.scale != SynOptions::kNoScale) add({1, 3, 3, TCP_RCV_SCALE});
  segment.option_bytes = bytes;
  add_timestamps(segment, request);
  send_control_segment(tcp_.core, segment, request.mac);
}

// As seldom as for a connection (tcp_repairs.h, 7).
void Handshakes::reject(Request& request) noexcept {
  if (request.rejected_tick != 0 && tcp_ticks - request.rejected_tick < kRejectedTicks) return;
  request.rejected_tick = tcp_ticks;
  ControlSegment segment{request.tuple, request.isn + 1, request.peer_isn + 1, kSynWindow, TCP_ACK};
  add_timestamps(segment, request);
  send_control_segment(tcp_.core, segment, request.mac);
}

// To a peer in SYN-SENT and to one that takes itself for connected (RFC 9293, 3.10.7.3 and .4).
void Handshakes::refuse(const Request& request) noexcept {
  const ControlSegment segment{request.tuple, request.isn + 1, request.peer_isn + 1, 0, TCP_RST | TCP_ACK};
  send_control_segment(tcp_.core, segment, request.mac);
}

// RFC 9293, 3.10.7.1.
void Handshakes::send_reset(const FourTuple& tuple, const tcp_hdr& header, uint32_t payload) noexcept {
  if (tcp_.core.input.source_mac() == nullptr && !tcp_.core.neighbours.owns(tuple.peer)) return;
  if (tcp_.now_ns() - turn_ns_ >= kTurnNs) {
    turn_ns_ = tcp_.now_ns();
    resets_ = 0;
  }
  if (resets_ >= kResetsPerTurn) return;
  resets_++;
  const unsigned flags = TCPH_FLAGS(&header);
  ControlSegment segment{tuple, header.ackno, 0, 0, TCP_RST};
  if ((flags & TCP_ACK) == 0) {
    segment.sequence = 0;
    segment.acknowledgement = header.seqno + payload + ((flags & TCP_SYN) != 0 ? 1 : 0) + ((flags & TCP_FIN) != 0 ? 1 : 0);
    segment.flags = TCP_RST | TCP_ACK;
  }
  send_control_segment(tcp_.core, segment, tcp_.core.input.source_mac());
}

}  // namespace netstack
