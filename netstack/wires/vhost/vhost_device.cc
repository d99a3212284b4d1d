// The device's end of a vhost-user connection: it maps what the driver shares, and follows what it says of its rings.
// SPDX-License-Identifier: BSD-3-Clause
//
// A driver may say things in any order and again (a virtual machine that restarts its network card stops the rings, and may lay them
// elsewhere). So each message only notes what it says, and what is known decides whether frames flow (look_at_rings()).
#include <fcntl.h>
#include <sys/stat.h>

#include "base/syscall.h"
#include "netstack/wires/vhost/vhost_session.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kNoFd = 0x100, kIndexMask = 0xff;  // of a message that brings an event's descriptor
constexpr uint32_t kMostEntries = 32768;

}  // namespace

uint64_t VhostDevice::offered() const noexcept {
  constexpr uint64_t kPlain = virtio::kVersion1 | virtio::kMergeableBuffers | virtio::kAnyLayout | virtio::kChecksum |
                              virtio::kGuestChecksum | VhostMessage::kProtocolFeatures;
  return offer_.long_segments ? kPlain | virtio::kHostTso4 | virtio::kGuestTso4 : kPlain;
}

bool VhostDevice::begin() noexcept {
  features_ = 0;
  for (Vring& ring : rings_) ring = {};
  return true;
}

void VhostDevice::end() noexcept {
  go_down();
  queues_.stop();
  for (Vring& ring : rings_) {
    forget_event(&ring.events.kick);
    forget_event(&ring.events.call);
  }
  forget_memory();
}

// The rings stand still, to go on where they are or where the driver says.
void VhostDevice::pause() noexcept {
  if (!up()) return;
  for (int i = 0; i < kRings; i++) rings_[i].base = queues_.position(i == 0);
  go_down();
  queues_.stop();
}

void VhostDevice::forget_event(int* event) noexcept {
  if (*event >= 0) (void)control_->drop_fd(*event);
  *event = -1;
}

void VhostDevice::forget_memory() noexcept {
  memory_.clear();
  for (Mapped& mapped : mapped_) {
    if (mapped.base != nullptr) (void)control_->unmap_region(mapped.base);
    if (mapped.fd >= 0) (void)control_->drop_fd(mapped.fd);
    mapped = {};
  }
}

bool VhostDevice::set_memory(const VhostMessage& message, const int* fds, int count) noexcept {
  constexpr size_t kRegionsAt = 8, kRegionBytes = 32;
  const auto regions = message.get<uint32_t>(0);
  if (regions != static_cast<uint32_t>(count) || message.size < kRegionsAt + regions * kRegionBytes) {
    for (int i = 0; i < count; i++) (void)kernel_call(SYS_close, fds[i]);
    return refuse("the driver's memory has not as many files as regions");
  }
  pause();
  forget_memory();
  bool sound = true;
  for (int i = 0; i < count; i++) {
    const int fd = control_->adopt_fd(fds[i]);
    mapped_[i].fd = fd;
    const size_t at = kRegionsAt + static_cast<size_t>(i) * kRegionBytes;
    const auto guest = message.get<uint64_t>(at), bytes = message.get<uint64_t>(at + 8), own = message.get<uint64_t>(at + 16);
    const auto offset = message.get<uint64_t>(at + 24);
    if (fd < 0 || offset + bytes < offset) sound = false;
    if (!sound) continue;
    mapped_[i].base = control_->map_region(fd, offset + bytes, offer_.trusted);
    sound = mapped_[i].base != nullptr && memory_.add({guest, own, bytes, static_cast<uint8_t*>(mapped_[i].base) + offset});
  }
  return sound || refuse(
                      "the driver's memory cannot be mapped: it is too large, shorter than told, or could be taken away "
                      "(not sealed with F_SEAL_SHRINK: memory=any takes it all the same)");
}

bool VhostDevice::set_ring(const VhostMessage& message, Vring& ring) noexcept {
  const auto number = message.get<VringState>(0).number;
  switch (message.request) {
    case VhostMessage::kSetVringNum:
      if (number == 0 || number > kMostEntries || (number & (number - 1)) != 0)
        return refuse("a ring of the driver has an impossible size");
      ring.entries = number;
      return true;
    case VhostMessage::kSetVringBase: ring.base = static_cast<uint16_t>(number); return true;
    case VhostMessage::kSetVringEnable: ring.enabled = number != 0; return true;
    default:
      ring.descriptors = message.get<uint64_t>(8);
      ring.used = message.get<uint64_t>(16);
      ring.available = message.get<uint64_t>(24);
      ring.placed = true;
      return true;
  }
}

// A descriptor that blocks would stop who takes the event away, whoever made it.
bool VhostDevice::set_event(const VhostMessage& message, int* event, bool has_fd, int fd) noexcept {
  const bool expected = (message.get<uint64_t>(0) & kNoFd) == 0;
  forget_event(event);
  if (has_fd && (!expected || !is_event(fd))) {
    (void)kernel_call(SYS_close, fd);
    return refuse("an event of the driver is none");
  }
  if (!has_fd) return !expected ? true : refuse("an event of the driver is missing");
  (void)kernel_call(SYS_fcntl, fd, F_SETFL, kernel_call(SYS_fcntl, fd, F_GETFL) | O_NONBLOCK);
  *event = control_->adopt_fd(fd);
  return *event >= 0;
}

// The driver stops a ring, and wants to know where to go on.
bool VhostDevice::answer_base(uint32_t index) noexcept {
  Vring& ring = rings_[index];
  pause();
  ring.kicked = false;
  forget_event(&ring.events.kick);
  VhostMessage answer(VhostMessage::kGetVringBase);
  answer.flags |= VhostMessage::kReply;
  return channel_->send(answer.put(VringState{index, ring.base}));
}

bool VhostDevice::place(const Vring& told, DeviceQueues::Side* side) const noexcept {
  const auto mask = static_cast<uint16_t>(told.entries - 1);
  auto* const descriptors = memory_.at_own(told.descriptors, virtio::Ring::descriptor_bytes(told.entries));
  auto* const available = memory_.at_own(told.available, virtio::Ring::available_bytes(told.entries));
  auto* const used = memory_.at_own(told.used, virtio::Ring::used_bytes(told.entries));
  if (descriptors == nullptr || available == nullptr || used == nullptr) return false;
  // Where they lie here: a region may begin anywhere in its file.
  const auto is_aligned = [](const uint8_t* at, uintptr_t to) { return reinterpret_cast<uintptr_t>(at) % to == 0; };
  if (!is_aligned(descriptors, 16) || !is_aligned(available, 2) || !is_aligned(used, 4)) return false;
  side->ring = {reinterpret_cast<virtio::Descriptor*>(descriptors), reinterpret_cast<virtio::Available*>(available),
                reinterpret_cast<virtio::Used*>(used), mask};
  // Buffers are given back in the order they came: where the used ring ends is where to go on, also for a driver that lost its device
  // in the middle and tells of no place, or of the first.
  side->next = side->ring.used->index.load(std::memory_order_relaxed);
  side->events = &told.events;
  return true;
}

bool VhostDevice::look_at_rings() noexcept {
  bool ready = true;
  for (const Vring& ring : rings_) ready = ready && ring.entries != 0 && ring.placed && ring.kicked && ring.enabled;
  if (ready == up()) return true;
  pause();
  if (!ready) return true;
  DeviceQueues::Side sides[kRings];
  for (int i = 0; i < kRings; i++) {
    if (!place(rings_[i], &sides[i])) return refuse("a ring of the driver lies outside its memory, or is not aligned");
  }
  queues_.start(features_, sides[0], sides[1]);
  unfinished_ = (features_ & virtio::kGuestChecksum) != 0;
  long_out_ = unfinished_ && (features_ & virtio::kGuestTso4) != 0;
  long_in_ = (features_ & virtio::kHostTso4) != 0;
  go_up();
  return true;
}

bool VhostDevice::take(const VhostMessage& message, const int* fds, int count) noexcept {
  const bool brings_event = message.request == VhostMessage::kSetVringKick || message.request == VhostMessage::kSetVringCall;
  if (message.request == VhostMessage::kSetMemTable) return set_memory(message, fds, count) && look_at_rings();
  const uint32_t index = brings_event ? message.get<uint64_t>(0) & kIndexMask : message.get<VringState>(0).index;
  const bool keeps = brings_event && index < kRings && count > 0;
  for (int i = keeps ? 1 : 0; i < count; i++) (void)kernel_call(SYS_close, fds[i]);
  VhostMessage answer(message.request);
  answer.flags |= VhostMessage::kReply;
  switch (message.request) {
    case VhostMessage::kGetFeatures: return channel_->send(answer.put(offered()));
    case VhostMessage::kGetProtocolFeatures: return channel_->send(answer.put(uint64_t{0}));
    case VhostMessage::kGetQueueNum: return channel_->send(answer.put(uint64_t{1}));
    case VhostMessage::kSetFeatures: {
      const auto features = message.get<uint64_t>(0);
      const bool enabled = (features & VhostMessage::kProtocolFeatures) == 0;
      if ((features & ~offered()) != 0) return refuse("the driver takes features that were not offered");
      if (enabled) rings_[0].enabled = rings_[1].enabled = true;
      features_ = features;
      return true;
    }
    case VhostMessage::kSetVringKick:
    case VhostMessage::kSetVringCall: {
      if (index >= kRings) return true;
      Vring& ring = rings_[index];
      const bool kicks = message.request == VhostMessage::kSetVringKick;
      if (!set_event(message, kicks ? &ring.events.kick : &ring.events.call, keeps, keeps ? fds[0] : -1)) return false;
      ring.kicked = ring.kicked || kicks;
      return look_at_rings();
    }
    case VhostMessage::kGetVringBase:
      if (index >= kRings) return refuse("the driver stops a ring that it does not have");
      return answer_base(index) && look_at_rings();
    case VhostMessage::kSetVringNum:
    case VhostMessage::kSetVringAddr:
    case VhostMessage::kSetVringBase:
    case VhostMessage::kSetVringEnable:
      if (index >= kRings) return true;
      return set_ring(message, rings_[index]) && look_at_rings();
    default: return true;  // owner, protocol features, errors: nothing depends on them
  }
}

}  // namespace netstack
