// The driver's end of a vhost-user connection: it asks for the features, then tells where its memory and rings are.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/log.h"
#include "base/syscall.h"
#include "netstack/wires/vhost/vhost_session.h"

namespace netstack {

bool VhostSession::refuse(const char* why) noexcept {
  if (!refused_) base::log(base::LogLevel::warn, "wire %s: no connection: %s", kind_, why);
  refused_ = true;
  return false;
}

VhostDriver::VhostDriver(const char* kind, VhostChannel* channel, Control* control, const VhostOffer& offer, uint32_t frame_bytes,
                         uint8_t* memory, uint32_t buffer_bytes, int fd, const QueueEvents (&events)[2]) noexcept
    : VhostSession(kind, channel, control, offer),
      memory_(memory),
      memory_bytes_(DriverQueues::memory_bytes(buffer_bytes)),
      fd_(fd),
      events_{events[0], events[1]},
      queues_(kind, frame_bytes, memory, buffer_bytes, &events_[0], &events_[1]) {}

uint64_t VhostDriver::wanted() const noexcept {
  constexpr uint64_t kPlain =
      virtio::kVersion1 | virtio::kMergeableBuffers | virtio::kAnyLayout | virtio::kChecksum | virtio::kGuestChecksum;
  return offer_.long_segments ? kPlain | virtio::kHostTso4 | virtio::kGuestTso4 : kPlain;
}

bool VhostDriver::begin() noexcept {
  return channel_->send(VhostMessage(VhostMessage::kSetOwner)) && channel_->send(VhostMessage(VhostMessage::kGetFeatures));
}

bool VhostDriver::tell_ring(uint32_t index, const virtio::Ring& ring) noexcept {
  const auto address = [](const void* at) { return reinterpret_cast<uint64_t>(at); };
  VhostMessage place(VhostMessage::kSetVringAddr);
  place.put(VringState{index, 0}).put(address(ring.descriptors)).put(address(ring.used)).put(address(ring.available)).put(uint64_t{0});
  return channel_->send(VhostMessage(VhostMessage::kSetVringNum).put(VringState{index, ring.entries()})) &&
         channel_->send(VhostMessage(VhostMessage::kSetVringBase).put(VringState{index, 0})) && channel_->send(place) &&
         channel_->send(VhostMessage(VhostMessage::kSetVringCall).put(uint64_t{index}), events_[index].call) &&
         channel_->send(VhostMessage(VhostMessage::kSetVringKick).put(uint64_t{index}), events_[index].kick);
}

// The answer to the one question is all that a device has to say.
bool VhostDriver::take(const VhostMessage& message, const int* fds, int count) noexcept {
  for (int i = 0; i < count; i++) (void)base::kernel_call(SYS_close, fds[i]);
  if (message.request != VhostMessage::kGetFeatures || message.size != sizeof(uint64_t) || count != 0 || up())
    return refuse("the device's answer makes no sense");
  uint64_t features = message.get<uint64_t>(0) & wanted();
  if ((features & virtio::kChecksum) == 0) features &= ~virtio::kHostTso4;
  if ((features & virtio::kGuestChecksum) == 0 || (features & virtio::kMergeableBuffers) == 0) features &= ~virtio::kGuestTso4;
  queues_.start(features);
  VhostMessage table(VhostMessage::kSetMemTable);
  const auto base = reinterpret_cast<uint64_t>(memory_);
  table.put(uint32_t{1}).put(uint32_t{0}).put(base).put(memory_bytes_).put(base).put(uint64_t{0});
  if (!channel_->send(VhostMessage(VhostMessage::kSetFeatures).put(features)) || !channel_->send(table, fd_)) return false;
  if (!tell_ring(0, queues_.from_device()) || !tell_ring(1, queues_.to_device())) return false;
  unfinished_ = (features & virtio::kChecksum) != 0;
  long_out_ = (features & virtio::kHostTso4) != 0;
  long_in_ = (features & virtio::kGuestTso4) != 0;
  go_up();
  return true;
}

void VhostDriver::end() noexcept {
  go_down();
  queues_.stop();
}

}  // namespace netstack
