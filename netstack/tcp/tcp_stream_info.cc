// TCP_INFO of streams and listeners: what is counted on the way, and what can be told from the state of the moment.
// SPDX-License-Identifier: BSD-3-Clause
//
// On the way are plain sums only, of what nothing else would tell afterwards: segments of each kind, what was sent again, how long
// something was outstanding. The rest is arithmetic over the PCB and the stream's offsets when somebody asks (tcp_get_info()). Segments are
// those on the wire, and one that left or came as a long one counts as many.
#include <linux/tcp.h>

#include <cstring>

#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_listener.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {
namespace {

// Linux's tcpi_state numbers, by lwIP's.
constexpr uint8_t kLinuxState[] = {7, 10, 2, 3, 1, 4, 5, 8, 11, 9, 6};
constexpr uint32_t kNoThreshold = 0x7fff'ffff;  // Linux: TCP_INFINITE_SSTHRESH
constexpr uint32_t kDefaultReordering = 3;
enum CongestionState : uint8_t { kOpen = 0, kRecovery = 3, kLoss = 4 };  // enum tcp_ca_state

constexpr size_t least(size_t a, size_t b) { return a < b ? a : b; }
static_assert(offsetof(tcp_info, tcpi_snd_wnd) + sizeof(tcp_info::tcpi_snd_wnd) == TcpInfoTail::kOffset);

uint32_t milliseconds(uint64_t ns) noexcept { return static_cast<uint32_t>(ns / 1'000'000); }

}  // namespace

void LwipListener::info(tcp_info* out) const noexcept {
  out->tcpi_state = kLinuxState[LISTEN];
  out->tcpi_unacked += static_cast<uint32_t>(queued_);
  out->tcpi_sacked = static_cast<uint32_t>(backlog_);
}

uint32_t LwipStream::segments_of(const tcp_pcb& pcb, uint32_t bytes) const noexcept {
  const uint32_t full = tcp_.full_payload(pcb);
  return bytes <= full ? 1 : (bytes + full - 1) / full;
}

void LwipStream::count_retransmission(uint32_t segments, uint32_t bytes) noexcept {
  rare_.retransmitted += segments;
  rare_.retransmitted_bytes += bytes;
}

void LwipStream::count_out_of_order(uint32_t bytes) noexcept {
  if (pcb_ != nullptr) rare_.out_of_order += segments_of(*pcb_, bytes);
}

void LwipStream::count_timeout(uint64_t now_ns) noexcept {
  end_timeouts(progress_ns_);
  rare_.timeouts++;
  if (rare_.timeout_since_ns != 0) return;
  rare_.timeout_since_ns = now_ns;
  rare_.timeout_recoveries++;
}

// Linux: tcp_update_rto_time(), with the first acknowledgement. Here with the next tick or timeout, and `now_ns` is when something was
// acknowledged last.
void LwipStream::end_timeouts(uint64_t now_ns) noexcept {
  if (rare_.timeout_since_ns == 0 || now_ns <= rare_.timeout_since_ns) return;
  rare_.timeout_ms += milliseconds(now_ns - rare_.timeout_since_ns);
  rare_.timeout_since_ns = 0;
}

// The connection stands since now; `handshake_ns`: how long the peer took to answer, 0 if that is not known.
void LwipStream::begin_figures(uint64_t handshake_ns) noexcept {
  rare_.begun_ns = tcp_.now_ns();
  end_timeouts(rare_.begun_ns);
  if (figures_.segments_out == 0) figures_.segments_out = figures_.segments_in = 1;  // the SYN-ACK, and the ACK that accepted it
  if (handshake_ns != 0) add_round_trip(static_cast<uint32_t>(handshake_ns / 1000));
}

// RFC 6298's smoothing.
void LwipStream::add_round_trip(uint32_t sample_us) noexcept {
  if (sample_us == 0) sample_us = 1;
  if (sample_us < figures_.least_rtt_us) figures_.least_rtt_us = sample_us;
  if (rtt_us_ == 0) {
    rtt_us_ = sample_us;
    rtt_variance_us_ = (sample_us + 1) / 2;
    return;
  }
  const uint32_t deviation = sample_us > rtt_us_ ? sample_us - rtt_us_ : rtt_us_ - sample_us;
  rtt_variance_us_ += (deviation >> 2) - (rtt_variance_us_ >> 2);
  rtt_us_ += (sample_us >> 3) - (rtt_us_ >> 3);
}

// From write() to the acknowledgement; retransmitted data gives no sample (Karn). What was acknowledged meanwhile is the rate of delivery:
// of a sender that had no more to send only if it is the highest, and not worth a look if it is little (tcp_rate_gen()).
void LwipStream::sample_round_trip() noexcept {
  constexpr uint32_t kLittle = 16 * 1024;
  rtt_offset_ = 0;
  if (pcb_ == nullptr || pcb_->nrtx != 0) return;
  const auto took_us = static_cast<uint32_t>((tcp_.now_ns() - rtt_sent_ns_) / 1000);
  const uint32_t bytes = static_cast<uint32_t>(acknowledged_) - figures_.rate_from;
  add_round_trip(took_us);
  if (rate_known_ && bytes < kLittle) [[likely]] return;
  const bool higher = uint64_t{bytes} * rare_.rate_us > uint64_t{rare_.rate_bytes} * took_us;
  if (rate_known_ && feeding_ == nullptr && !higher) return;
  rate_known_ = true;
  rare_.rate_bytes = bytes;
  rare_.rate_us = took_us | 1;
}

void LwipStream::put_connection(tcp_info* out, uint64_t now_ns) const noexcept {
  const tcp_pcb& p = *pcb_;
  const uint32_t mss = tcp_.full_payload(p);
  constexpr uint32_t kTickUs = TCP_SLOW_INTERVAL * 1000;
  const bool recovering = (p.flags & TF_INFR) != 0;
  out->tcpi_state = kLinuxState[state()];
  out->tcpi_ca_state = recovering ? kRecovery : p.nrtx > 0 ? kLoss : kOpen;
  out->tcpi_retransmits = p.nrtx;
  out->tcpi_probes = p.persist_probe;
  out->tcpi_backoff = p.persist_backoff;
  out->tcpi_options = static_cast<uint8_t>(((p.flags & TF_SACK) != 0 ? TCPI_OPT_SACK : 0) |
                                           ((p.flags & TF_TIMESTAMP) != 0 ? TCPI_OPT_TIMESTAMPS : 0) |
                                           ((p.flags & TF_WND_SCALE) != 0 ? TCPI_OPT_WSCALE : 0));
  out->tcpi_snd_wscale = p.snd_scale & 15;
  out->tcpi_rcv_wscale = p.rcv_scale & 15;
  out->tcpi_rto = static_cast<uint32_t>(p.rto) * kTickUs;
  out->tcpi_ato = TCP_TMR_INTERVAL * 1000;
  out->tcpi_snd_mss = out->tcpi_rcv_mss = out->tcpi_advmss = mss;
  out->tcpi_sacked = p.dupacks;  // as tcp_add_reno_sack() counts where SACK does not tell
  out->tcpi_unacked = (p.snd_nxt - p.lastack + mss - 1) / mss;
  out->tcpi_retrans = out->tcpi_lost = recovering || p.nrtx > 0 ? 1 : 0;
  out->tcpi_snd_ssthresh = p.ssthresh >= TCP_SND_BUF ? kNoThreshold : p.ssthresh / mss;
  out->tcpi_snd_cwnd = p.cwnd > mss ? p.cwnd / mss : 1;
  out->tcpi_reordering = kDefaultReordering;
  out->tcpi_rcv_ssthresh = p.rcv_wnd;
  out->tcpi_rcv_space = receive_window();
  out->tcpi_snd_wnd = p.snd_wnd;
  if (rare_.begun_ns == 0) return;
  out->tcpi_last_data_sent = milliseconds(now_ns - (rtt_sent_ns_ != 0 ? rtt_sent_ns_ : rare_.begun_ns));
  out->tcpi_last_data_recv = milliseconds(now_ns - (received_ns_ != 0 ? received_ns_ : rare_.begun_ns));
  out->tcpi_last_ack_recv = (tcp_ticks - p.tmr) * TCP_SLOW_INTERVAL;
}

// What waits is more than the peer's window lets out now (Linux: tcp_snd_wnd_test()).
bool LwipStream::window_is_full() const noexcept {
  const uint32_t in_flight = pcb_->snd_nxt - pcb_->lastack;
  return waiting_bytes() > 0 && pcb_->snd_wnd < pcb_->cwnd && in_flight + least(waiting_bytes(), pcb_->mss) > pcb_->snd_wnd;
}

TcpInfoTail LwipStream::info_tail() const noexcept {
  TcpInfoTail tail;
  if (pcb_ != nullptr) tail.rcv_wnd = pcb_->rcv_wnd;
  tail.total_rto = rare_.timeouts;
  tail.total_rto_recoveries = rare_.timeout_recoveries;
  tail.total_rto_time = rare_.timeout_ms;
  if (rare_.timeout_since_ns != 0) {
    const uint64_t until_ns = progress_ns_ > rare_.timeout_since_ns ? progress_ns_ : tcp_.timers.fresh_now_ns();
    tail.total_rto_time += milliseconds(until_ns - rare_.timeout_since_ns);
  }
  return tail;
}

void LwipStream::info(tcp_info* out) const noexcept {
  memset(out, 0, sizeof *out);
  const Figures& f = figures_;
  const bool has_sequence = pcb_ != nullptr && phase_ != Phase::connecting;
  const size_t waiting = waiting_bytes();
  const uint64_t sent = written_ - waiting;
  const uint64_t acknowledged = has_sequence ? offset_of(pcb_->lastack) : acknowledged_;
  const uint64_t now_ns = tcp_.timers.fresh_now_ns();
  out->tcpi_state = kLinuxState[CLOSED];
  out->tcpi_pmtu = peer_.port_be != 0 ? tcp_.path_mtu(peer_.address) : 0;
  out->tcpi_rtt = rtt_us_;
  out->tcpi_rttvar = rtt_variance_us_;
  out->tcpi_min_rtt = f.least_rtt_us;
  out->tcpi_total_retrans = rare_.retransmitted;
  out->tcpi_max_pacing_rate = options_.pacing_rate == UINT32_MAX ? UINT64_MAX : options_.pacing_rate;
  out->tcpi_pacing_rate = out->tcpi_max_pacing_rate;
  out->tcpi_bytes_acked = acknowledged - rare_.lost_bytes;
  out->tcpi_bytes_received = read_total_ + received_bytes_;
  out->tcpi_bytes_sent = sent - rare_.lost_bytes + rare_.retransmitted_bytes;
  out->tcpi_bytes_retrans = rare_.retransmitted_bytes;
  out->tcpi_notsent_bytes = static_cast<uint32_t>(waiting + rare_.sequence_gap);
  out->tcpi_segs_out = f.segments_out;
  out->tcpi_segs_in = f.segments_in;
  out->tcpi_data_segs_out = f.data_segments_out;
  out->tcpi_data_segs_in = f.data_segments_in;
  out->tcpi_delivery_rate = rare_.rate_us != 0 ? uint64_t{rare_.rate_bytes} * 1'000'000 / rare_.rate_us : 0;
  out->tcpi_delivery_rate_app_limited = feeding_ == nullptr;
  const uint64_t outstanding_ns = written_ != acknowledged_ ? now_ns - progress_ns_ : 0;
  out->tcpi_busy_time = (f.busy_ns + outstanding_ns) / 1000;
  out->tcpi_rwnd_limited = (rare_.window_limited_ns + (pcb_ != nullptr && window_is_full() ? outstanding_ns : 0)) / 1000;
  out->tcpi_rcv_ooopack = rare_.out_of_order;
  if (pcb_ != nullptr) put_connection(out, now_ns);
  const uint32_t settled = rare_.retransmitted + out->tcpi_unacked;
  out->tcpi_delivered = f.data_segments_out > settled ? f.data_segments_out - settled : 0;
}

}  // namespace netstack
