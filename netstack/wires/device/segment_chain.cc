// Joins frames for a device that segments.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/device/segment_chain.h"

#include <cstring>

#include <rte_ip.h>
#include <rte_mbuf.h>

#include "netstack/wires/segment_train.h"

namespace netstack {
namespace {

constexpr uint32_t kIpLengthAt = SegmentTrain::kEthernetBytes + 2;

}  // namespace

void SegmentChain::make(rte_mbuf** frames, uint16_t count, uint16_t most) noexcept {
  first_ = frames[0];
  frames_ = 1;
  header_bytes_ = 0;
  if ((first_->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) == 0) return;
  auto* const head = rte_pktmbuf_mtod(first_, uint8_t*);
  memcpy(&ip_length_be_, head + kIpLengthAt, sizeof ip_length_be_);
  SegmentTrain train;
  train.begin(head, first_->data_len);
  header_bytes_ = train.header_bytes();
  rte_mbuf* last = first_;
  while (frames_ < count && frames_ < most) {
    rte_mbuf* const next = frames[frames_];
    if ((next->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) == 0 || !train.join(rte_pktmbuf_mtod(next, uint8_t*), next->data_len)) break;
    next->data_off = static_cast<uint16_t>(next->data_off + header_bytes_);
    next->data_len = static_cast<uint16_t>(next->data_len - header_bytes_);
    next->ol_flags = 0;
    first_->pkt_len += next->data_len;
    last = last->next = next;
    first_->nb_segs = ++frames_;
  }
}

void SegmentChain::finish(bool device_sums_ip) noexcept {
  if ((first_->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) == 0) return;
  auto* const ip = rte_pktmbuf_mtod_offset(first_, rte_ipv4_hdr*, SegmentTrain::kEthernetBytes);
  first_->l2_len = SegmentTrain::kEthernetBytes;
  first_->l3_len = SegmentTrain::kIpBytes;
  first_->l4_len = header_bytes_ - SegmentTrain::kEthernetBytes - SegmentTrain::kIpBytes;
  first_->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
  if (frames_ > 1) {
    first_->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
    first_->tso_segsz = static_cast<uint16_t>(first_->data_len - header_bytes_);
    ip->total_length = rte_cpu_to_be_16(static_cast<uint16_t>(first_->pkt_len - SegmentTrain::kEthernetBytes));
  }
  ip->hdr_checksum = 0;
  if (device_sums_ip) first_->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
  else ip->hdr_checksum = rte_ipv4_cksum(ip);
}

void SegmentChain::undo(rte_mbuf** frames) const noexcept {
  if (header_bytes_ == 0) return;
  first_->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM;
  first_->next = nullptr;
  first_->nb_segs = 1;
  first_->pkt_len = first_->data_len;
  memcpy(rte_pktmbuf_mtod_offset(first_, uint8_t*, kIpLengthAt), &ip_length_be_, sizeof ip_length_be_);
  for (uint16_t i = 1; i < frames_; i++) {
    rte_mbuf* const frame = frames[i];
    frame->data_off = static_cast<uint16_t>(frame->data_off - header_bytes_);
    frame->data_len = static_cast<uint16_t>(frame->data_len + header_bytes_);
    frame->pkt_len = frame->data_len;
    frame->next = nullptr;
    frame->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM;
  }
}

}  // namespace netstack
