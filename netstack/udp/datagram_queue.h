// Datagrams that wait to be read: frames of the wire, chained as they came.
// SPDX-License-Identifier: BSD-3-Clause
//
// Nothing is allocated and nothing is copied when a datagram comes: its pbuf, which lies in its frame, is linked to the last one. What is
// told of it besides its bytes is read from its own headers, which lie in front of the payload as they came; what is not in them is written
// over what nobody reads any more:
//
//   link header (14)                    IP header                  UDP header (8)                       payload
//   ...... | when it came (8) |         as it came       | source port | length of the IP header | 4 free |
//
// A chain of several pbufs (fragments, pieces) is one datagram: it ends where a pbuf is as long as what is left of the whole (tot_len),
// lwIP's convention of packet queues.
//
// The bound is the kernel's: what a datagram costs there, struct sk_buff, skb_shared_info and the rounding of its allocator included,
// counts against SO_RCVBUF (skb->truesize), and one datagram is always taken (__udp_enqueue_schedule_skb()). So a program's setting buys as
// many datagrams as it does there. Of one that came in fragments each counts.
#pragma once

#include "lwip/pbuf.h"
#include "netstack/udp_endpoint.h"

namespace netstack {

class DatagramQueue {
 public:
  // What a datagram counts as; its payload pointer stands behind the UDP header.
  [[nodiscard]] static uint32_t cost_of(const pbuf* datagram) noexcept;

  // Whether there is room for one more that costs this.
  [[nodiscard]] bool admits(uint32_t cost, uint32_t bound) const noexcept { return held_ == 0 || (cost <= bound && held_ <= bound - cost); }
  // Queues a datagram; the payload pointer stands behind the UDP header, and the headers are in one piece in front of it.
  void push(pbuf* p, uint32_t ip_header_bytes, uint64_t now_ns) noexcept;
  [[nodiscard]] bool empty() const noexcept { return head_ == nullptr; }
  [[nodiscard]] uint32_t held() const noexcept { return held_; }
  [[nodiscard]] size_t front_bytes() const noexcept { return head_ != nullptr ? head_->tot_len : 0; }
  // Fills in what is known of the oldest, and copies of it what the parts have room for behind their first `skip` bytes.
  [[nodiscard]] size_t copy_front(const iovec* parts, int count, Datagram* about, size_t skip = 0) const noexcept;
  // The datagram that lies `*offset` bytes into the queue, from there on; `*offset` becomes the offset in it. -EAGAIN if there is none.
  [[nodiscard]] long copy_at(const iovec* parts, int count, size_t* offset, Datagram* about) const noexcept;
  // How much of the oldest has what one message of several datagrams is made of, of `room` bytes at most.
  [[nodiscard]] size_t joined_bytes(size_t room) const noexcept;
  void drop_front() noexcept;
  void clear() noexcept {
    while (!empty()) drop_front();
  }
  // Whatever it held is gone without being released.
  void forget() noexcept { head_ = tail_ = nullptr, held_ = 0; }

 private:
  pbuf* head_ = nullptr;
  pbuf* tail_ = nullptr;  // the last pbuf of the last datagram
  uint32_t held_ = 0;
};

// Copies a chain, from `offset` on, as far as the parts have room behind their first `skip` bytes: so many bytes.
[[nodiscard]] size_t copy_chain(const pbuf* p, size_t offset, const iovec* parts, int count, size_t skip = 0) noexcept;

}  // namespace netstack
