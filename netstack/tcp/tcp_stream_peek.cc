// Looking at received bytes: MSG_PEEK, and SO_PEEK_OFF from an offset on.
// SPDX-License-Identifier: BSD-3-Clause
#include <cerrno>
#include <cstring>

#include "netstack/tcp/tcp_stream.h"

namespace netstack {

long LwipStream::peek_at(const iovec* parts, int count, size_t offset) noexcept {
  if (offset >= received_bytes_) {
    if (peer_closed_) return 0;  // as in read(): tcp_recvmsg_locked() looks at SOCK_DONE, sk_err, RCV_SHUTDOWN
    if (error_ != 0) return -take_error();
    if (read_closed_) return 0;
    return received_bytes_ == 0 ? read(parts, count, true) : -EAGAIN;
  }
  return look_at(parts, count, offset);
}

// Copies what has been received, from `offset` on, which is within it.
long LwipStream::look_at(const iovec* parts, int count, size_t offset) const noexcept {
  const pbuf* p = received_head_;
  for (; offset >= p->len; p = p->next) offset -= p->len;
  size_t copied = 0;
  for (int i = 0; i < count; i++) {
    auto* to = static_cast<uint8_t*>(parts[i].iov_base);
    for (size_t left = parts[i].iov_len; left > 0 && p != nullptr;) {
      const size_t n = p->len - offset < left ? p->len - offset : left;
      memcpy(to, static_cast<uint8_t*>(p->payload) + offset, n);
      to += n;
      left -= n;
      copied += n;
      offset += n;
      if (offset < p->len) break;
      p = p->next;
      offset = 0;
    }
  }
  return static_cast<long>(copied);
}

}  // namespace netstack
