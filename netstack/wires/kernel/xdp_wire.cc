// Frames in and out of the rings, and whose they are.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/xdp_wire.h"

#include <cstring>
#include <linux/if_ether.h>
#include <sys/socket.h>

#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/kernel/unfinished_checksum.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint32_t kContinues = 1;  // XDP_PKT_CONTD of Linux 6.6
constexpr uint32_t kRefillFrom = 32;
constexpr uint64_t kLookEveryNs = 10'000'000;
constexpr uint32_t kMostToReceive = 2048;
constexpr int kDestination4At = ETH_HLEN + 16, kDestination6At = ETH_HLEN + 24, kTypeAt = 12;

// Where a frame is with the kernel.
struct Hold {
  uint32_t ring, index;
};
static_assert(sizeof(Hold) <= sizeof(rte_mbuf::dynfield1));

Hold& hold_of(rte_mbuf* frame) noexcept { return *reinterpret_cast<Hold*>(frame->dynfield1); }

uint64_t address_of(const rte_mbuf* frame, const uint8_t* frames, uint32_t shift) noexcept {
  return static_cast<uint64_t>(reinterpret_cast<const uint8_t*>(frame) - frames) >> shift << shift;
}

// Zeros for what is no packet of IP.
IpAddress destination_of(const uint8_t* frame) noexcept {
  const int type = frame[kTypeAt] << 8 | frame[kTypeAt + 1];
  IpAddress address{};
  if (type == ETH_P_IPV6) memcpy(address.words_be, frame + kDestination6At, sizeof address.words_be);
  if (type != ETH_P_IP) return address;
  uint32_t address_be;
  memcpy(&address_be, frame + kDestination4At, sizeof address_be);
  return IpAddress::v4(address_be);
}

// Of a segment of TCP over IPv4.
void fill_checksums(uint8_t* frame) noexcept {
  auto* const ip = reinterpret_cast<rte_ipv4_hdr*>(frame + ETH_HLEN);
  auto* const tcp = reinterpret_cast<rte_tcp_hdr*>(frame + ETH_HLEN + rte_ipv4_hdr_len(ip));
  ip->hdr_checksum = 0;
  ip->hdr_checksum = rte_ipv4_cksum(ip);
  tcp->cksum = 0;
  tcp->cksum = rte_ipv4_udptcp_cksum(ip, tcp);
}

}  // namespace

uint32_t XdpWire::frames_to_receive(uint32_t all, int queues) noexcept {
  uint32_t frames = kMostToReceive;
  while (frames * static_cast<uint32_t>(queues) > all / 2) frames /= 2;
  return frames;
}

XdpWire::XdpWire(const XdpParts& parts, const SharedInterface& device, const IpNetwork& address, const KernelRoutes& routes) noexcept
    : DpdkWire(0, parts.pool, nullptr, parts.sleep_fd, parts.memory.queue, parts.memory.queue_capacity),
      sockets_(*parts.sockets),
      frames_(reinterpret_cast<uint8_t*>(parts.pool->memory())),
      chunk_shift_(static_cast<uint32_t>(__builtin_ctz(parts.chunk_bytes))),
      to_receive_(frames_to_receive(parts.pool->total(), sockets_.count)),
      longest_(FramePool::room_in_chunk(parts.chunk_bytes) - RTE_PKTMBUF_HEADROOM - ETH_HLEN),
      unfinished_come_(parts.unfinished_come),
      link_fd_(parts.link_fd),
      steering_(parts.steering),
      device_(device),
      routes_(routes) {
  fill_shared_facts(device, address, facts_);
  follow_interface(routes_, longest_, device_, *steering_, facts_);
  facts_.link_needs_checksum = true;
  facts_.tcp_checksum_offload = true;
  facts_.name_fd = parts.name_fd;
  for (int i = 0; i < sockets_.count; i++) refill(i);
}

rte_mbuf* XdpWire::frame_of(uint64_t address) const noexcept {
  CHECK(address < pool_->memory_bytes());
  return static_cast<rte_mbuf*>(pool_->frame_of_chunk(address >> chunk_shift_));
}

// ---------------------------------------------------------------- receiving

int XdpWire::receive(RxFrame* out, int capacity) noexcept {
  if (left_) [[unlikely]] make_room_for_next();
  if (parked_count_ > 0) follow_changes();
  int taken = 0;
  for (int i = 0; i < sockets_.count && taken < capacity; i++) {
    const int number = next_queue_;
    next_queue_ = number + 1 < sockets_.count ? number + 1 : 0;
    taken += receive_from(number, out + taken, capacity - taken);
  }
  for (int i = 0; i < sockets_.count; i++) {
    if (receiving_[i] + kRefillFrom <= to_receive_ || (taken == 0 && receiving_[i] < to_receive_)) refill(i);
  }
  return taken;
}

int XdpWire::receive_from(int number, RxFrame* out, int capacity) noexcept {
  const XdpRing<xdp_desc>& ring = sockets_.queue[number].receive;
  const uint32_t begin = ring.consumed(), end = ring.produced();
  uint32_t at = begin;
  int taken = 0;
  while (at != end) {
    uint32_t pieces = 1;
    while ((ring.at(at + pieces - 1).options & kContinues) != 0 && at + pieces != end) pieces++;
    if (taken + static_cast<int>(pieces) > capacity) break;
    bool verified = false;
    for (uint32_t i = 0; i < pieces; i++, at++) {
      const xdp_desc& piece = ring.at(at);
      rte_mbuf* const frame = frame_of(piece.addr);
      hold_of(frame).ring = kOurs;
      uint8_t* const data = frames_ + piece.addr;
      if (i == 0 && unfinished_come_) verified = has_unfinished_checksum(data, piece.len);
      out[taken++] = RxFrame{data, piece.len, frame, rte_mbuf_to_priv(frame), verified, i > 0};
    }
  }
  if (at == begin) return 0;
  receiving_[number] -= at - begin;
  ring.take(at);
  return taken;
}

bool XdpWire::crowded() const noexcept {
  for (int i = 0; i < sockets_.count; i++) {
    const XdpRing<xdp_desc>& ring = sockets_.queue[i].receive;
    if (ring.filled() > ring.size() / 2) return true;
  }
  return false;
}

// What the stack still needs to send stays.
void XdpWire::refill(int number) noexcept {
  const XdpQueue& queue = sockets_.queue[number];
  const uint32_t reserve = pool_->total() / 8;
  uint32_t producer = queue.fill.produced();
  while (receiving_[number] < to_receive_ && pool_->free_count() > reserve) {
    void* frame;
    if (!pool_->take(&frame, 1)) break;
    auto* const taken = static_cast<rte_mbuf*>(frame);
    hold_of(taken) = {kToReceive + static_cast<uint32_t>(number), producer};
    queue.fill.at(producer) = address_of(taken, frames_, chunk_shift_);
    queue.fill.publish(++producer);
    receiving_[number]++;
  }
  if (queue.fill.needs_call()) (void)kernel_call(SYS_recvfrom, queue.fd, 0, 0, MSG_DONTWAIT, 0, 0);
}

// ---------------------------------------------------------------- sending

bool XdpWire::allocate(TxFrame* out) noexcept {
  if (DpdkWire::allocate(out)) [[likely]] return true;
  take_completed();
  return DpdkWire::allocate(out);
}

void XdpWire::send_tcp(void* handle, uint32_t length) noexcept {
  static_cast<rte_mbuf*>(handle)->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
  send(handle, length);
}

void XdpWire::send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept {
  auto* const data = rte_pktmbuf_mtod(static_cast<rte_mbuf*>(handle), uint8_t*);
  for (int i = 0; i < count; i++) {
    memcpy(data + length, pieces[i].data, pieces[i].bytes);
    length += pieces[i].bytes;
  }
  send_tcp(handle, length);
}

void XdpWire::take_completed() noexcept {
  const XdpRing<uint64_t>& ring = first().completion;
  uint32_t at = ring.consumed();
  const uint32_t end = ring.produced();
  while (at != end) {
    void* frames[kBurst];
    unsigned count = 0;
    for (; at != end && count < kBurst; at++) {
      rte_mbuf* const frame = frame_of(ring.at(at));
      hold_of(frame).ring = kOurs;
      frames[count++] = frame;
    }
    ring.take(at);
    pool_->give(frames, count);
  }
}

bool XdpWire::publish_to_send(rte_mbuf* frame) noexcept {
  const XdpRing<xdp_desc>& ring = first().send;
  if (ring.room() == 0) return false;
  const uint32_t producer = ring.produced();
  if ((frame->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) != 0) fill_checksums(rte_pktmbuf_mtod(frame, uint8_t*));
  hold_of(frame) = {kToSend, producer};
  const auto* const data = rte_pktmbuf_mtod(frame, const uint8_t*);
  ring.at(producer) = {static_cast<uint64_t>(data - frames_), frame->data_len, 0};
  ring.publish(producer + 1);
  return true;
}

// What an interface that is down does not take is lost, as Linux has it.
uint16_t XdpWire::give_burst(rte_mbuf** frames, uint16_t count) noexcept {
  take_completed();
  for (uint16_t i = 0; i < count; i++) {
    rte_mbuf* const frame = frames[i];
    auto* const data = rte_pktmbuf_mtod(frame, uint8_t*);
    const uint8_t* station;
    const NextHops::Way way = routes_.is_up() && !gone_ ? hops_.to(destination_of(data), &station) : NextHops::Way::none;
    if (way == NextHops::Way::known) {
      memcpy(data, station, ETH_ALEN);
      if (!publish_to_send(frame)) return i;
    } else if (way == NextHops::Way::awaited) {
      park(frame);
    } else {
      release(frame);
    }
  }
  return count;
}

void XdpWire::flush() noexcept {
  DpdkWire::flush();
  departs_ = departs_allowed_ && is_waiting();
  if (!departs_allowed_) kick();
}

int XdpWire::take_departure() noexcept {
  departs_ = false;
  return is_waiting() ? 0 : -1;
}

bool XdpWire::depart(int number) noexcept {
  (void)number;
  kick();
  return true;
}

// A call takes some frames; how many it took is seen from the ring. Whoever comes here at the same time does it in part.
void XdpWire::kick() noexcept {
  const XdpRing<xdp_desc>& ring = first().send;
  while (is_waiting()) {
    const uint32_t before = ring.consumed();
    (void)kernel_call(SYS_sendto, first().fd, 0, 0, MSG_DONTWAIT, 0, 0);
    if (ring.consumed() == before) return;
  }
}

// ---------------------------------------------------------------- next stations

// The oldest makes room.
void XdpWire::park(rte_mbuf* frame) noexcept {
  if (parked_count_ == kMostParked) {
    release(parked_[0]);
    memmove(parked_, parked_ + 1, sizeof parked_ - sizeof parked_[0]);
    parked_count_--;
  }
  parked_[parked_count_++] = frame;
}

void XdpWire::send_parked() noexcept {
  rte_mbuf* waiting[kMostParked];
  const int count = parked_count_;
  memcpy(waiting, parked_, sizeof waiting);
  parked_count_ = 0;
  for (int i = 0; i < count; i++) {
    if (give_burst(waiting + i, 1) == 0) release(waiting[i]);
  }
  kick();
}

void XdpWire::follow_changes() noexcept {
  if (routes_.take_changes(NextHops::take_message, &hops_) && routes_.read() == 0) {
    hops_.forget_ways();
    follow_interface(routes_, longest_, device_, *steering_, facts_);
  }
  if (hops_.is_behind()) hops_.read();
  if (parked_count_ > 0) send_parked();
}

void XdpWire::run_control() noexcept { follow_changes(); }

// ---------------------------------------------------------------- what a death leaves

void XdpWire::make_room_for_next() noexcept {
  const uint64_t now_ns = base::monotonic_ns();
  if (gone_ || now_ns - looked_ns_ < kLookEveryNs) return;
  looked_ns_ = now_ns;
  if (!holds_link_name(xdp_next_name(facts_.interface).text)) return;
  gone_ = true;
  (void)base::close_high_fd(link_fd_);
  close_xdp_sockets(&sockets_);
}

int XdpWire::free_frames() const noexcept { return DpdkWire::free_frames() + static_cast<int>(first().completion.filled()); }

bool XdpWire::is_published(uint32_t ring, uint32_t index) const noexcept {
  if (ring == kToSend) return index - first().send.produced() >= first().send.size();
  const XdpRing<uint64_t>& fill = sockets_.queue[ring - kToReceive].fill;
  return index - fill.produced() >= fill.size();
}

// What a ring still has to tell was perhaps being read.
void XdpWire::hold_unread() noexcept {
  for (int i = 0; i < sockets_.count; i++) {
    const XdpQueue& queue = sockets_.queue[i];
    for (uint32_t at = queue.receive.consumed(); at != queue.receive.produced(); at++) {
      hold_of(frame_of(queue.receive.at(at).addr)) = {kToReceive + static_cast<uint32_t>(i), queue.fill.produced() - 1};
    }
  }
  for (uint32_t at = first().completion.consumed(); at != first().completion.produced(); at++) {
    hold_of(frame_of(first().completion.at(at))) = {kToSend, first().send.produced() - 1};
  }
}

void XdpWire::recover() noexcept {
  departs_ = false;
  parked_count_ = 0;
  hold_unread();
  for (uint32_t& count : receiving_) count = 0;
  forget_all_frames_but([this](void* object) {
    const Hold& hold = hold_of(static_cast<rte_mbuf*>(object));
    if (hold.ring == kOurs || !is_published(hold.ring, hold.index)) return false;
    if (hold.ring >= kToReceive) receiving_[hold.ring - kToReceive]++;
    return true;
  });
  for (int i = 0; i < sockets_.count; i++) refill(i);
}

}  // namespace netstack
