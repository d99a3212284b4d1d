// What both sides of a vhost-user wire do with frames: header off, header on, wake-ups.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/vhost/frame_queues.h"

#include "netstack/wires/control.h"

namespace netstack {

void FrameQueues::wake(int fd) noexcept {
  if (fd >= 0) wake_by_event(fd);
}

bool FrameTaker::add(const uint8_t* data, uint32_t bytes) noexcept {
  if (header_left_ > 0) {
    const uint32_t n = bytes < header_left_ ? bytes : header_left_;
    memcpy(reinterpret_cast<uint8_t*>(&header_) + header_bytes_ - header_left_, data, n);
    header_left_ -= n;
    data += n;
    bytes -= n;
  }
  if (bytes > FrameQueues::kLongestFrame - length_) return false;
  length_ += bytes;
  const auto added = pieces_->add(data, bytes, frame_bytes_, pool_);
  waits_ = pieces_->waits_after(added);
  if (waits_) drop();
  return added == FramePieces::Added::all;
}

bool FrameTaker::finish() noexcept {
  if (header_left_ > 0 || pieces_->count == 0) return false;
  pieces_->out->checksum_verified = (header_.net.flags & (VnetHeader::kNeedsChecksum | virtio::Header::kDataValid)) != 0;
  return true;
}

}  // namespace netstack
