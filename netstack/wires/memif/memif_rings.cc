// Reads and fills the rings of a memif connection.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/memif/memif_rings.h"

#include <emmintrin.h>

#include <cstring>

#include "base/log.h"
#include "netstack/wires/frame_layout.h"

namespace netstack {
namespace {

constexpr uint16_t kMoreFollows = 1;  // in a descriptor's flags: the frame goes on in the next one
constexpr int kMostLog2 = 14;
constexpr uint16_t kReadAhead = 4;
constexpr uint16_t kWriteAhead = 4;

constexpr size_t round_up_line(size_t bytes) noexcept { return (bytes + 63) & ~size_t{63}; }

// Copies whole lines: both sides have room up to the next multiple of 64.
void copy_lines(uint8_t* to, const uint8_t* from, size_t bytes) noexcept {
  for (size_t at = 0; at < bytes; at += 64) {
    const auto* in = reinterpret_cast<const __m128i*>(from + at);
    auto* out = reinterpret_cast<__m128i*>(to + at);
    const __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2), d = _mm_loadu_si128(in + 3);
    _mm_storeu_si128(out, a);
    _mm_storeu_si128(out + 1, b);
    _mm_storeu_si128(out + 2, c);
    _mm_storeu_si128(out + 3, d);
  }
}

// Asks for a line to be written: a plain store would keep all later ones waiting until the peer's cache has given it away.
void prefetch_to_write(const void* line) noexcept { asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line))); }

}  // namespace

bool MemifRings::place(const MemifRing& told, Side* side) const noexcept {
  const Region& region = regions_[told.region];
  if (told.log2_slots > kMostLog2 || region.base == nullptr || told.offset % 64 != 0) return false;
  const size_t slots = size_t{1} << told.log2_slots;
  const size_t bytes = offsetof(Ring, descriptors) + slots * sizeof(Descriptor);
  if (told.offset > region.bytes || bytes > region.bytes - told.offset) return false;
  *side = {reinterpret_cast<Ring*>(region.base + told.offset), static_cast<uint16_t>(slots - 1), 0};
  return once(side->ring->cookie) == kCookie;
}

void MemifRings::complain(const char* what) noexcept {
  if (!complained_) base::log(base::LogLevel::warn, "wire memif: the peer %s", what);
  complained_ = true;
}

bool MemifRings::attach(const MemifPeer& peer, const Control& control, uint32_t frame_bytes, uint32_t longest_bytes) noexcept {
  detach();
  client_ = peer.client;
  frame_bytes_ = frame_bytes;
  longest_bytes_ = longest_bytes;
  for (int i = 0; i < MemifPeer::kRegions; i++) {
    const int fd = peer.region_fd[i];
    regions_[i] = fd < 0 ? Region{} : Region{static_cast<uint8_t*>(control.region_of(fd)), control.region_bytes(fd)};
  }
  Side receive{}, send{};
  if (!place(peer.receive_ring(), &receive) || !place(peer.send_ring(), &send)) {
    complain("names no rings in its memory");
    return false;
  }
  complained_ = false;
  send_ = send;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  receive_ = receive;
  give_slots_back();
  return true;
}

uint8_t* MemifRings::buffer(uint16_t region, uint32_t offset, size_t bytes) const noexcept {
  if (region >= MemifPeer::kRegions) return nullptr;
  const Region& in = regions_[region];
  return in.base == nullptr || offset > in.bytes || bytes > in.bytes - offset ? nullptr : in.base + offset;
}

// ---------------------------------------------------------------- receiving

void MemifRings::prefetch(const Side& side, uint16_t slot) const noexcept {
  const Descriptor& descriptor = side.ring->descriptors[slot & side.mask];
  const uint8_t* data = buffer(once(descriptor.region), once(descriptor.offset), 128);
  if (data == nullptr) return;
  __builtin_prefetch(data);
  __builtin_prefetch(data + 64);
}

bool MemifRings::take_chain(uint16_t* slot, uint16_t end, FramePieces* pieces, FramePool& pool) noexcept {
  uint16_t at = *slot;
  uint32_t length = 0;
  bool fits = true;
  for (bool more = true; more; at++) {
    if (at == end) {
      fits = false;
      break;
    }
    const Descriptor& descriptor = receive_.ring->descriptors[at & receive_.mask];
    const uint32_t bytes = once(descriptor.length);
    const uint32_t offset = once(descriptor.offset);
    const uint16_t region = once(descriptor.region);
    more = (once(descriptor.flags) & kMoreFollows) != 0;
    fits = fits && bytes <= longest_bytes_ - length;
    const uint8_t* const from = fits ? buffer(region, offset, bytes) : nullptr;
    const auto added = from != nullptr ? pieces->add(from, bytes, frame_bytes_, pool) : FramePieces::Added::no_room;
    if (from != nullptr && pieces->waits_after(added)) {
      pieces->give_back(pool);
      return false;
    }
    fits = added == FramePieces::Added::all;
    length += bytes;
  }
  for (; *slot != at; ++*slot) {
    if (client_) receive_.ring->descriptors[*slot & receive_.mask].length = frame_bytes_;  // as in take_frame()
  }
  if (fits && pieces->count > 0) [[likely]] return true;
  pieces->give_back(pool);
  complain("sent a frame that is too long, has no end, or lies outside its memory; such are dropped");
  return true;
}

bool MemifRings::take_frame(uint16_t* slot, uint16_t end, FramePieces* pieces, FramePool& pool) noexcept {
  Descriptor& descriptor = receive_.ring->descriptors[*slot & receive_.mask];
  const uint32_t bytes = once(descriptor.length);
  const bool in_one = (once(descriptor.flags) & kMoreFollows) == 0 && bytes > 0 && round_up_line(bytes) <= frame_bytes_;
  const uint8_t* const from = in_one ? buffer(once(descriptor.region), once(descriptor.offset), round_up_line(bytes)) : nullptr;
  if (from == nullptr) [[unlikely]] return take_chain(slot, end, pieces, pool);
  void* piece;
  if (!pool.take(&piece, 1)) return false;
  auto* const frame = static_cast<uint8_t*>(piece);
  copy_lines(frame + kDataOffset, from, bytes);
  if (client_) descriptor.length = frame_bytes_;  // an empty buffer again: the server fills up to what is said here
  ++*slot;
  *pieces->out = RxFrame{frame + kDataOffset, bytes, piece, frame + kScratchOffset};
  pieces->count = 1;
  return true;
}

int MemifRings::receive(RxFrame* out, int capacity, FramePool& pool) noexcept {
  if (!attached()) return 0;
  Ring& ring = *receive_.ring;
  const uint16_t end = (client_ ? ring.tail : ring.head).load(std::memory_order_acquire);
  const auto waiting = static_cast<uint16_t>(end - receive_.next);
  if (waiting == 0) return 0;
  if (waiting > receive_.mask + 1) [[unlikely]] {
    complain("moved a ring's position by more than the ring; nothing is received until it makes sense again");
    return 0;
  }
  const uint16_t ahead = waiting < kReadAhead ? waiting : kReadAhead;
  for (uint16_t i = 0; i < ahead; i++) prefetch(receive_, static_cast<uint16_t>(receive_.next + i));
  int taken = 0;
  uint16_t slot = receive_.next;
  while (taken < capacity && slot != end) {
    if (static_cast<uint16_t>(end - slot) > kReadAhead) prefetch(receive_, static_cast<uint16_t>(slot + kReadAhead));
    FramePieces pieces{out + taken, capacity - taken, taken == 0};
    if (!take_frame(&slot, end, &pieces, pool)) break;
    taken += pieces.count;
  }
  receive_.next = slot;
  give_slots_back();
  return taken;
}

// Everything before receive_.next is the peer's to fill again.
void MemifRings::give_slots_back() noexcept {
  if (client_) {
    receive_.ring->head.store(static_cast<uint16_t>(receive_.next + receive_.mask + 1), std::memory_order_release);
  } else {
    receive_.ring->tail.store(receive_.next, std::memory_order_release);
  }
}

// ---------------------------------------------------------------- sending

uint32_t MemifRings::look_for_room() noexcept {
  if (send_.ring == nullptr) return 0;
  const Ring& ring = *send_.ring;
  const uint32_t slots = send_.mask + 1u;
  if (client_) {
    const auto used = static_cast<uint16_t>(send_.next - ring.tail.load(std::memory_order_acquire));
    room_ = used <= slots ? slots - used : 0;
  } else {
    const auto offered = static_cast<uint16_t>(ring.head.load(std::memory_order_acquire) - send_.next);
    room_ = offered <= slots ? offered : 0;
  }
  return room_;
}

bool MemifRings::open(TxFrame* out, uint32_t slots) noexcept {
  if (room_ < slots && look_for_room() < slots) return false;
  Descriptor& descriptor = send_.ring->descriptors[send_.next & send_.mask];
  const uint32_t capacity = client_ ? frame_bytes_ : once(descriptor.length);
  if (capacity < frame_bytes_) [[unlikely]] return false;
  uint8_t* data = buffer(once(descriptor.region), once(descriptor.offset), capacity);
  if (data == nullptr) [[unlikely]] return false;  // copy() will say so
  if (room_ > kWriteAhead) {
    const Descriptor& later = send_.ring->descriptors[(send_.next + kWriteAhead) & send_.mask];
    if (const uint8_t* there = buffer(once(later.region), once(later.offset), 128); there != nullptr) {
      prefetch_to_write(there);
      prefetch_to_write(there + 64);
    }
    prefetch_to_write(&later);
  }
  open_ = &descriptor;
  *out = TxFrame{data, capacity, &descriptor};
  return true;
}

void MemifRings::fill_slot(uint16_t slot, uint32_t bytes, uint16_t flags) noexcept {
  Descriptor& descriptor = send_.ring->descriptors[slot & send_.mask];
  descriptor.length = bytes;
  descriptor.flags = flags;
}

void MemifRings::fill(uint32_t length) noexcept {
  fill_slot(send_.next++, length, 0);
  room_--;
  open_ = nullptr;
}

uint8_t* MemifRings::empty_buffer(uint16_t slot, uint32_t* capacity) noexcept {
  const Descriptor& descriptor = send_.ring->descriptors[slot & send_.mask];
  *capacity = client_ ? frame_bytes_ : once(descriptor.length);
  uint8_t* const to = *capacity == 0 ? nullptr : buffer(once(descriptor.region), once(descriptor.offset), *capacity);
  if (to == nullptr) [[unlikely]] complain("offers buffers outside its memory; nothing is sent until it offers others");
  return to;
}

bool MemifRings::lay(uint32_t length, const Piece* pieces, int count) noexcept {
  open_ = nullptr;
  if (send_.ring == nullptr || room_ == 0) return false;
  uint16_t slot = send_.next;
  uint32_t room = room_, capacity;
  uint8_t* to = empty_buffer(slot, &capacity);
  if (to == nullptr || length > capacity) return false;
  for (const Piece* piece = pieces; piece != pieces + count; piece++) {
    const auto* from = static_cast<const uint8_t*>(piece->data);
    for (uint32_t left = piece->bytes, n; left > 0; left -= n) {
      if (length == capacity) {
        fill_slot(slot++, length, kMoreFollows);
        if (--room == 0 || (to = empty_buffer(slot, &capacity)) == nullptr) return false;
        length = 0;
      }
      n = left < capacity - length ? left : capacity - length;
      memcpy(to + length, from, n);
      length += n;
      from += n;
    }
  }
  fill_slot(slot++, length, 0);
  send_.next = slot;
  room_ = room - 1;
  return true;
}

// A client keeps to itself how far it has read what the server fills: it moves `head` when it gives a buffer back, a whole ring ahead.
bool MemifRings::taken() const noexcept {
  if (send_.ring == nullptr) return true;
  if (client_) return send_.ring->tail.load(std::memory_order_acquire) == published_;
  return static_cast<uint16_t>(send_.ring->head.load(std::memory_order_acquire) - published_) == send_.mask + 1;
}

void MemifRings::recover() noexcept {
  if (!attached()) return;
  send_.next = published_ = (client_ ? send_.ring->head : send_.ring->tail).load(std::memory_order_relaxed);
  room_ = 0;
  open_ = nullptr;
  give_slots_back();
}

void MemifRings::publish() noexcept {
  (client_ ? send_.ring->head : send_.ring->tail).store(send_.next, std::memory_order_release);
  published_ = send_.next;
}

}  // namespace netstack
