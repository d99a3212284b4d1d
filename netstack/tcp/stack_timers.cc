// When lwIP's timers run: only while something is pending.
//
// A tick (40 ms) visits the armed connections: lwIP's list of active PCBs exists for its duration only and holds just them. Every second
// tick is one of lwIP's slow ones. tcp_ticks is a function of the time poll() is given, not of how often ticks ran, so nothing has to run
// while all connections are idle: the first one that is armed again finds the right time. A process that was away for long gets one
// tick, not a burst of them: what the peers sent meanwhile is processed first, and no retransmission timer jumps.
#include "lwip/etharp.h"
#include "lwip/ip4_frag.h"
#include "netstack/lwip/lwip_stack.h"

namespace netstack {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr uint64_t kHousekeepingNs = (IP_REASS_MAXAGE + 2) * kSecondNs;
constexpr uint64_t kStarvedRetryNs = 1'000'000;

// The byte that a shut window was probed with does not count as sent: behind the window Linux would take no ACK of ours.
void take_probe_back(tcp_pcb& pcb) noexcept {
  if (pcb.persist_backoff == 0 || pcb.snd_wnd != 0 || pcb.snd_nxt != pcb.lastack + 1) return;
  if (pcb.unsent != nullptr && lwip_ntohl(pcb.unsent->tcphdr->seqno) == pcb.lastack) pcb.snd_nxt = pcb.lastack;
}

}  // namespace

void LwipStack::set_clock(uint64_t now_ns) noexcept {
  if (now_ns > now_ns_) now_ns_ = now_ns;
  tcp_ticks = static_cast<u32_t>((now_ns_ - clock_origin_ns_) / kSlowTickNs) + 1;
}

uint64_t LwipStack::fresh_now_ns() noexcept {
  if (!in_poll_ && next_tick_ns_ == kNever) set_clock(setup_.now_ns());
  return now_ns_;
}

uint64_t LwipStack::ns_of_tick(uint32_t tick) const noexcept {
  const auto ahead = static_cast<int32_t>(tick - tcp_ticks);
  const uint64_t current = clock_origin_ns_ + (now_ns_ - clock_origin_ns_) / kSlowTickNs * kSlowTickNs;
  return current + static_cast<uint64_t>(int64_t{ahead} * static_cast<int64_t>(kSlowTickNs));
}

void LwipStack::arm(tcp_pcb* pcb) noexcept {
  demux().arm(pcb);
  if (next_tick_ns_ == kNever) [[unlikely]] {
    next_tick_ns_ = fresh_now_ns() + kTickNs;
    if (now_ns_ >= next_second_ns_) run_second();  // the neighbour table ages now, not after the first packet is queued in it
  }
}

void LwipStack::keep_house() noexcept { housekeeping_until_ns_ = now_ns_ + kHousekeepingNs; }

uint64_t LwipStack::keepalive_due_ns(const tcp_pcb* pcb) const noexcept {
  const uint32_t idle_ms = pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl;
  return ns_of_tick(pcb->tmr + idle_ms / TCP_SLOW_INTERVAL);
}

bool LwipStack::needs_tick(tcp_pcb* pcb) noexcept {
  const bool stream_busy = pcb->errf != nullptr && static_cast<LwipStream*>(pcb->callback_arg)->before_tick(now_ns_);
  if (ticking_ == nullptr) return false;
  if (stream_busy) return true;
  if (pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT && (pcb->state != FIN_WAIT_2 || tcp_is_flag_set(pcb, TF_RXCLOSED))) return true;
  if (pcb->unsent != nullptr || pcb->unacked != nullptr || pcb->ooseq != nullptr) return true;
  if (tcp_is_flag_set(pcb, TF_ACK_DELAY | TF_ACK_NOW | TF_CLOSEPEND | TF_NAGLEMEMERR)) return true;
  return ip_get_option(pcb, SOF_KEEPALIVE) && keepalive_due_ns(pcb) <= now_ns_ + 2 * kSlowTickNs;
}

// One pass over the armed connections. before_tick() may end a connection, so each successor is taken first. Delayed ACKs
// are sent here: lwIP's fast timer forgets one that the wire had no room for. What is left to it is a FIN that found no memory.
void LwipStack::run_tick() noexcept {
  tcp_pcb* chain = nullptr;
  bool close_pending = false;
  for (tcp_pcb* pcb = demux().armed().front(); pcb != nullptr;) {
    tcp_pcb* const next = PcbList::after(pcb);
    ticking_ = pcb;
    const bool needed = needs_tick(pcb);
    if (ticking_ != nullptr) {
      if (needed) {
        pcb->next = chain;
        chain = pcb;
        close_pending |= tcp_is_flag_set(pcb, TF_CLOSEPEND);
        if (tcp_is_flag_set(pcb, TF_ACK_DELAY | TF_ACK_NOW) && !starved_) {
          tcp_ack_now(pcb);
          (void)tcp_output(pcb);
          if (tcp_is_flag_set(pcb, TF_ACK_NOW)) (void)tcp_send_empty_ack(pcb);
        }
      } else {
        const bool keepalive = ip_get_option(pcb, SOF_KEEPALIVE) != 0;
        demux().disarm(pcb, keepalive);
        if (keepalive && keepalive_due_ns(pcb) < next_parked_ns_) next_parked_ns_ = keepalive_due_ns(pcb);
      }
    }
    pcb = next;
  }
  ticking_ = nullptr;
  tcp_active_pcbs = chain;
  if (close_pending) tcp_fasttmr();
  if (tcp_ticks != last_slow_tick_) {
    last_slow_tick_ = tcp_ticks--;
    tcp_slowtmr();
  }
  for (tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr;) {
    tcp_pcb* const next = pcb->next;
    pcb->next = nullptr;
    take_probe_back(*pcb);
    pcb = next;
  }
  tcp_active_pcbs = nullptr;
  next_tick_ns_ = demux().armed().empty() ? kNever : now_ns_ + kTickNs;
}

void LwipStack::run_second() noexcept {
  uint64_t turns = (now_ns_ - next_second_ns_) / kSecondNs + 1;
  next_second_ns_ = now_ns_ + kSecondNs;
  if (turns > ARP_MAXAGE) turns = ARP_MAXAGE;
  for (uint64_t i = 0; i < turns; i++) etharp_tmr();
  for (uint64_t i = 0; i < turns && i <= IP_REASS_MAXAGE; i++) ip_reass_tmr();
}

void LwipStack::expire_waiting() noexcept {
  while (tcp_pcb* oldest = demux().waiting().front()) {
    if (tcp_ticks - oldest->tmr < time_wait_ticks_ && demux().waiting_count() <= kMaxWaiting) return;
    tcp_abandon(oldest, 0);
  }
}

void LwipStack::wake_parked() noexcept {
  uint64_t earliest = kNever;
  for (tcp_pcb* pcb = demux().parked().front(); pcb != nullptr;) {
    tcp_pcb* const next = PcbList::after(pcb);
    const uint64_t due = keepalive_due_ns(pcb);
    if (due <= now_ns_) {
      arm(pcb);
    } else if (due < earliest) {
      earliest = due;
    }
    pcb = next;
  }
  // At most once a second, however many deadlines there are.
  next_parked_ns_ = earliest == kNever || earliest > now_ns_ + kSecondNs ? earliest : now_ns_ + kSecondNs;
}

void LwipStack::run_timers() noexcept {
  if (now_ns_ >= next_tick_ns_) run_tick();
  expire_waiting();
  if (now_ns_ >= next_parked_ns_) wake_parked();
  if (now_ns_ >= next_second_ns_ && (next_tick_ns_ != kNever || now_ns_ < housekeeping_until_ns_)) run_second();
}

uint64_t LwipStack::next_timer_ns() const noexcept {
  if (netif_.loop_first != nullptr || !owed_acks_.empty()) return now_ns_;
  uint64_t due = next_tick_ns_ < next_parked_ns_ ? next_tick_ns_ : next_parked_ns_;
  const auto sooner = [&](uint64_t when) {
    if (when < due) due = when;
  };
  if (starved_ || owes_resets_ || peers_asked_ != wire_facts_.peers) sooner(now_ns_ + kStarvedRetryNs);
  if (now_ns_ < housekeeping_until_ns_) sooner(next_second_ns_);
  const tcp_pcb* oldest = static_cast<StackRegion*>(setup_.region)->demux.waiting().front();
  if (oldest != nullptr) sooner(ns_of_tick(oldest->tmr + time_wait_ticks_));
  return due;
}

}  // namespace netstack
