// From a pbuf chain to a frame of the wire: copied, or referred to.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/frame_output.h"

#include <cstring>

#include "lwip/inet_chksum.h"
#include "lwip/prot/etharp.h"
#include "lwip/prot/icmp6.h"
#include "lwip/priv/tcp_priv.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/lwip_core.h"
#include "netstack/lwip/protocol.h"

namespace netstack {
namespace {

constexpr uint32_t kWorthReferring = 1024;  // pieces cost more than a copy of less
constexpr size_t kMssAt = kPlainHeaders;    // lwIP's first option

// An ARP request for somebody else, or a neighbour solicitation: packets may be waiting for the answer, and must not wait for ever.
bool asks_for_neighbour(const pbuf& p) noexcept {
  const auto* d = static_cast<const uint8_t*>(p.payload);
  constexpr size_t kIcmp6At = kEthernetHeader + kIp6Header;
  if (p.len >= kIcmp6At + 1 && field<uint16_t>(d + kEtherTypeAt) == PP_HTONS(ETHTYPE_IPV6)) {
    return d[kNextHeaderAt] == IP6_NEXTH_ICMP6 && d[kIcmp6At] == ICMP6_TYPE_NS;
  }
  return p.len >= 42 && field<uint16_t>(d + kEtherTypeAt) == PP_HTONS(ETHTYPE_ARP) && d[21] == 1 &&
         field<uint32_t>(d + 28) != field<uint32_t>(d + 38);
}

// Says in a SYN how much a segment may hold that comes to us (RFC 9293, 3.7.1). lwIP would say as much as it sends itself.
void announce_mss(uint8_t* frame, uint32_t length, uint32_t gro_max_size) noexcept {
  if (length < kMssAt + 4 || frame[kMssAt] != LWIP_TCP_OPT_MSS) return;
  const u16_t mss = lwip_htons(static_cast<u16_t>(gro_max_size - kIpHeader - kTcpHeader));
  memcpy(frame + kMssAt + 2, &mss, sizeof mss);
}

// The same over IPv6. Its checksum is there, or is filled in behind this.
void announce_mss6(uint8_t* frame, uint32_t length, uint32_t gro_max_size) noexcept {
  if (length < kPlainHeaders6 + 4 || frame[kPlainHeaders6] != LWIP_TCP_OPT_MSS) return;
  const u16_t mss = lwip_htons(static_cast<u16_t>(gro_max_size - kIp6Header - kTcpHeader));
  memcpy(frame + kPlainHeaders6 + 2, &mss, sizeof mss);
}

// The wire fills in the checksum of TCP over IPv4 only.
void fill_tcp6_checksum(uint8_t* frame, uint32_t length) noexcept {
  uint8_t* const tcp = frame + kEthernetHeader + kIp6Header;
  const auto bytes = static_cast<u16_t>(length - kEthernetHeader - kIp6Header);
  memset(tcp + 16, 0, 2);
  uint32_t sum = lwip_htons(IP_PROTO_TCP);
  sum += lwip_htons(bytes);
  sum += zps_lwip_checksum(frame + kSource6At, 32);
  sum += zps_lwip_checksum(tcp, bytes);
  sum = (sum & 0xffff) + (sum >> 16);
  const auto folded = static_cast<u16_t>(~((sum & 0xffff) + (sum >> 16)));
  memcpy(tcp + 16, &folded, sizeof folded);
}

// What lwIP leaves out because the wire does it for TCP.
void fill_ip_checksum(uint8_t* frame, uint32_t length) noexcept {
  if (length < kEthernetHeader + kIpHeader || field<uint16_t>(frame + kEtherTypeAt) != PP_HTONS(ETHTYPE_IP)) return;
  const u16_t header = static_cast<u16_t>((frame[kEthernetHeader] & 0xf) * 4);
  if (kEthernetHeader + header > length) return;
  memset(frame + kEthernetHeader + 10, 0, 2);
  const u16_t sum = inet_chksum(frame + kEthernetHeader, header);
  memcpy(frame + kEthernetHeader + 10, &sum, sizeof sum);
}

}  // namespace

FrameOutput::FrameOutput(LwipCore& core) noexcept
    : core_(core), wire_(core.wire()), most_backlog_(wire_.total_frames() / 8 < 4 * kBurst ? wire_.total_frames() / 8 : 4 * kBurst) {}

// A segment whose payload lies in few pieces stays where it is until the wire has sent it: nothing that lwIP holds goes away within a
// flush. False: it is not such a segment.
bool FrameOutput::send_by_reference(const TxFrame& frame, const pbuf& p) noexcept {
  const bool is_long = p.tot_len > core_.frame_mtu() + kEthernetHeader;
  if (!(core_.tcp_checksum_offload() || is_long) || p.len < kPlainHeaders) return false;
  const auto* headers = static_cast<const uint8_t*>(p.payload);
  if (!is_tcp(headers, p.tot_len)) return false;
  const uint32_t header_bytes = static_cast<uint32_t>(kEthernetHeader + kIpHeader) + (headers[kTcpOffsetAt] >> 4) * 4u;
  if (p.len < header_bytes || p.tot_len == header_bytes) return false;
  Piece pieces[kMostPieces];
  int count = 0;
  if (p.len > header_bytes) pieces[count++] = {headers + header_bytes, p.len - header_bytes};
  for (const pbuf* q = &p; q->len != q->tot_len;) {
    q = q->next;
    if (count == kMostPieces) return false;
    pieces[count++] = {q->payload, q->len};
  }
  memcpy(frame.data, headers, header_bytes);
  wire_.send_tcp_with(frame.handle, header_bytes, pieces, count);
  return true;
}

// One that is longer than a frame. It is copied if it lies in many pieces, or if it may be gone before the next flush.
bool FrameOutput::send_segment(const TxFrame& frame, pbuf* p) noexcept {
  if ((flushing_ || core_.facts().memory) && send_by_reference(frame, *p)) return true;
  pbuf* const whole = pbuf_clone(PBUF_RAW, PBUF_RAM, p);
  if (whole == nullptr) return false;
  keep_until_flushed(whole);
  return send_by_reference(frame, *whole);
}

void FrameOutput::send_copy(const TxFrame& frame, const pbuf& p) noexcept {
  uint8_t* to = frame.data;
  const uint32_t length = p.tot_len;
  for (const pbuf* q = &p;; q = q->next) {
    memcpy(to, q->payload, q->len);
    if (q->len == q->tot_len) break;
    to += q->len;
  }
  const uint32_t gro_max_size = core_.gro_max_size();
  const bool offload = core_.tcp_checksum_offload();
  const bool tcp = (offload || gro_max_size != 0) && is_tcp(frame.data, length);
  if (tcp && gro_max_size != 0 && (frame.data[kTcpFlagsAt] & TCP_SYN) != 0) announce_mss(frame.data, length, gro_max_size);
  if (!tcp && (offload || gro_max_size != 0) && is_tcp6(frame.data, length)) [[unlikely]] {
    if (gro_max_size != 0 && (frame.data[kTcpFlags6At] & TCP_SYN) != 0) announce_mss6(frame.data, length, gro_max_size);
    if (core_.fills_tcp6_checksums()) fill_tcp6_checksum(frame.data, length);
    wire_.send(frame.handle, length);
  } else if (tcp && offload) {
    wire_.send_tcp(frame.handle, length);
  } else {
    if (offload) fill_ip_checksum(frame.data, length);
    wire_.send(frame.handle, length);
  }
}

// The connection queues for the next flush, if it can: while others have been refused, one that an acknowledgement has just woken does not
// overtake them.
bool FrameOutput::waits_its_turn(const pbuf& p) noexcept {
  const auto* headers = static_cast<const uint8_t*>(p.payload);
  const bool tcp = (p.len >= kPlainHeaders && is_tcp(headers, p.len)) || is_tcp6(headers, p.len);
  return tcp && protocol_->defer(headers);
}

err_t FrameOutput::refuse(const pbuf& p) noexcept {
  starved_ = true;
  if (asks_for_neighbour(p)) core_.link_timers.keep_running();  // it is asked again
  (void)waits_its_turn(p);
  return ERR_MEM;
}

err_t FrameOutput::send(pbuf* p) noexcept {
  TxFrame frame;
  if (p->tot_len > core_.interface().mtu + kEthernetHeader) return ERR_IF;
  const bool is_long = p->tot_len > core_.frame_mtu() + kEthernetHeader;
  if (is_long && may_defer && protocol_->defer(static_cast<const uint8_t*>(p->payload))) return ERR_MEM;
  if (starved_ && may_defer && waits_its_turn(*p)) return ERR_MEM;
  if (wire_.backlog() > most_backlog_ || !wire_.allocate(&frame)) return refuse(*p);
  if (asks_for_neighbour(*p)) core_.link_timers.keep_running();
  if (is_long) {
    if (send_segment(frame, p)) return ERR_OK;
    wire_.release(frame.handle);
    return refuse(*p);
  }
  if (flushing_ && p->tot_len >= kWorthReferring && send_by_reference(frame, *p)) return ERR_OK;
  send_copy(frame, *p);
  return ERR_OK;
}

void FrameOutput::keep_until_flushed(pbuf* p) noexcept {
  p->next = kept_;
  kept_ = p;
}

void FrameOutput::end_flush() noexcept {
  wire_.flush();
  flushing_ = false;
  while (kept_ != nullptr) {
    pbuf* const p = kept_;
    kept_ = p->next;
    p->next = nullptr;
    (void)pbuf_free(p);
  }
}

void FrameOutput::reset() noexcept {
  may_defer = starved_ = flushing_ = false;
  kept_ = nullptr;
}

}  // namespace netstack
