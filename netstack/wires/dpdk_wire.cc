// Bursts in and out of a DPDK port.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/dpdk_wire.h"

#include <cstring>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "base/check.h"

namespace netstack {

static_assert(sizeof(rte_mbuf) % 64 == 0, "the private area behind an mbuf is 64-byte aligned");

DpdkWire::DpdkWire(uint16_t port, FramePool* pool, Control* control, int sleep_fd, rte_mbuf** queue, uint32_t queue_capacity) noexcept
    : control_(control), pool_(pool), port_(port), sleep_fd_(sleep_fd), queue_(queue), queue_mask_(queue_capacity - 1) {
  CHECK((queue_capacity & queue_mask_) == 0 && queue_capacity >= pool->total());
}

int DpdkWire::receive(RxFrame* out, int capacity) noexcept {
  if (control_ != nullptr) control_->catch_up();
  rte_mbuf* frames[kBurst];
  const int wanted = capacity < kBurst ? capacity : kBurst;
  const int count = rte_eth_rx_burst(port_, 0, frames, static_cast<uint16_t>(wanted));
  int taken = 0;
  for (int i = 0; i < count; i++) {
    rte_mbuf* frame = frames[i];
    // Every frame that fits the wire's MTU is one piece; a peer that sends more is not obeyed.
    if (frame->nb_segs != 1) [[unlikely]] {
      rte_pktmbuf_free(frame);
      continue;
    }
    out[taken++] = RxFrame{rte_pktmbuf_mtod(frame, uint8_t*), frame->data_len, frame, rte_mbuf_to_priv(frame)};
  }
  return taken;
}

void DpdkWire::release(void* handle) noexcept { pool_->give(&handle, 1); }

bool DpdkWire::allocate(TxFrame* out) noexcept {
  void* piece;
  if (!pool_->take(&piece, 1)) return false;
  auto* frame = static_cast<rte_mbuf*>(piece);
  rte_pktmbuf_reset(frame);
  *out = TxFrame{rte_pktmbuf_mtod(frame, uint8_t*), rte_pktmbuf_tailroom(frame), frame};
  return true;
}

void DpdkWire::send(void* handle, uint32_t length) noexcept {
  if (queued_end_ != queued_begin_ && (queued_end_ - queued_begin_) % kBurst == 0) push_out();
  auto* frame = static_cast<rte_mbuf*>(handle);
  frame->data_len = static_cast<uint16_t>(length);
  frame->pkt_len = length;
  queue_[queued_end_++ & queue_mask_] = frame;
}

void DpdkWire::flush() noexcept {
  if (queued_begin_ != queued_end_) push_out();
}

void DpdkWire::push_out() noexcept {
  if (control_ != nullptr) control_->catch_up();
  while (queued_begin_ != queued_end_) {
    const uint32_t first = queued_begin_ & queue_mask_;
    uint32_t count = queued_end_ - queued_begin_;
    if (count > kBurst) count = kBurst;
    if (count > queue_mask_ + 1 - first) count = queue_mask_ + 1 - first;
    const uint16_t sent = give_burst(queue_ + first, static_cast<uint16_t>(count));
    queued_begin_ += sent;
    if (sent == 0 && !plugged()) drop_queued(kKeptUnplugged);
    if (sent == 0) break;
  }
  pushed();
}

uint16_t DpdkWire::give_burst(rte_mbuf** frames, uint16_t count) noexcept { return rte_eth_tx_burst(port_, 0, frames, count); }

bool DpdkWire::append_copies(rte_mbuf* first, const Piece* pieces, int count, uint32_t frame_bytes) noexcept {
  rte_mbuf* last = first;
  for (const Piece* piece = pieces; piece != pieces + count; piece++) {
    const auto* from = static_cast<const uint8_t*>(piece->data);
    for (uint32_t left = piece->bytes, n; left > 0; left -= n) {
      if (last->data_len == frame_bytes) {
        TxFrame more;
        if (!DpdkWire::allocate(&more)) return false;
        last = last->next = static_cast<rte_mbuf*>(more.handle);
        last->data_len = 0;
      }
      n = left < frame_bytes - last->data_len ? left : frame_bytes - last->data_len;
      memcpy(rte_pktmbuf_mtod_offset(last, void*, last->data_len), from, n);
      last->data_len = static_cast<uint16_t>(last->data_len + n);
      from += n;
    }
  }
  return true;
}

void DpdkWire::release_chain(rte_mbuf* frame) noexcept {
  while (frame != nullptr) {
    rte_mbuf* const next = frame->next;
    frame->next = nullptr;
    release(frame);
    frame = next;
  }
}

void DpdkWire::drop_queued(uint32_t kept) noexcept {
  while (queued_end_ - queued_begin_ > kept) release_queued(queue_[queued_begin_++ & queue_mask_]);
}

void DpdkWire::recover() noexcept {
  forget_all_frames_but([](const void*) { return false; });
}

}  // namespace netstack
