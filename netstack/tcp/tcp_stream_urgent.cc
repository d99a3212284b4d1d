// Urgent data of a stream, in both directions.
// SPDX-License-Identifier: BSD-3-Clause
//
// RFC 793 and RFC 6093 know of a point up to which data is urgent; Linux, as BSD, of one byte: the one before the point, which is taken out
// of the stream unless SO_OOBINLINE keeps it there. A new one makes the one before it ordinary. A read ends before it (the mark), and the
// next one begins behind it (tcp_recvmsg_locked()). lwIP delivers the byte with the others; here is noted where it lies, as an offset in
// the stream. Its life is that of Linux's urg_data: announced by a pointer, valid when it has come, read by MSG_OOB; and gone when the
// stream has been read past it, MSG_OOB or not.
//
// Sending: until the byte is acknowledged the PCB is in urgent mode, and all that leaves before it carries the pointer (tcp_hooks.cc),
// window probes and retransmissions too.
//
// Known limit: a segment of several frames carries one pointer, which is right for who takes it whole (the kernel at the other end of a
// veth); a device that cuts it repeats the pointer in each.
#include <cerrno>
#include <utility>

#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_stream.h"
#include "zps_hooks.h"

namespace netstack {

// ---------------------------------------------------------------- receiving

// tcp_check_urg(): a pointer into what is received already is an old one, and one that is not behind the present one says nothing new.
void LwipStream::note_urgent(const tcp_hdr& header) noexcept {
  const uint32_t pointer = lwip_ntohs(header.urgp);
  const uint32_t at = header.seqno + (pointer != 0 ? pointer - 1 : 0);
  if (released_ || TCP_SEQ_LT(at, pcb_->rcv_nxt)) return;
  const uint64_t offset = read_total_ + received_bytes_ + (at - pcb_->rcv_nxt);
  if (urgent_ != Urgent::none && offset <= urgent_at_) return;
  announce(kUrgentAnnounced);
  if (at_mark() && !options_.oob_inline && received_bytes_ > 0) drop_first_byte();  // its time is over, and it is no ordinary one
  urgent_ = Urgent::announced;
  urgent_at_ = offset;
}

void LwipStream::find_urgent_byte() noexcept {
  uint64_t ahead = urgent_at_ - read_total_;
  if (ahead >= received_bytes_) return;
  const pbuf* p = received_head_;
  for (; ahead >= p->len; p = p->next) ahead -= p->len;
  urgent_byte_ = static_cast<const char*>(p->payload)[ahead];
  urgent_ = Urgent::valid;
  announce_data();
}

void LwipStream::drop_first_byte() noexcept {
  char nowhere;
  const iovec part{&nowhere, 1};
  urgent_ = Urgent::none;
  (void)read(&part, 1, false);
}

// What lies behind the first byte, which stays.
long LwipStream::peek_behind_mark(const iovec* parts, int count) noexcept {
  pbuf* const head = received_head_;
  const Urgent state = std::exchange(urgent_, Urgent::none);
  void* const payload = head->payload;
  const u16_t length = head->len;
  received_bytes_--;
  if (length == 1) {
    received_head_ = head->next;
  } else {
    head->payload = static_cast<uint8_t*>(payload) + 1;
    head->len = static_cast<u16_t>(length - 1);
  }
  const long result = read(parts, count, true);
  head->payload = payload;
  head->len = length;
  received_head_ = head;
  received_bytes_++;
  urgent_ = state;
  return result;
}

long LwipStream::read_beside_mark(const iovec* parts, int count, bool peek) noexcept {
  const uint64_t before = urgent_at_ - read_total_;
  if (before == 0 && !options_.oob_inline) {
    if (peek) return peek_behind_mark(parts, count);
    drop_first_byte();
    return read(parts, count, false);
  }
  constexpr int kMostParts = 16;
  iovec cut[kMostParts];
  const int few = count < kMostParts ? count : kMostParts;
  uint64_t left = before != 0 ? before : UINT64_MAX;
  for (int i = 0; i < few; i++) {
    cut[i] = parts[i];
    if (cut[i].iov_len > left) cut[i].iov_len = left;
    left -= cut[i].iov_len;
  }
  const Urgent state = std::exchange(urgent_, Urgent::none);
  const long result = read(cut, few, peek);
  if (before != 0 || peek || result <= 0) urgent_ = state;
  return result;
}

size_t LwipStream::readable_to_mark() const noexcept {
  if (urgent_ == Urgent::none || options_.oob_inline) return received_bytes_;
  const uint64_t before = urgent_at_ - read_total_;
  return before < received_bytes_ ? static_cast<size_t>(before) : received_bytes_;
}

// tcp_recv_urg().
long LwipStream::read_urgent(char* byte, bool peek) noexcept {
  if (options_.oob_inline || urgent_ == Urgent::none || urgent_ == Urgent::read) return -EINVAL;
  if (phase_ == Phase::closed && !peer_closed_) return -ENOTCONN;
  if (urgent_ == Urgent::valid) {
    *byte = urgent_byte_;
    if (!peek) urgent_ = Urgent::read;
    return 1;
  }
  return phase_ == Phase::closed || peer_closed_ || read_closed_ ? 0 : -EAGAIN;
}

// ---------------------------------------------------------------- sending

// tcp_mark_urg(). The mark is set before: the bytes may leave inside of write().
long LwipStream::write_urgent(const iovec* parts, int count, bool more) noexcept {
  if (pcb_ == nullptr || phase_ != Phase::connected || write_closed_) return write(parts, count, more);
  size_t wanted = 0;
  for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
  const size_t room = write_room();
  const uint32_t end = pcb_->snd_lbb + static_cast<uint32_t>(written_ - fed_), before = urgent_end_;
  const bool was_urgent = tcp_is_flag_set(pcb_, ZPS_TF_URGENT);
  urgent_end_ = end + static_cast<uint32_t>(wanted < room ? wanted : room);
  tcp_set_flags(pcb_, ZPS_TF_URGENT);
  const long written = write(parts, count, more);
  if (pcb_ == nullptr) return written;
  if (written > 0) {
    urgent_end_ = end + static_cast<uint32_t>(written);
    push_all();
    return written;
  }
  urgent_end_ = before;
  if (!was_urgent) tcp_clear_flags(pcb_, ZPS_TF_URGENT);
  return written;
}

}  // namespace netstack
