// Takes frames out of a driver's buffers and fills its empty ones.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/vhost/device_queues.h"

namespace netstack {

using virtio::Available;
using virtio::Descriptor;
using virtio::Used;

namespace {

// Descriptors that a chain may have: who writes chains without end must not keep who holds the stack's lock. More than this nobody takes
// (QEMU's VIRTQUEUE_MAX_SIZE, UIO_MAXIOV of Linux's vhost).
uint32_t most_in_chain(const virtio::Ring& ring) noexcept {
  constexpr uint32_t kMost = 1024;
  return ring.entries() < kMost ? ring.entries() : kMost;
}

}  // namespace

bool DriverMemory::add(const Region& region) noexcept {
  if (count_ == kRegions || region.guest + region.bytes < region.guest || region.own + region.bytes < region.own) return false;
  regions_[count_++] = region;
  return true;
}

uint8_t* DriverMemory::find(uint64_t address, uint64_t bytes, uint64_t Region::*begin) const noexcept {
  for (int i = 0; i < count_; i++) {
    const Region& region = regions_[i];
    const uint64_t offset = address - region.*begin;
    if (address >= region.*begin && offset <= region.bytes && bytes <= region.bytes - offset) return region.base + offset;
  }
  return nullptr;
}

void DeviceQueues::start(uint64_t features, const Side& to_driver, const Side& from_driver) noexcept {
  set_features(features);
  to_ = to_driver;
  from_ = from_driver;
  published_ = to_.next;
  most_room_ = 0;
  to_.ring.used->flags.store(Used::kNoNotify, std::memory_order_relaxed);  // empty buffers are looked for when there is a frame
  want_event(false);
}

void DeviceQueues::stop() noexcept {
  from_.ring = {};
  to_.ring = {};
}

uint16_t DeviceQueues::offered(const Side& side) noexcept {
  const auto count = static_cast<uint16_t>(side.ring.available->index.load(std::memory_order_acquire) - side.next);
  if (count <= side.ring.entries()) [[likely]]
    return count;
  complain("moved a ring's index by more than the ring; nothing goes on until it makes sense again");
  return 0;
}

void DeviceQueues::finish_buffer(const Side& side, uint16_t slot, uint32_t head, uint32_t bytes) noexcept {
  side.ring.used->ring[slot & side.ring.mask] = {head, bytes};
}

void DeviceQueues::call(const Side& side) noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if ((side.ring.available->flags.load(std::memory_order_relaxed) & Available::kNoInterrupt) == 0) wake(side.events->call);
}

// ---------------------------------------------------------------- receiving

DeviceQueues::Chain DeviceQueues::take_chain(uint16_t head, FrameTaker* taker) noexcept {
  uint16_t at = head;
  for (uint32_t left = most_in_chain(from_.ring); at <= from_.ring.mask && left > 0; left--) {
    const Descriptor& descriptor = from_.ring.descriptors[at];
    const uint64_t address = once(descriptor.address);
    const uint32_t bytes = once(descriptor.length);
    const uint16_t flags = once(descriptor.flags);
    const uint8_t* const data = (flags & (Descriptor::kWrite | Descriptor::kIndirect)) == 0 ? memory_->at(address, bytes) : nullptr;
    if (data == nullptr) return Chain::bad;
    if (!taker->add(data, bytes)) return taker->waits() ? Chain::wait : Chain::bad;
    if ((flags & Descriptor::kNext) == 0) return taker->finish() ? Chain::done : Chain::bad;
    at = once(descriptor.next);
  }
  return Chain::bad;
}

// Looks at `capacity` chains, whatever is in them.
int DeviceQueues::receive(RxFrame* out, int capacity, FramePool& pool) noexcept {
  if (!started()) return 0;
  const uint16_t waiting = offered(from_);
  if (waiting == 0) return 0;
  int taken = 0, looked = 0;
  uint16_t slot = from_.next;
  const auto end = static_cast<uint16_t>(slot + waiting);
  for (; taken < capacity && looked < capacity && slot != end; looked++) {
    const uint16_t head = once(from_.ring.available->ring[slot & from_.ring.mask]);
    FramePieces pieces{out + taken, capacity - taken, taken == 0};
    FrameTaker taker(header_bytes_, frame_bytes_, &pieces, pool);
    const Chain chain = take_chain(head, &taker);
    if (chain == Chain::wait) break;
    if (chain == Chain::bad) [[unlikely]] {
      taker.drop();
      complain("sent a frame that is empty, too long, without end, or outside its memory; such are dropped");
    }
    finish_buffer(from_, slot++, head, 0);
    taken += pieces.count;
  }
  if (slot == from_.next) return taken;
  from_.next = slot;
  from_.ring.used->index.store(slot, std::memory_order_release);
  call(from_);
  // Who gets none goes to sleep.
  if (looked == capacity && taken < capacity && slot != end) [[unlikely]] wake(from_.events->kick);
  return taken;
}

bool DeviceQueues::waits() const noexcept { return started() && from_.next != from_.ring.available->index.load(std::memory_order_acquire); }

// The full barrier orders the flag before the look at the ring that follows.
void DeviceQueues::want_event(bool wanted) noexcept {
  if (!started()) return;
  from_.ring.used->flags.store(wanted ? 0 : Used::kNoNotify, std::memory_order_seq_cst);
}

// ---------------------------------------------------------------- sending

// Fills one buffer. False: it is none that could be filled.
bool DeviceQueues::fill_chain(uint16_t head, PieceCursor* cursor, uint8_t** first, uint32_t* written) noexcept {
  uint16_t at = head;
  *written = 0;
  for (uint32_t left = most_in_chain(to_.ring); at <= to_.ring.mask && left > 0; left--) {
    const Descriptor& descriptor = to_.ring.descriptors[at];
    const uint64_t address = once(descriptor.address);
    const uint32_t room = once(descriptor.length);
    const uint16_t flags = once(descriptor.flags);
    uint8_t* const to = (flags & (Descriptor::kWrite | Descriptor::kIndirect)) == Descriptor::kWrite ? memory_->at(address, room) : nullptr;
    if (to == nullptr || room == 0 || (*first == nullptr && room < header_bytes_)) return false;
    if (*first == nullptr) *first = to;
    *written += cursor->copy(to, room);
    if (cursor->left() == 0 || (flags & Descriptor::kNext) == 0) return true;
    at = once(descriptor.next);
  }
  return false;
}

bool DeviceQueues::lay(const virtio::Header& header, const Piece* pieces, int count) noexcept {
  if (!started()) return false;
  const uint16_t room = offered(to_);
  if (room > most_room_) most_room_ = room;
  PieceCursor cursor(&header, header_bytes_, pieces, count);
  uint8_t* first = nullptr;
  uint16_t buffers = 0;
  while (cursor.left() > 0) {
    const auto slot = static_cast<uint16_t>(to_.next + buffers);
    if (buffers == room) return false;
    const uint16_t head = once(to_.ring.available->ring[slot & to_.ring.mask]);
    uint32_t written;
    if (!fill_chain(head, &cursor, &first, &written)) {
      complain("offers buffers outside its memory, or too small ones; nothing is sent until it offers others");
      return false;
    }
    finish_buffer(to_, slot, head, written);
    buffers++;
    if (cursor.left() > 0 && !mergeable_) {
      complain("offers buffers that a frame does not fit into; such frames are dropped");
      return true;
    }
  }
  if (header_bytes_ == sizeof header) memcpy(first + offsetof(virtio::Header, buffers), &buffers, sizeof buffers);
  to_.next = static_cast<uint16_t>(to_.next + buffers);
  return true;
}

void DeviceQueues::publish() noexcept {
  if (!started()) return;
  to_.ring.used->index.store(to_.next, std::memory_order_release);
  published_ = to_.next;
}

void DeviceQueues::notify() noexcept {
  if (started()) call(to_);
}

// A driver keeps to itself how far it has read: it offers a buffer again when it has, so it has read all when as many are out as ever.
bool DeviceQueues::taken() const noexcept {
  if (!started()) return true;
  return static_cast<uint16_t>(to_.ring.available->index.load(std::memory_order_acquire) - published_) >= most_room_;
}

void DeviceQueues::recover() noexcept {
  if (!started()) return;
  to_.next = published_ = to_.ring.used->index.load(std::memory_order_relaxed);
  from_.next = from_.ring.used->index.load(std::memory_order_relaxed);
}

}  // namespace netstack
