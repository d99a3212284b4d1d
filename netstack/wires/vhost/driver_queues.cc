// Offers empty buffers to a device and takes them back filled, and the other way round.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/vhost/driver_queues.h"

namespace netstack {

using virtio::Available;
using virtio::Descriptor;
using virtio::Ring;
using virtio::Used;
using virtio::UsedElement;

Ring DriverQueues::ring_at(uint8_t* memory) noexcept {
  return {reinterpret_cast<Descriptor*>(memory), reinterpret_cast<Available*>(memory + kAvailableAt),
          reinterpret_cast<Used*>(memory + kUsedAt), kMask};
}

DriverQueues::DriverQueues(const char* kind, uint32_t frame_bytes, uint8_t* memory, uint32_t buffer_bytes, const QueueEvents* from_device,
                           const QueueEvents* to_device) noexcept
    : FrameQueues(kind, frame_bytes),
      from_(ring_at(memory)),
      to_(ring_at(memory + kRingBytes)),
      receive_buffers_(memory + 2 * kRingBytes),
      send_buffers_(receive_buffers_ + size_t{kEntries} * buffer_bytes),
      buffer_bytes_(buffer_bytes),
      from_events_(from_device),
      to_events_(to_device) {}

void DriverQueues::lay_ring(const Ring& ring, uint8_t* buffers, bool to_be_filled) noexcept {
  for (uint32_t i = 0; i < kEntries; i++) {
    const auto address = reinterpret_cast<uint64_t>(buffers + size_t{i} * buffer_bytes_);
    ring.descriptors[i] = {address, buffer_bytes_, to_be_filled ? Descriptor::kWrite : uint16_t{0}, 0};
    ring.available->ring[i] = static_cast<uint16_t>(i);
  }
  ring.available->flags.store(Available::kNoInterrupt, std::memory_order_relaxed);
  ring.used->flags.store(0, std::memory_order_relaxed);
  ring.used->index.store(0, std::memory_order_relaxed);
  ring.available->index.store(to_be_filled ? kEntries : 0, std::memory_order_release);
}

void DriverQueues::start(uint64_t features) noexcept {
  stop();
  set_features(features);
  lay_ring(from_, receive_buffers_, true);
  lay_ring(to_, send_buffers_, false);
  next_used_ = next_ = oldest_ = chains_ = chains_back_ = published_ = published_chains_ = 0;
  started_ = true;
}

void DriverQueues::kick(const Ring& ring, const QueueEvents& events) noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if ((ring.used->flags.load(std::memory_order_relaxed) & Used::kNoNotify) == 0) wake(events.kick);
}

// ---------------------------------------------------------------- receiving

// Slot s of the available ring offers what has been received out of slot s of the used ring, a whole ring ahead.
void DriverQueues::offer_again(uint16_t slot, uint32_t id) noexcept {
  from_.descriptors[id] = {reinterpret_cast<uint64_t>(receive_buffer(id)), buffer_bytes_, Descriptor::kWrite, 0};
  from_.available->ring[slot & kMask] = static_cast<uint16_t>(id);
}

bool DriverQueues::take_frame(uint16_t* slot, uint16_t end, FrameTaker* taker) noexcept {
  uint16_t buffers = 1, taken = 0;
  bool sound = true;
  for (; taken < buffers && static_cast<uint16_t>(*slot + taken) != end; taken++) {
    const UsedElement& used = from_.used->ring[(*slot + taken) & kMask];
    const uint32_t id = once(used.id), bytes = once(used.length);
    sound = sound && id < kEntries && bytes <= buffer_bytes_ && (taken > 0 || bytes >= header_bytes_);
    if (!sound) break;
    if (!taker->add(receive_buffer(id), bytes)) {
      if (taker->waits()) return false;
      sound = false;
    }
    if (taken == 0 && mergeable_) buffers = taker->buffers();
  }
  sound = sound && taken == buffers && taker->finish();
  if (!sound) {
    taker->drop();
    complain("sent a frame that is empty, too long, without end, or in no buffer; such are dropped");
  }
  for (uint16_t i = 0; i < taken || i == 0; i++) {
    const uint32_t id = once(from_.used->ring[(*slot + i) & kMask].id);
    offer_again(static_cast<uint16_t>(*slot + i), id & kMask);
  }
  *slot = static_cast<uint16_t>(*slot + (taken > 0 ? taken : 1));
  return true;
}

int DriverQueues::receive(RxFrame* out, int capacity, FramePool& pool) noexcept {
  if (!started_) return 0;
  const uint16_t end = from_.used->index.load(std::memory_order_acquire);
  const auto waiting = static_cast<uint16_t>(end - next_used_);
  if (waiting == 0) return 0;
  if (waiting > kEntries) [[unlikely]] {
    complain("moved a ring's index by more than the ring; nothing is received until it makes sense again");
    return 0;
  }
  int taken = 0;
  uint16_t slot = next_used_;
  while (taken < capacity && slot != end) {
    FramePieces pieces{out + taken, capacity - taken, taken == 0};
    FrameTaker taker(header_bytes_, frame_bytes_, &pieces, pool);
    if (!take_frame(&slot, end, &taker)) break;
    taken += pieces.count;
  }
  if (slot == next_used_) return taken;
  next_used_ = slot;
  from_.available->index.store(static_cast<uint16_t>(slot + kEntries), std::memory_order_release);
  kick(from_, *from_events_);
  return taken;
}

bool DriverQueues::waits() const noexcept { return started_ && next_used_ != from_.used->index.load(std::memory_order_acquire); }

// The full barrier orders the flag before the look at the ring that follows.
void DriverQueues::want_event(bool wanted) noexcept {
  if (started_) from_.available->flags.store(wanted ? 0 : Available::kNoInterrupt, std::memory_order_seq_cst);
}

// ---------------------------------------------------------------- sending

// A member may die between two lines: what was given back once may be found given back again, which changes nothing.
void DriverQueues::reclaim() noexcept {
  const uint16_t end = to_.used->index.load(std::memory_order_acquire);
  if (static_cast<uint16_t>(end - chains_back_) > static_cast<uint16_t>(published_chains_ - chains_back_)) [[unlikely]]
    return complain("gave more back than it had; nothing is sent until it makes sense again");
  for (; chains_back_ != end; chains_back_++) {
    const uint32_t id = once(to_.used->ring[chains_back_ & kMask].id);
    if (id < kEntries) back_[id] = true;
  }
  while (oldest_ != published_ && back_[oldest_ & kMask]) oldest_ = static_cast<uint16_t>(oldest_ + length_[oldest_ & kMask]);
}

bool DriverQueues::lay(const virtio::Header& header, const Piece* pieces, int count) noexcept {
  if (!started_) return false;
  PieceCursor cursor(&header, header_bytes_, pieces, count);
  const uint32_t needed = (cursor.left() + buffer_bytes_ - 1) / buffer_bytes_;
  const auto is_room = [&] { return needed <= kEntries - static_cast<uint16_t>(next_ - oldest_); };
  if (!is_room()) reclaim();
  if (!is_room()) return false;
  for (uint32_t i = 0; i < needed; i++) {
    const auto at = static_cast<uint16_t>((next_ + i) & kMask);
    uint8_t* const buffer = send_buffer(at);
    const uint32_t bytes = cursor.copy(buffer, buffer_bytes_);
    const bool more = i + 1 < needed;
    to_.descriptors[at] = {reinterpret_cast<uint64_t>(buffer), bytes, more ? Descriptor::kNext : uint16_t{0},
                           static_cast<uint16_t>((at + 1) & kMask)};
  }
  const auto first = static_cast<uint16_t>(next_ & kMask);
  back_[first] = false;
  length_[first] = static_cast<uint16_t>(needed);
  to_.available->ring[chains_ & kMask] = first;
  next_ = static_cast<uint16_t>(next_ + needed);
  chains_++;
  return true;
}

void DriverQueues::publish() noexcept {
  if (!started_) return;
  to_.available->index.store(chains_, std::memory_order_release);
  published_ = next_;
  published_chains_ = chains_;
}

void DriverQueues::notify() noexcept {
  if (started_) kick(to_, *to_events_);
}

bool DriverQueues::taken() const noexcept { return !started_ || to_.used->index.load(std::memory_order_acquire) == published_chains_; }

// Who died between showing and noting it has shown whole chains, and no more than were laid out.
void DriverQueues::recover() noexcept {
  if (!started_) return;
  const auto shown = static_cast<uint16_t>(to_.available->index.load(std::memory_order_relaxed) - published_chains_);
  const auto laid = static_cast<uint16_t>(chains_ - published_chains_);
  for (uint16_t i = 0; i < shown && shown <= laid; i++) {
    published_ = static_cast<uint16_t>(published_ + length_[published_ & kMask]);
    published_chains_++;
  }
  next_ = published_;
  chains_ = published_chains_;
  from_.available->index.store(static_cast<uint16_t>(next_used_ + kEntries), std::memory_order_release);
  to_.available->index.store(published_chains_, std::memory_order_release);
}

}  // namespace netstack
