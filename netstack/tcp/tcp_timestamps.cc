// Reading timestamps, judging by them, and taking back an offer.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_timestamps.h"

#include <cstring>

#include "netstack/lwip/clock.h"
#include "netstack/lwip/siphash.h"
#include "netstack/tcp/tuples.h"

namespace netstack {
namespace {

constexpr uint32_t kAligned = PP_HTONL(0x0101080a);  // NOP, NOP, kind and length, as nearly everybody sends it
constexpr uint32_t kLongestRoundTripMs = 60'000;

uint32_t word(const uint8_t* at) noexcept {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

// The offset of our clock.
uint32_t offset_of(const ip_addr_t& local, const ip_addr_t& peer, const uint64_t seed[2]) noexcept {
  uint64_t addresses[4];
  const int count = put_addresses(local, peer, addresses);
  return static_cast<uint32_t>(siphash(seed, addresses, count));
}

uint32_t milliseconds(const Clock& clock) noexcept { return static_cast<uint32_t>(clock.now_ns() / 1'000'000); }

// lwIP puts the option into every SYN that it sends first.
void take_offer_back(tcp_pcb& pcb) noexcept {
  tcp_seg* const syn = pcb.unsent;
  if (syn == nullptr || (syn->flags & TF_SEG_OPTS_TS) == 0) return;
  syn->flags &= static_cast<u8_t>(~TF_SEG_OPTS_TS);
  pbuf_realloc(syn->p, static_cast<u16_t>(syn->p->tot_len - LWIP_TCP_OPT_LEN_TS_OUT));
  TCPH_HDRLEN_SET(syn->tcphdr, TCPH_HDRLEN(syn->tcphdr) - LWIP_TCP_OPT_LEN_TS_OUT / 4);
}

// What was acknowledged left when the echo says (section 4.1), in the ticks that lwIP measures in.
void measure(tcp_pcb& pcb, const tcp_hdr& header, uint32_t round_trip_ms) noexcept {
  const uint32_t ticks = round_trip_ms / TCP_SLOW_INTERVAL;
  if (round_trip_ms > kLongestRoundTripMs || ticks >= tcp_ticks) return;
  pcb.rttest = tcp_ticks - ticks;
  pcb.rtseq = header.ackno - 1;
}

}  // namespace

bool find_timestamps(const tcp_hdr& header, uint32_t option_bytes, Timestamps* out) noexcept {
  const auto* at = reinterpret_cast<const uint8_t*>(&header + 1);
  if (option_bytes >= LWIP_TCP_OPT_LEN_TS_OUT && word(at) == kAligned) [[likely]] {
    *out = {lwip_ntohl(word(at + 4)), lwip_ntohl(word(at + 8))};
    return true;
  }
  const uint8_t* const end = at + option_bytes;
  while (at < end && *at != LWIP_TCP_OPT_EOL) {
    if (*at == LWIP_TCP_OPT_NOP) {
      at++;
      continue;
    }
    if (end - at < 2 || at[1] < 2 || at[1] > end - at) return false;
    if (*at == LWIP_TCP_OPT_TS && at[1] == LWIP_TCP_OPT_LEN_TS) {
      *out = {lwip_ntohl(word(at + 2)), lwip_ntohl(word(at + 6))};
      return true;
    }
    at += at[1];
  }
  return false;
}

TcpTimestamps::State TcpTimestamps::state(const tcp_pcb& pcb) noexcept {
  const auto bits = reinterpret_cast<uint64_t>(pcb.ext_args[kPlace].data);
  return {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}

void TcpTimestamps::set(tcp_pcb& pcb, State state) noexcept {
  pcb.ext_args[kPlace].data = reinterpret_cast<void*>(uint64_t{state.renewed_s} << 32 | state.offset);
}

void TcpTimestamps::start(tcp_pcb& pcb, const uint64_t seed[2], bool offers) noexcept {
  set(pcb, {offset_of(pcb.local_ip, pcb.remote_ip, seed), 0});
  if (pcb.state == SYN_SENT && !offers) take_offer_back(pcb);
}

uint32_t TcpTimestamps::now(const tcp_pcb& pcb, const Clock& clock) noexcept {
  return state(pcb).offset + milliseconds(clock);
}

uint32_t TcpTimestamps::now(const ip_addr_t& local, const ip_addr_t& peer, const uint64_t seed[2], const Clock& clock) noexcept {
  return offset_of(local, peer, seed) + milliseconds(clock);
}

bool TcpTimestamps::accept(tcp_pcb& pcb, const tcp_hdr& header, uint32_t payload, const Timestamps& stamps,
                           const Clock& clock) noexcept {
  const unsigned flags = TCPH_FLAGS(&header);
  const auto second = static_cast<uint32_t>(clock.now_ns() / Clock::kSecondNs) + 1;
  const State known = state(pcb);
  if (is_older(stamps.value, pcb.ts_recent)) {
    const bool outdated = known.renewed_s != 0 && second - known.renewed_s > kOutdatedSeconds;
    const bool says_nothing = payload == 0 && (flags & TCP_FIN) == 0 && header.seqno == pcb.rcv_nxt && header.ackno == pcb.lastack;
    if (!outdated && !says_nothing && (flags & TCP_RST) == 0) return false;
    if (!outdated) return true;
  }
  if (TCP_SEQ_LEQ(header.seqno, pcb.ts_lastacksent)) {
    pcb.ts_recent = stamps.value;
    if (known.renewed_s != second) set(pcb, {known.offset, second});
  }
  const bool acknowledges = (flags & TCP_ACK) != 0 && TCP_SEQ_GT(header.ackno, pcb.lastack) && TCP_SEQ_LEQ(header.ackno, pcb.snd_nxt);
  if (acknowledges && pcb.rttest == 0 && stamps.echo != 0) measure(pcb, header, now(pcb, clock) - stamps.echo);
  return true;
}

}  // namespace netstack
