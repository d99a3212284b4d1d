// Bursts in and out of packet sockets.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/packet_wire.h"

#include <cerrno>
#include <cstring>

#include <rte_mbuf.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/syscall.h"
#include "netstack/wires/kernel/segment_train.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

static_assert(sizeof(VnetHeader) <= RTE_PKTMBUF_HEADROOM);
constexpr uint32_t kVlanId = 0xfff;
constexpr uint32_t kIpDestinationAt = SegmentTrain::kEthernetBytes + 16;

// Where the payload of a frame lies that holds its headers only: then pkt_len says more than data_len, and the pieces are as many as that takes.
struct Elsewhere {
  Piece pieces[kMostPieces];
};
static_assert(sizeof(Elsewhere) <= kFramePrivateBytes);

Elsewhere& elsewhere(rte_mbuf* frame) noexcept { return *static_cast<Elsewhere*>(rte_mbuf_to_priv(frame)); }
bool is_headers_only(const rte_mbuf* frame) noexcept { return frame->pkt_len != frame->data_len; }

bool is_tcp(const rte_mbuf* frame) noexcept { return (frame->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) != 0; }

// A frame of a VLAN is not for us; one that only has a priority is.
bool is_for_us(const tpacket2_hdr& slot) noexcept { return (slot.tp_status & TP_STATUS_VLAN_VALID) == 0 || (slot.tp_vlan_tci & kVlanId) == 0; }

}  // namespace

PacketWire::PacketWire(const PacketSockets& sockets, const PacketRing& ring, uint32_t frame_room, FramePool* pool, rte_mbuf** queue,
                       uint32_t queue_capacity) noexcept
    : DpdkWire(0, pool, nullptr, sockets.receiving(), queue, queue_capacity),
      receiving_(sockets.receiving()),
      sending_(sockets.sending()),
      frame_room_(frame_room),
      ring_(ring) {}

// ---------------------------------------------------------------- receiving

int PacketWire::receive(RxFrame* out, int capacity) noexcept {
  int taken = 0;
  while (const tpacket2_hdr* slot = ring_.front()) {
    const uint32_t length = slot->tp_len;
    const uint32_t pieces = (length + frame_room_ - 1) / frame_room_;
    const bool queued = (slot->tp_status & TP_STATUS_COPY) != 0;
    const bool whole = pieces == 1 && slot->tp_snaplen == length && ring_.holds(*slot, length);
    if ((!queued && !whole) || pieces == 0 || pieces > kBurst || !is_for_us(*slot)) {
      if (queued) (void)discard_queued();
      ring_.pop();
      continue;
    }
    if (taken + static_cast<int>(pieces) > capacity) break;
    rte_mbuf* frames[kBurst];
    if (!pool_->take(reinterpret_cast<void**>(frames), pieces)) {
      // What is long would wait for many frames at once, and everything behind it too: its sender sends it again.
      if (pieces == 1) break;
      (void)discard_queued();
      ring_.pop();
      continue;
    }
    if (queued) {
      if (!fetch(*slot, frames, pieces)) {
        pool_->give(reinterpret_cast<void**>(frames), pieces);
        ring_.pop();
        continue;
      }
    } else {
      rte_pktmbuf_reset(frames[0]);
      memcpy(rte_pktmbuf_mtod(frames[0], void*), ring_.frame(*slot), length);
    }
    const bool verified = (slot->tp_status & (TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID)) != 0;
    for (uint32_t i = 0; i < pieces; i++) {
      const uint32_t bytes = i + 1 < pieces ? frame_room_ : length - i * frame_room_;
      out[taken++] = RxFrame{rte_pktmbuf_mtod(frames[i], uint8_t*), bytes, frames[i], rte_mbuf_to_priv(frames[i]), verified, i > 0};
    }
    ring_.pop();
  }
  return taken;
}

// Reads the frame that `slot` only begins. Both queues have the same order; a frame of another length is one that recover() missed.
bool PacketWire::fetch(const tpacket2_hdr& slot, rte_mbuf** frames, uint32_t pieces) noexcept {
  iovec parts[kBurst];
  for (uint32_t i = 0; i < pieces; i++) {
    rte_pktmbuf_reset(frames[i]);
    parts[i] = {rte_pktmbuf_mtod(frames[i], void*), frame_room_};
  }
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = pieces;
  long length;
  do {
    length = kernel_call(SYS_recvmsg, receiving_, as_arg(&message), MSG_DONTWAIT | MSG_TRUNC);
    if (length < 0 && length != -EAGAIN) length = kernel_call(SYS_recvmsg, receiving_, as_arg(&message), MSG_DONTWAIT | MSG_TRUNC);
  } while (length >= 0 && length != static_cast<long>(slot.tp_len));
  return length >= 0;
}

// The first call may get an error that waited (a device that was down) instead of the frame.
bool PacketWire::discard_queued() noexcept {
  long length = -EINTR;
  for (int attempt = 0; attempt < 2 && length < 0 && length != -EAGAIN; attempt++) {
    length = kernel_call(SYS_recvfrom, receiving_, 0, 0, MSG_DONTWAIT | MSG_TRUNC, 0, 0);
  }
  return length >= 0;
}

// An error of the device that nobody takes would end every sleep at once.
void PacketWire::arm() noexcept {
  int error = 0;
  socklen_t bytes = sizeof error;
  (void)kernel_call(SYS_getsockopt, receiving_, SOL_SOCKET, SO_ERROR, as_arg(&error), as_arg(&bytes));
}

// ---------------------------------------------------------------- sending

void PacketWire::send_tcp(void* handle, uint32_t length) noexcept {
  static_cast<rte_mbuf*>(handle)->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
  send(handle, length);
}

void PacketWire::send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept {
  auto* frame = static_cast<rte_mbuf*>(handle);
  send_tcp(handle, length);
  for (int i = 0; i < count; i++) {
    elsewhere(frame).pieces[i] = pieces[i];
    frame->pkt_len += pieces[i].bytes;
  }
}

// What the kernel has not taken now outlives the promise of its sender. A segment that is too long for its frame is lost.
void PacketWire::flush() noexcept {
  DpdkWire::flush();
  if (backlog() == 0) return;
  keep_queued([](rte_mbuf* frame) {
    if (!is_headers_only(frame)) return true;
    if (frame->pkt_len - frame->data_len > rte_pktmbuf_tailroom(frame)) return false;
    const Piece* piece = elsewhere(frame).pieces;
    for (; frame->data_len != frame->pkt_len; piece++) {
      memcpy(rte_pktmbuf_mtod_offset(frame, void*, frame->data_len), piece->data, piece->bytes);
      frame->data_len = static_cast<uint16_t>(frame->data_len + piece->bytes);
    }
    return true;
  });
}

// How large a frame may go as one segment: as large as the link takes it, to the kernel at its other end, if that takes segments
// as large as the stack makes them. What it would pass on to others has to be cut as they want it.
uint32_t PacketWire::most_whole(rte_mbuf* first) const noexcept {
  uint32_t to_be;
  memcpy(&to_be, rte_pktmbuf_mtod_offset(first, uint8_t*, kIpDestinationAt), sizeof to_be);
  const bool full = first->pkt_len == (facts_.gso_max_size != 0 ? facts_.gso_max_size : facts_.mtu) + SegmentTrain::kEthernetBytes;
  return full && to_be == facts_.host_be ? facts_.gro_max_size + SegmentTrain::kEthernetBytes : 0;
}

// One message of the first of `frames` and of those behind it that join; how many they are.
uint16_t PacketWire::add_message(rte_mbuf** frames, uint16_t count, mmsghdr* message, iovec* pieces) noexcept {
  auto* frame = rte_pktmbuf_mtod(frames[0], uint8_t*);
  uint8_t* const start = frame - sizeof(VnetHeader);
  VnetHeader header{};
  uint16_t joined = 1;
  size_t used = 0;
  pieces[used++] = {start, frames[0]->data_len + sizeof header};
  const auto add_elsewhere = [&](rte_mbuf* of) {
    const Piece* piece = elsewhere(of).pieces;
    for (uint32_t at = of->data_len; at != of->pkt_len; at += piece++->bytes) pieces[used++] = {const_cast<void*>(piece->data), piece->bytes};
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
    train.finish(&header, most_whole(frames[0]));
  }
  memcpy(start, &header, sizeof header);
  message->msg_hdr.msg_iov = pieces;
  message->msg_hdr.msg_iovlen = used;
  return joined;
}

// A device that does not segment, or has lost TSO while it runs, refuses a train that comes to it past its queueing discipline: only the
// way through that one cuts it in software (validate_xmit_skb_list() in __dev_direct_xmit()). The first train that is refused shows it, and
// all goes that way from then on: what overtook it would arrive out of order.
long PacketWire::transmit(uint32_t messages) noexcept {
  const long sent = submit(messages);
  if (sent != -ENOBUFS || frames_of_[0] == 1 || !bypassing_) return sent;
  bypassing_ = false;
  return bypass_queueing(sending_, false) == 0 ? submit(messages) : sent;
}

long PacketWire::submit(uint32_t messages) noexcept {
  const msghdr& first = messages_[0].msg_hdr;
  if (messages > 1) return kernel_call(SYS_sendmmsg, sending_, as_arg(messages_), messages, MSG_DONTWAIT);
  const long sent = first.msg_iovlen > 1
                        ? kernel_call(SYS_sendmsg, sending_, as_arg(&first), MSG_DONTWAIT)
                        : kernel_call(SYS_sendto, sending_, as_arg(first.msg_iov[0].iov_base), static_cast<long>(first.msg_iov[0].iov_len), MSG_DONTWAIT, 0, 0);
  return sent < 0 ? sent : 1;
}

bool PacketWire::refused_for_long() noexcept {
  const uint64_t now_ns = base::monotonic_ns();
  if (refused_since_ns_ == 0) refused_since_ns_ = now_ns;
  return now_ns - refused_since_ns_ > kMostRefusedNs;
}

uint16_t PacketWire::give_burst(rte_mbuf** frames, uint16_t count) noexcept {
  CHECK(count <= kBurst);
  uint32_t messages = 0;
  size_t pieces = 0;
  for (uint16_t i = 0; i < count; messages++) {
    frames_of_[messages] = add_message(frames + i, static_cast<uint16_t>(count - i), &messages_[messages], pieces_ + pieces);
    pieces += messages_[messages].msg_hdr.msg_iovlen;
    i = static_cast<uint16_t>(i + frames_of_[messages]);
  }
  const long result = transmit(messages);
  uint32_t done = result > 0 ? static_cast<uint32_t>(result) : 0;
  if (result > 0) {
    refused_since_ns_ = 0;
  } else if ((result != -ENOBUFS && result != -EAGAIN && result != -ENOMEM) || refused_for_long()) {
    done = 1;
  }
  uint16_t gone = 0;
  for (uint32_t i = 0; i < done; i++) gone = static_cast<uint16_t>(gone + frames_of_[i]);
  pool_->give(reinterpret_cast<void**>(frames), gone);
  return gone;
}

// A member that died between the two has taken a frame out of the socket's queue and left its slot, so every frame that has one in the
// queue is dropped: the queue first, because of a frame that comes meanwhile only what is queued may be left over (fetch() notices). Frames
// that lie in the ring stay: a SYN among them would cost its sender a second.
void PacketWire::recover() noexcept {
  DpdkWire::recover();
  ring_.realign();
  for (uint32_t i = 0; i < kMostDropped && discard_queued(); i++) {
  }
  ring_.empty_queued();
}

}  // namespace netstack
