// Receive side of a stream: the queue of what has come, and the window that opens as the program reads.
// SPDX-License-Identifier: BSD-3-Clause
#include <cerrno>
#include <cstring>
#include <sys/epoll.h>

#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {
namespace {

constexpr uint32_t kReadable = EPOLLIN | EPOLLRDNORM;
constexpr uint32_t kWindowUpdateBytes = 64 * 1024;

constexpr uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

}  // namespace

err_t LwipStream::on_receive(void* self, tcp_pcb*, pbuf* p, err_t) noexcept {
  auto* stream = static_cast<LwipStream*>(self);
  if (p == nullptr) {
    stream->peer_closed_ = true;
    if (!stream->released_) stream->announce(stream->ready());
    return ERR_OK;
  }
  if (stream->read_closed_ && stream->fin_queued_) {
    // Nobody will read it and nobody can write: RFC 1122 4.2.2.13 wants a reset (tcp_rcv_state_process() of Linux).
    pbuf_free(p);
    stream->abort(ECONNRESET);
    return ERR_ABRT;
  }
  stream->received_ns_ = stream->tcp_.now_ns();
  if ((p->flags & PBUF_FLAG_PUSH) != 0) stream->push_came_ = true;
  stream->queue_received(p);
  if (stream->urgent_ == Urgent::announced) [[unlikely]] stream->find_urgent_byte();
  stream->tcp_.output.data_received();
  if (stream->received_bytes_ >= stream->low_water_) {
    stream->announce_data();
  } else if (stream->fin_queued_) {
    stream->announce(0);  // for who lingers
  }
  return ERR_OK;
}

void LwipStream::queue_received(pbuf* p) noexcept {
  if (received_tail_ != nullptr) {
    received_tail_->next = p;
  } else {
    received_head_ = p;
  }
  while (true) {
    received_bytes_ += p->len;
    if (p->next == nullptr) break;
    p = p->next;
  }
  received_tail_ = p;
}

void LwipStream::drop_received() noexcept {
  while (received_head_ != nullptr) {
    pbuf* const p = received_head_;
    received_head_ = p->next;
    p->next = nullptr;
    pbuf_free(p);
  }
  received_tail_ = nullptr;
  received_bytes_ = 0;
}

long LwipStream::read(const iovec* parts, int count, bool peek) noexcept {
  if (received_bytes_ == 0) {
    if (peer_closed_) return 0;
    if (error_ != 0) return -take_error();
    if (read_closed_) return 0;
    return phase_ == Phase::connected || phase_ == Phase::connecting ? -EAGAIN : -ENOTCONN;
  }
  if (urgent_ != Urgent::none) [[unlikely]] return read_beside_mark(parts, count, peek);
  if (peek) {
    if (push_came_) acknowledge_read();
    return look_at(parts, count, 0);
  }
  size_t copied = 0;
  for (int i = 0; i < count; i++) {
    auto* to = static_cast<uint8_t*>(parts[i].iov_base);
    size_t left = parts[i].iov_len;
    while (left > 0 && received_head_ != nullptr) {
      pbuf* const p = received_head_;
      const size_t n = p->len < left ? p->len : left;
      memcpy(to, p->payload, n);
      to += n;
      left -= n;
      copied += n;
      if (n == p->len) {
        received_head_ = p->next;
        p->next = nullptr;
        pbuf_free(p);
      } else {
        p->payload = static_cast<uint8_t*>(p->payload) + n;
        p->len = static_cast<u16_t>(p->len - n);
      }
    }
  }
  if (received_head_ == nullptr) received_tail_ = nullptr;
  received_bytes_ -= copied;
  read_total_ += copied;
  open_window();
  if (push_came_ && received_bytes_ == 0) acknowledge_read();
  return static_cast<long>(copied);
}

// Linux's tcp_cleanup_rbuf(): who has read all that the peer has pushed, and is not one to answer, acknowledges it now. The peer may have
// no more to send before that: a small send buffer, a short segment that waits for the one before it.
void LwipStream::acknowledge_read() noexcept {
  push_came_ = false;
  if (interactive_ || pcb_ == nullptr || !tcp_is_flag_set(pcb_, TF_ACK_DELAY)) return;
  tcp_.acks.await_answer(pcb_);
}

// As large as the program asked for, but never less than two of the segments that may come: a peer that remembers a larger window waits for
// room for a whole one, and sends less only when its timer says so.
uint32_t LwipStream::receive_window() const noexcept {
  const uint32_t frame = tcp_.facts().gro_max_size != 0 ? tcp_.facts().gro_max_size : tcp_.facts().mtu;
  const auto asked = static_cast<uint32_t>(options_.receive_bound);
  return asked < 2 * frame ? 2 * frame : asked;
}

// The same, or what memory has room for; but two segments of the connection's.
uint32_t LwipStream::receive_limit() const noexcept {
  const uint32_t buffer = receive_window();
  if (tcp_.core.memory.receive_share_is(buffer)) [[likely]] return buffer;
  const size_t share = tcp_.core.memory.receive_share();
  const uint32_t least = 2 * tcp_.frame_mss(*pcb_);
  return share < least ? least : static_cast<uint32_t>(share);
}

uint32_t LwipStream::receive_room() const noexcept {
  const MemoryBudget& memory = tcp_.core.memory;
  if (memory.receive_share_is(TCP_WND) && !memory.payload_is_lent) [[likely]] return TCP_WND;
  const size_t share = memory.payload_is_lent ? 0 : memory.receive_share();
  return share > received_bytes_ ? static_cast<uint32_t>(share - received_bytes_) : 0;
}

// Linux: what is there is readable under pressure, however much the program would wait for (tcp_rmem_pressure()).
void LwipStream::shut_window() noexcept {
  pcb_->rcv_wnd = pcb_->rcv_ann_wnd = 0;
  if (received_bytes_ >= low_water_) return;
  low_water_ = 1;
  announce(kReadable);
}

void LwipStream::set_low_water() noexcept {
  const auto asked = static_cast<uint32_t>(options_.receive_low_water);
  low_water_ = asked < receive_window() / 2 ? asked : receive_window() / 2;
}

// The window is what the buffer has room for, but what was offered is not taken back. An update of its own is sent when the peer may be
// waiting for it: after 64 KB, or after two segments or half the buffer if it saw less than that; otherwise the next segment that leaves
// carries it.
void LwipStream::open_window() noexcept {
  if (pcb_ == nullptr || pcb_->state < ESTABLISHED || pcb_->state > FIN_WAIT_2) return;
  const uint32_t buffer = least(receive_limit(), TCP_WND_MAX(pcb_));
  const uint32_t room = received_bytes_ < buffer ? buffer - static_cast<uint32_t>(received_bytes_) : 0;
  if (pcb_->rcv_wnd == 0 && room > 0) set_low_water();
  if (pcb_->rcv_wnd < room) pcb_->rcv_wnd = room;
  const uint32_t announced = pcb_->rcv_ann_right_edge - pcb_->rcv_nxt;
  (void)tcp_update_rcv_ann_wnd(pcb_);
  const uint32_t edge = pcb_->rcv_nxt + pcb_->rcv_wnd;
  const uint32_t inflation = TCP_SEQ_GT(edge, pcb_->rcv_ann_right_edge) ? edge - pcb_->rcv_ann_right_edge : 0;
  const uint32_t two_segments = 2 * tcp_.full_payload(*pcb_), half = buffer / 2;
  const uint32_t much = two_segments < half ? two_segments : half;
  // Whoever has read everything says the same window each time: segments that change nothing else are what Linux's TCP takes quickest.
  if (received_bytes_ == 0 || inflation >= much) pcb_->rcv_ann_wnd = pcb_->rcv_wnd;
  if (inflation >= kWindowUpdateBytes || (announced < much && inflation >= much)) {
    tcp_ack_now(pcb_);
    mark_dirty();
  }
}

}  // namespace netstack
