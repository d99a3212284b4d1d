// The queue of received datagrams.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp/datagram_queue.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "lwip/def.h"
#include "lwip/prot/udp.h"
#include "netstack/lwip/frame_fields.h"

namespace netstack {
namespace {

constexpr uint32_t kStampBytes = sizeof(uint64_t);

// The headers in front of a queued datagram's payload.
class Headers {
 public:
  explicit Headers(const pbuf& p) noexcept : udp_(static_cast<uint8_t*>(p.payload) - UDP_HLEN) {}

  void note(uint32_t ip_header_bytes, uint64_t now_ns) noexcept {
    const auto bytes = static_cast<uint16_t>(ip_header_bytes);
    memcpy(udp_ + 2, &bytes, sizeof bytes);
    memcpy(ip() - kStampBytes, &now_ns, sizeof now_ns);
  }
  void tell(Datagram* about) const noexcept {
    const uint8_t* const header = ip();
    about->received_ns = field<uint64_t>(header - kStampBytes);
    if (header[0] >> 4 == 6) {
      about->from = {field<IpAddress>(header + 8), field<uint16_t>(udp_)};
      about->to = {field<IpAddress>(header + 24), 0};
      about->ttl = header[7];
      about->tos = static_cast<uint8_t>(header[0] << 4 | header[1] >> 4);
    } else {
      about->from = {field<uint32_t>(header + 12), field<uint16_t>(udp_)};
      about->to = {field<uint32_t>(header + 16), 0};
      about->ttl = header[8];
      about->tos = header[1];
    }
  }

  // Of the same family, from the same port and address to the same, marked and aged alike.
  [[nodiscard]] bool is_as(const Headers& other) const noexcept {
    Datagram mine, theirs;
    tell(&mine), other.tell(&theirs);
    return mine.from == theirs.from && mine.to == theirs.to && mine.ttl == theirs.ttl && mine.tos == theirs.tos;
  }

 private:
  [[nodiscard]] uint8_t* ip() const noexcept { return udp_ - field<uint16_t>(udp_ + 2); }
  uint8_t* udp_;
};

bool ends_datagram(const pbuf& p) noexcept { return p.len == p.tot_len; }

const pbuf* next_of(const pbuf* datagram) noexcept {
  while (!ends_datagram(*datagram)) datagram = datagram->next;
  return datagram->next;
}

}  // namespace

// sizeof(struct sk_buff) rounded, and the data area: headers, headroom and skb_shared_info, as kmalloc() rounds it, or one of
// skbuff_small_head. On Linux 6 for a datagram from the machine itself, as SO_MEMINFO tells it; what a device's driver allocates differs by
// driver.
uint32_t DatagramQueue::cost_of(const pbuf* datagram) noexcept {
  constexpr uint32_t kBuffer = 256, kAround = 361, kSmallHead = 576;
  uint32_t cost = 0, header = UDP_HLEN;
  for (const pbuf* p = datagram;; p = p->next, header = 0) {
    const uint32_t data = header + p->len + kAround;
    cost += kBuffer + (data <= kSmallHead ? kSmallHead : uint32_t{1} << (32 - __builtin_clz(data - 1)));
    if (ends_datagram(*p)) return cost;
  }
}

void DatagramQueue::push(pbuf* p, uint32_t ip_header_bytes, uint64_t now_ns) noexcept {
  held_ += cost_of(p);
  Headers(*p).note(ip_header_bytes, now_ns);
  if (tail_ != nullptr) {
    tail_->next = p;
  } else {
    head_ = p;
  }
  while (!ends_datagram(*p)) p = p->next;
  tail_ = p;
}

size_t DatagramQueue::copy_front(const iovec* parts, int count, Datagram* about, size_t skip) const noexcept {
  Headers(*head_).tell(about);
  about->bytes = head_->tot_len;
  return copy_chain(head_, 0, parts, count, skip);
}

// __skb_try_recv_from_queue(): an offset behind one's last byte is in the next.
long DatagramQueue::copy_at(const iovec* parts, int count, size_t* offset, Datagram* about) const noexcept {
  const pbuf* p = head_;
  while (p != nullptr && *offset > 0 && *offset >= p->tot_len) {
    *offset -= p->tot_len;
    p = next_of(p);
  }
  if (p == nullptr) return -EAGAIN;
  Headers(*p).tell(about);
  about->bytes = p->tot_len;
  return static_cast<long>(copy_chain(p, *offset, parts, count));
}

// What udp_gro_receive() lets through as one: UDP_MAX_SEGMENTS at most, until one is shorter.
size_t DatagramQueue::joined_bytes(size_t room) const noexcept {
  constexpr int kMostJoined = 64;
  if (head_ == nullptr) return 0;
  const size_t segment = head_->tot_len;
  size_t sum = segment;
  if (room > 0xffff) room = 0xffff;
  const pbuf* p = next_of(head_);
  for (int i = 1; i < kMostJoined && p != nullptr && segment != 0; i++, p = next_of(p)) {
    if (p->tot_len == 0 || p->tot_len > segment || sum + p->tot_len > room || !Headers(*p).is_as(Headers(*head_))) break;
    sum += p->tot_len;
    if (p->tot_len < segment) break;
  }
  return sum;
}

void DatagramQueue::drop_front() noexcept {
  pbuf* const first = head_;
  pbuf* last = first;
  while (!ends_datagram(*last)) last = last->next;
  held_ -= cost_of(first);
  head_ = last->next;
  if (head_ == nullptr) tail_ = nullptr;
  last->next = nullptr;
  pbuf_free(first);
}

size_t copy_chain(const pbuf* p, size_t offset, const iovec* parts, int count, size_t skip) noexcept {
  size_t copied = 0;
  while (offset >= p->len && !ends_datagram(*p)) offset -= p->len, p = p->next;
  for (int i = 0; i < count; i++) {
    if (skip >= parts[i].iov_len) {
      skip -= parts[i].iov_len;
      continue;
    }
    auto* to = static_cast<uint8_t*>(parts[i].iov_base) + skip;
    for (size_t left = parts[i].iov_len - std::exchange(skip, 0); left > 0;) {
      const size_t n = p->len - offset < left ? p->len - offset : left;
      if (n > 0) memcpy(to, static_cast<const uint8_t*>(p->payload) + offset, n);
      to += n;
      left -= n;
      copied += n;
      offset += n;
      if (offset < p->len) break;
      if (ends_datagram(*p)) return copied;
      p = p->next;
      offset = 0;
    }
  }
  return copied;
}

}  // namespace netstack
