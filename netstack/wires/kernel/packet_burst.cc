// Messages of frames and of trains of segments.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/packet_burst.h"

#include <cstring>

#include <rte_mbuf.h>

#include "base/check.h"
#include "base/syscall.h"
#include "netstack/wires/segment_train.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

static_assert(sizeof(VnetHeader) <= RTE_PKTMBUF_HEADROOM);
constexpr uint32_t kIpDestinationAt = SegmentTrain::kEthernetBytes + 16;

bool is_tcp(const rte_mbuf* frame) noexcept { return (frame->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) != 0; }

// A message of up to so many bytes that stays on this machine the kernel is asked to keep in one piece of memory (packet_alloc_skb()):
// eight pages, the largest piece of which it has free ones ready for each processor, without its struct skb_shared_info and what it leaves
// free in front. Else 16 KB lie in four pages, which are not those that the sending processor has in its cache: what it gives back as
// acknowledged, the client's requests, was in eights.
constexpr uint32_t kLinearBytes = (32 << 10) - 512;

bool is_for_host(rte_mbuf* frame, const WireFacts& facts) noexcept {
  uint32_t to_be;
  memcpy(&to_be, rte_pktmbuf_mtod_offset(frame, uint8_t*, kIpDestinationAt), sizeof to_be);
  return to_be == facts.host_be;
}

// How large a frame may go as one segment: as large as the link takes it, to the kernel at its other end, if that takes segments
// as large as the stack makes them (whole frames' worth: LwipStream::limit_segments()). What it would pass on to others has to be cut as
// they want it.
uint32_t most_whole(const rte_mbuf* first, const WireFacts& facts) noexcept {
  const uint32_t ip_bytes = first->pkt_len - SegmentTrain::kEthernetBytes;
  const bool full = facts.gso_max_size != 0 ? ip_bytes + facts.mtu > facts.gso_max_size : ip_bytes == facts.mtu;
  return full ? facts.gro_max_size + SegmentTrain::kEthernetBytes : 0;
}

}  // namespace

Elsewhere& elsewhere(rte_mbuf* frame) noexcept { return *static_cast<Elsewhere*>(rte_mbuf_to_priv(frame)); }
bool is_headers_only(const rte_mbuf* frame) noexcept { return frame->pkt_len != frame->data_len; }

void PacketBurst::assemble(rte_mbuf** frames, uint16_t count, const WireFacts& facts) noexcept {
  CHECK(count <= kBurst);
  iovec* pieces = pieces_;
  count_ = 0;
  for (uint16_t i = 0; i < count; count_++) {
    frames_of_[count_] = add(frames + i, static_cast<uint16_t>(count - i), facts, pieces);
    pieces += messages_[count_].msg_hdr.msg_iovlen;
    i = static_cast<uint16_t>(i + frames_of_[count_]);
  }
}

// One message of the first of `frames` and of those behind it that join; how many they are.
uint16_t PacketBurst::add(rte_mbuf** frames, uint16_t count, const WireFacts& facts, iovec* pieces) noexcept {
  auto* frame = rte_pktmbuf_mtod(frames[0], uint8_t*);
  uint8_t* const start = frame - sizeof(VnetHeader);
  VnetHeader header{};
  uint16_t joined = 1;
  size_t used = 0;
  pieces[used++] = {start, frames[0]->data_len + sizeof header};
  const auto add_elsewhere = [&](rte_mbuf* of) {
    const Piece* piece = elsewhere(of).pieces;
    for (uint32_t at = of->data_len; at != of->pkt_len; at += piece++->bytes)
      pieces[used++] = {const_cast<void*>(piece->data), piece->bytes};
  };
  if (is_headers_only(frames[0])) add_elsewhere(frames[0]);
  if (is_tcp(frames[0])) {
    SegmentTrain train;
    train.begin(frame, frames[0]->pkt_len);
    for (; joined < count && is_tcp(frames[joined]); joined++) {
      auto* next = rte_pktmbuf_mtod(frames[joined], uint8_t*);
      const uint32_t length = frames[joined]->pkt_len;
      if (!train.join(next, length)) break;
      if (is_headers_only(frames[joined])) {
        add_elsewhere(frames[joined]);
      } else {
        pieces[used++] = {next + train.header_bytes(), length - train.header_bytes()};
      }
    }
    const bool for_host = is_for_host(frames[0], facts);
    train.finish(&header, for_host ? most_whole(frames[0], facts) : 0);
    if (for_host && train.bytes() <= kLinearBytes) header.hdr_len = static_cast<uint16_t>(train.bytes());
  }
  memcpy(start, &header, sizeof header);
  msghdr& message = messages_[count_].msg_hdr;
  message = msghdr{};
  message.msg_iov = pieces;
  message.msg_iovlen = used;
  return joined;
}

long PacketBurst::submit(int socket, uint32_t first) const noexcept {
  const msghdr& message = messages_[first].msg_hdr;
  if (count_ - first > 1) return kernel_call(SYS_sendmmsg, socket, as_arg(&messages_[first]), count_ - first, MSG_DONTWAIT);
  const iovec& piece = message.msg_iov[0];
  const long sent = message.msg_iovlen > 1
                        ? kernel_call(SYS_sendmsg, socket, as_arg(&message), MSG_DONTWAIT)
                        : kernel_call(SYS_sendto, socket, as_arg(piece.iov_base), static_cast<long>(piece.iov_len), MSG_DONTWAIT, 0, 0);
  return sent < 0 ? sent : 1;
}

uint16_t PacketBurst::frames_of_first(uint32_t messages) const noexcept {
  uint16_t frames = 0;
  for (uint32_t i = 0; i < messages; i++) frames = static_cast<uint16_t>(frames + frames_of_[i]);
  return frames;
}

}  // namespace netstack
