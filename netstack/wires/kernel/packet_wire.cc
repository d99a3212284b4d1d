// Bursts in and out of packet sockets.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/packet_wire.h"

#include <cerrno>
#include <cstring>

#include <rte_mbuf.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/syscall.h"
#include "netstack/wires/segment_train.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint32_t kVlanId = 0xfff;

// A frame of a VLAN is not for us; one that only has a priority is.
bool is_for_us(const tpacket2_hdr& slot) noexcept {
  return (slot.tp_status & TP_STATUS_VLAN_VALID) == 0 || (slot.tp_vlan_tci & kVlanId) == 0;
}

}  // namespace

PacketWire::PacketWire(const PacketParts& parts) noexcept
    : DpdkWire(0, parts.pool, nullptr, parts.sockets->receiving(), parts.memory.queue, parts.memory.queue_capacity),
      receiving_(parts.sockets->receiving()),
      sending_(parts.sockets->sending()),
      own_link_(parts.own_link),
      frame_room_(parts.shape.frame_room),
      ring_(parts.ring, parts.shape.slot_bytes, parts.shape.slots) {
  memcpy(bell_sockets_, parts.sockets->bell_fds().socket, sizeof bell_sockets_);
  memcpy(bell_fds_, parts.sockets->bell_fds().bell, sizeof bell_fds_);
  bells_ = parts.sockets->bells().with(bell_fds_);
  facts_.mtu = static_cast<uint16_t>(parts.mtu);
  facts_.link_needs_checksum = true;
  facts_.tcp_checksum_offload = true;
  facts_.survives_exec = true;
}

// ---------------------------------------------------------------- receiving

int PacketWire::receive(RxFrame* out, int capacity) noexcept {
  look_at_departures();
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
  refers_ = true;
  auto* frame = static_cast<rte_mbuf*>(handle);
  send_tcp(handle, length);
  for (int i = 0; i < count; i++) {
    elsewhere(frame).pieces[i] = pieces[i];
    frame->pkt_len += pieces[i].bytes;
  }
}

bool PacketWire::allocate(TxFrame* out) noexcept {
  if (DpdkWire::allocate(out)) [[likely]] return true;
  if (!departures_.any()) return false;
  look_at_departures();
  return DpdkWire::allocate(out);
}

// What refers to memory of its sender cannot wait, and what the kernel has refused is for its sender to judge.
void PacketWire::flush() noexcept {
  if (departs_allowed_ && !refers_ && !judges_ && refused_since_ns_ == 0) [[likely]] {
    departs_ = backlog() > 0;
    return;
  }
  flush_now();
}

// What the kernel has not taken now outlives the promise of its sender. A segment that is too long for its frame is lost.
void PacketWire::flush_now() noexcept {
  departs_ = refers_ = judges_ = false;
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

// A device that does not segment, or has lost TSO while it runs, refuses a train that comes to it past its queueing discipline: only the
// way through that one cuts it in software (validate_xmit_skb_list() in __dev_direct_xmit()). The first train that is refused shows it, and
// all goes that way from then on: what overtook it would arrive out of order.
long PacketWire::transmit() noexcept {
  const long sent = burst_.submit(sending_, 0);
  if (sent != -ENOBUFS || burst_.frames_of(0) == 1 || !bypassing_) return sent;
  bypassing_ = false;
  return bypass_queueing(sending_, false) == 0 ? burst_.submit(sending_, 0) : sent;
}

bool PacketWire::refused_for_long() noexcept {
  const uint64_t now_ns = base::monotonic_ns();
  if (refused_since_ns_ == 0) refused_since_ns_ = now_ns;
  return now_ns - refused_since_ns_ > kMostRefusedNs;
}

uint16_t PacketWire::give_burst(rte_mbuf** frames, uint16_t count) noexcept {
  burst_.assemble(frames, count, facts_);
  const long result = transmit();
  uint32_t done = result > 0 ? static_cast<uint32_t>(result) : 0;
  if (result > 0) {
    refused_since_ns_ = 0;
  } else if ((result != -ENOBUFS && result != -EAGAIN && result != -ENOMEM) || refused_for_long()) {
    done = 1;
  }
  const uint16_t gone = burst_.frames_of_first(done);
  pool_->give(reinterpret_cast<void**>(frames), gone);
  return gone;
}

// ---------------------------------------------------------------- departures

// Of what is queued all but what is behind a segment that is under way.
int PacketWire::take_departure() noexcept {
  departs_ = false;
  look_at_departures();
  const int number = departures_.free_place();
  if (number < 0 || judges_ || backlog() > kBurst) {
    flush_now();
    return -1;
  }
  Departure& departure = departures_.at(number);
  departure.frames = 0;
  departure.connections = 0;
  departure.cycles = 0;
  uint64_t barred = departures_.connections();
  take_queued([&](rte_mbuf* frame) {
    const uint64_t bit = Departures::connection_bit(rte_pktmbuf_mtod(frame, uint8_t*));
    if ((barred & bit) != 0) {
      barred |= bit;
      return false;
    }
    departure.connections |= bit;
    departure.frame[departure.frames++] = frame;
    return true;
  });
  const bool left = backlog() > 0;
  if (left != left_behind_.load(std::memory_order_relaxed)) left_behind_.store(left, std::memory_order_seq_cst);
  if (departure.frames == 0) return -1;
  departure.burst.assemble(departure.frame, departure.frames, facts_);
  departures_.mark(number);
  return number;
}

bool PacketWire::depart(int number) noexcept {
  Departure& departure = departures_.at(number);
  const PacketBurst& burst = departure.burst;
  const uint64_t begun = base::cycles();
  uint32_t sent = 0;
  while (sent < burst.count()) {
    const long result = burst.submit(sending_, sent);
    if (result <= 0) break;
    sent += static_cast<uint32_t>(result);
  }
  const bool all = sent == burst.count();
  departure.cycles = base::cycles() - begun;
  Departures::finish(departure, all ? 0 : static_cast<uint16_t>(departure.frames - burst.frames_of_first(sent)));
  return all && !left_behind_.load(std::memory_order_seq_cst);
}

void PacketWire::look_at_departures() noexcept {
  if (!departures_.any()) return;
  departures_.look(
      [this](Departure& departure) {
        const auto gone = static_cast<uint16_t>(departure.frames - departure.not_taken);
        note_cost(departure);
        pool_->give(reinterpret_cast<void**>(departure.frame), gone);
        if (departure.not_taken == 0) [[likely]] return;
        queue_again(departure.frame + gone, departure.not_taken);
        judges_ = true;
      },
      [this](const Departure& departure) {
        long result = 1;
        for (uint32_t sent = 0; sent < departure.burst.count() && result > 0; sent += static_cast<uint32_t>(result)) {
          result = departure.burst.submit(sending_, sent);
        }
      });
}

// Who has lost the processor meanwhile says nothing of what sending costs.
void PacketWire::note_cost(const Departure& departure) noexcept {
  constexpr uint64_t kMostCycles = 1 << 17;  // of a message: some 50 us
  const uint64_t messages = departure.burst.count();
  if (departure.cycles == 0 || departure.cycles > messages * kMostCycles) return;
  sent_messages_.store(sent_messages_.load(std::memory_order_relaxed) + messages, std::memory_order_relaxed);
  sent_cycles_.store(sent_cycles_.load(std::memory_order_relaxed) + departure.cycles, std::memory_order_relaxed);
}

int PacketWire::free_frames() const noexcept { return DpdkWire::free_frames() + departures_.frames_back(); }

// A member that died between the two has taken a frame out of the socket's queue and left its slot, so every frame that has one in the
// queue is dropped: the queue first, because of a frame that comes meanwhile only what is queued may be left over (fetch() notices). Frames
// that lie in the ring stay: a SYN among them would cost its sender a second.
void PacketWire::recover() noexcept {
  departs_ = refers_ = judges_ = false;
  departures_.recover();
  forget_all_frames_but([this](const void* frame) { return departures_.holds(static_cast<const rte_mbuf*>(frame)); });
  ring_.realign();
  for (uint32_t i = 0; i < kMostDropped && discard_queued(); i++) {
  }
  ring_.empty_queued();
}

}  // namespace netstack
