// The tick, keepalive deadlines and the end of TIME-WAIT.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_timers.h"

#include "netstack/tcp/orphans.h"
#include "netstack/tcp/tcp.h"

namespace netstack {
namespace {

// The byte that a shut window was probed with does not count as sent: behind the window Linux would take no ACK of ours.
void take_probe_back(tcp_pcb& pcb) noexcept {
  if (pcb.persist_backoff == 0 || pcb.snd_wnd != 0 || pcb.snd_nxt != pcb.lastack + 1) return;
  if (pcb.unsent != nullptr && lwip_ntohl(pcb.unsent->tcphdr->seqno) == pcb.lastack) pcb.snd_nxt = pcb.lastack;
}

uint32_t sequence_of(const tcp_seg& segment) noexcept { return lwip_ntohl(segment.tcphdr->seqno); }

// A fast retransmission that the window or the wire has not let out yet waits in front of what is unsent. At a timeout lwIP puts all that
// is unacknowledged in front of that, the earliest segment behind later ones, and with a congestion window of one segment (RFC 5681, 3.1)
// nothing would be sent any more. So it goes back to its place among the unacknowledged ones first.
void put_retransmission_back(tcp_pcb& pcb) noexcept {
  while (pcb.unsent != nullptr) {
    tcp_seg** at = &pcb.unacked;
    while (*at != nullptr && TCP_SEQ_LT(sequence_of(**at), sequence_of(*pcb.unsent))) at = &(*at)->next;
    if (*at == nullptr) return;
    tcp_seg* const earlier = pcb.unsent;
    pcb.unsent = earlier->next;
    earlier->next = *at;
    *at = earlier;
  }
}

// In the tick that is about to run (tcp_slowtmr()).
bool times_out(const tcp_pcb& pcb) noexcept { return pcb.unacked != nullptr && pcb.rtime + 1 >= pcb.rto; }

}  // namespace

TcpTimers::TcpTimers(Tcp& tcp, uint32_t time_wait_ms) noexcept : tcp_(tcp) {
  const uint64_t ticks = uint64_t{time_wait_ms} * 1'000'000 / Clock::kSlowTickNs;
  time_wait_ticks_ = static_cast<uint32_t>(ticks == 0 ? 1 : ticks);
}

uint64_t TcpTimers::fresh_now_ns() noexcept {
  if (!tcp_.core.in_turn() && !running()) tcp_.core.clock.read();
  return tcp_.now_ns();
}

void TcpTimers::arm(tcp_pcb* pcb) noexcept {
  tcp_.demux().arm(pcb);
  if (!running()) [[unlikely]] {
    next_tick_ns_ = fresh_now_ns() + Clock::kTickNs;
    tcp_.core.link_timers.catch_up();  // the neighbour table ages now, not after the first packet is queued in it
  }
}

uint64_t TcpTimers::keepalive_due_ns(const tcp_pcb* pcb) const noexcept {
  const uint32_t idle_ms = pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl;
  return tcp_.core.clock.ns_of_tick(pcb->tmr + idle_ms / TCP_SLOW_INTERVAL);
}

bool TcpTimers::needs_tick(tcp_pcb* pcb) noexcept {
  const uint64_t now_ns = tcp_.now_ns();
  const bool stream_busy = pcb->errf != nullptr && static_cast<LwipStream*>(pcb->callback_arg)->before_tick(now_ns);
  if (ticking_ == nullptr) return false;
  if (stream_busy) return true;
  if (Orphans::is_alone(*pcb) && !Orphans::tick(*pcb, tcp_.core.memory)) return false;
  if (pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT && (pcb->state != FIN_WAIT_2 || tcp_is_flag_set(pcb, TF_RXCLOSED))) return true;
  if (pcb->unsent != nullptr || pcb->unacked != nullptr || pcb->ooseq != nullptr) return true;
  if (tcp_is_flag_set(pcb, TF_ACK_DELAY | TF_ACK_NOW | TF_CLOSEPEND | TF_NAGLEMEMERR)) return true;
  return ip_get_option(pcb, SOF_KEEPALIVE) && keepalive_due_ns(pcb) <= now_ns + 2 * Clock::kSlowTickNs;
}

// Delayed ACKs are sent here: lwIP's fast timer forgets one that the wire had no room for.
void TcpTimers::acknowledge_late(tcp_pcb* pcb) noexcept {
  if (!tcp_is_flag_set(pcb, TF_ACK_DELAY | TF_ACK_NOW) || tcp_.core.output.starved()) return;
  tcp_ack_now(pcb);
  (void)tcp_output(pcb);
  if (tcp_is_flag_set(pcb, TF_ACK_NOW)) (void)tcp_send_empty_ack(pcb);
}

void TcpTimers::park(tcp_pcb* pcb) noexcept {
  const bool keepalive = ip_get_option(pcb, SOF_KEEPALIVE) != 0;
  tcp_.demux().disarm(pcb, keepalive);
  if (keepalive && keepalive_due_ns(pcb) < next_parked_ns_) next_parked_ns_ = keepalive_due_ns(pcb);
}

// One pass over the armed connections: those that need the tick become lwIP's active ones, the others are armed no more. before_tick() may
// end a connection, so each successor is taken first. True if a FIN that found no memory is left to lwIP's fast timer.
bool TcpTimers::choose_ticking() noexcept {
  tcp_pcb* chain = nullptr;
  bool close_pending = false;
  for (tcp_pcb* pcb = tcp_.demux().armed().front(); pcb != nullptr;) {
    tcp_pcb* const next = PcbList::after(pcb);
    ticking_ = pcb;
    const bool needed = needs_tick(pcb);
    if (ticking_ != nullptr && needed) {
      pcb->next = chain;
      chain = pcb;
      close_pending |= tcp_is_flag_set(pcb, TF_CLOSEPEND);
      acknowledge_late(pcb);
    } else if (ticking_ != nullptr) {
      park(pcb);
    }
    pcb = next;
  }
  ticking_ = nullptr;
  tcp_active_pcbs = chain;
  return close_pending;
}

void TcpTimers::run_tick() noexcept {
  if (choose_ticking()) tcp_fasttmr();
  if (tcp_ticks != last_slow_tick_) {
    last_slow_tick_ = tcp_ticks--;
    for (tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr; pcb = pcb->next) {
      if (!times_out(*pcb)) continue;
      put_retransmission_back(*pcb);
      if (pcb->errf != nullptr && pcb->persist_backoff == 0) static_cast<LwipStream*>(pcb->callback_arg)->count_timeout(tcp_.now_ns());
    }
    tcp_slowtmr();
  }
  for (tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr;) {
    tcp_pcb* const next = pcb->next;
    pcb->next = nullptr;
    take_probe_back(*pcb);
    pcb = next;
  }
  tcp_active_pcbs = nullptr;
  next_tick_ns_ = tcp_.demux().armed().empty() ? Clock::kNever : tcp_.now_ns() + Clock::kTickNs;
}

void TcpTimers::expire_time_wait() noexcept {
  while (tcp_pcb* oldest = tcp_.demux().waiting().front()) {
    if (tcp_ticks - oldest->tmr < time_wait_ticks_ && tcp_.demux().waiting_count() <= kMaxTimeWait) return;
    tcp_abandon(oldest, 0);
  }
}

void TcpTimers::wake_parked() noexcept {
  const uint64_t now_ns = tcp_.now_ns();
  uint64_t earliest = Clock::kNever;
  for (tcp_pcb* pcb = tcp_.demux().parked().front(); pcb != nullptr;) {
    tcp_pcb* const next = PcbList::after(pcb);
    const uint64_t due = keepalive_due_ns(pcb);
    if (due <= now_ns) {
      arm(pcb);
    } else if (due < earliest) {
      earliest = due;
    }
    pcb = next;
  }
  // At most once a second, however many deadlines there are.
  next_parked_ns_ = earliest == Clock::kNever || earliest > now_ns + Clock::kSecondNs ? earliest : now_ns + Clock::kSecondNs;
}

void TcpTimers::run_due() noexcept {
  if (tcp_.now_ns() >= next_tick_ns_) run_tick();
  expire_time_wait();
  if (tcp_.now_ns() >= next_parked_ns_) wake_parked();
}

uint64_t TcpTimers::next_ns() const noexcept {
  uint64_t due = next_tick_ns_ < next_parked_ns_ ? next_tick_ns_ : next_parked_ns_;
  const tcp_pcb* oldest = tcp_.demux().waiting().front();
  if (oldest == nullptr) return due;
  const uint64_t expiry = tcp_.core.clock.ns_of_tick(oldest->tmr + time_wait_ticks_);
  return expiry < due ? expiry : due;
}

}  // namespace netstack
