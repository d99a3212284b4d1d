// Two wires joined back to back in shared memory, with loss, duplication and reordering on demand.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <new>
#include <sys/mman.h>

#include "base/check.h"
#include "netstack/wire.h"

namespace netstack_test {

inline void* map_shared(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

// Chances in per mille, drawn from a generator of its own so that a run can be repeated.
struct Impairment {
  int loss = 0, duplicate = 0, reorder = 0;
  uint64_t seed = 1;
};

// What a wire has its stacks do: nothing, sum up every segment, or leave sums to the wire and send segments that are longer than a frame by
// reference.
enum class Segments { unchecked, checked, by_reference };

class MemoryWire final : public netstack::Wire {
 public:
  static constexpr int kFrames = 2048;
  static constexpr int kMtu = 1500;
  static constexpr uint16_t kGsoMaxSize = 9000, kGroMaxSize = 65500;

  void join(MemoryWire& peer, uint8_t last_mac_byte, Segments segments) {
    peer_ = &peer;
    const bool checksums = segments != Segments::unchecked;
    facts_ = {"memory", {2, 0, 0, 0, 0, last_mac_byte}, kMtu, !checksums, checksums};
    if (segments == Segments::by_reference) {
      facts_.tcp_checksum_offload = true;
      facts_.gso_max_size = kGsoMaxSize;
      facts_.gro_max_size = kGroMaxSize;
    }
    for (int i = 0; i < kFrames; i++) free_[i] = i;
    free_count_ = kFrames;
  }

  // From now on the peer may send frames of so many IP bytes.
  void set_gro_max_size(uint16_t bytes) { facts_.gro_max_size = bytes; }

  // Its address is a kernel's as well, which gives it another one, or leads elsewhere.
  void share(netstack::PortSteering* steering, uint32_t address_be) {
    steering_ = steering;
    facts_.shared = true;
    facts_.address_be = address_be;
  }
  void move_to(uint32_t address_be) { facts_.address_be = address_be; }
  netstack::PortSteering* steering() const noexcept override { return steering_; }
  bool leads_to(const netstack::IpAddress&) const noexcept override { return leads; }

  // The peer wants checksums from now on, or none.
  void set_checksums(bool needed) { facts_.link_needs_checksum = needed; }

  // As if somebody else were at the other end from now on.
  void new_peer() { facts_.peers++; }

  const netstack::WireFacts& facts() const noexcept override { return facts_; }
  int receive(netstack::RxFrame* out, int capacity) noexcept override {
    int count = 0;
    while (head_ != tail_) {
      unsigned end = head_ + 1;
      while (end != tail_ && frames_[inbox_[end % kFrames]].continues) end++;
      if (count + static_cast<int>(end - head_) > capacity) break;
      for (; head_ != end; head_++, count++) {
        Frame& frame = frames_[inbox_[head_ % kFrames]];
        out[count] = {frame.data, frame.length, &frame, frame.scratch, facts_.tcp_checksum_offload, frame.continues};
      }
    }
    return count;
  }
  bool crowded() const noexcept override { return crowd; }
  void release(void* handle) noexcept override {
    if (hook != nullptr) hook(hook_argument);
    give_back(static_cast<Frame*>(handle));
  }
  bool allocate(netstack::TxFrame* out) noexcept override {
    if (hook != nullptr) hook(hook_argument);
    if (free_count_ <= reserve || refuse) return false;
    Frame& frame = take();
    *out = {frame.data, sizeof frame.data, &frame};
    return true;
  }
  void send(void* handle, uint32_t length) noexcept override {
    auto* frame = static_cast<Frame*>(handle);
    if (facts_.tcp_checksum_offload) {
      frame->length = length;
      frame->piece_count = 0;
      waiting_[waiting_count_++] = frame;
    } else {
      transmit(frame->data, length);
      give_back(frame);
    }
  }
  void send_tcp_with(void* handle, uint32_t length, const netstack::Piece* pieces, int count) noexcept override {
    CHECK(count > 0 && count <= netstack::kMostPieces);
    send(handle, length);
    auto* frame = static_cast<Frame*>(handle);
    frame->piece_count = count;
    for (int i = 0; i < count; i++) frame->pieces[i] = pieces[i];
  }
  void flush() noexcept override {
    for (int i = 0; i < waiting_count_; i++) {
      Frame* const frame = waiting_[i];
      uint8_t whole[kGroMaxSize + 14];
      uint32_t length = frame->length;
      memcpy(whole, frame->data, length);
      for (int k = 0; k < frame->piece_count; k++) {
        CHECK(length + frame->pieces[k].bytes <= sizeof whole);
        memcpy(whole + length, frame->pieces[k].data, frame->pieces[k].bytes);
        length += frame->pieces[k].bytes;
      }
      if (whole[12] == 8 && whole[13] == 0) finish_ip(whole + 14);
      longest_sent = length > longest_sent ? length : longest_sent;
      transmit(whole, length);
      give_back(frame);
    }
    waiting_count_ = 0;
  }
  // A full ring is no reason to drop: the stack is told to hold back while there is still room for what it has begun.
  int backlog() const noexcept override { return peer_->free_count_ < kFrames / 4 ? 1 << 20 : 0; }
  int sleep_fd() noexcept override { return -1; }
  void arm() noexcept override {}
  void disarm() noexcept override {}
  int control_fd() noexcept override { return -1; }
  void run_control() noexcept override {}
  int free_frames() const noexcept override { return free_count_; }
  int total_frames() const noexcept override { return kFrames; }
  void recover() noexcept override {
    for (int i = 0; i < kFrames; i++) {
      free_[i] = i;
      frames_[i].taken = false;
    }
    free_count_ = kFrames;
    head_ = tail_ = 0;
    waiting_count_ = 0;
    held_ = false;
  }

  // Puts a frame into this wire's inbox, as if the peer had sent it.
  void deliver(const uint8_t* data, uint32_t length) noexcept {
    constexpr uint32_t kRoom = sizeof frames_[0].data;
    if (cut || static_cast<uint32_t>(free_count_) * kRoom < length || (length > kRoom && facts_.gro_max_size == 0)) return;
    for (uint32_t at = 0; at < length; at += kRoom) {
      // Filled before it is taken: a sender that dies meanwhile leaves it free.
      CHECK(free_count_ > 0);
      Frame& frame = frames_[free_[free_count_ - 1]];
      frame.length = length - at < kRoom ? length - at : kRoom;
      frame.continues = at > 0;
      memcpy(frame.data, data + at, frame.length);
      inbox_[tail_++ % kFrames] = static_cast<int>(&take() - frames_);
    }
  }
  bool idle() const noexcept { return head_ == tail_ && !held_; }

  Impairment impairment;
  bool cut = false;     // nothing arrives any more
  uint32_t longest_passed = UINT32_MAX;  // what is sent and longer gets lost
  bool refuse = false;  // no frame to send with
  bool leads = true;    // to whatever address
  bool crowd = false;   // more frames would soon be lost
  int reserve = 64;     // frames kept for receiving
  uint64_t sent = 0;
  uint32_t longest_sent = 0;
  void (*tap)(const uint8_t* data, uint32_t length) = nullptr;  // sees every frame sent
  void (*hook)(void*) = nullptr;                                 // called in the middle of the stack's work
  void* hook_argument = nullptr;

 private:
  struct Frame {
    alignas(64) unsigned char scratch[netstack::kFramePrivateBytes];
    uint8_t data[1600];
    uint32_t length;
    bool taken, continues;
    int piece_count;
    netstack::Piece pieces[netstack::kMostPieces];
  };

  // The sum over an IPv4 header.
  static void finish_ip(uint8_t* header) noexcept {
    header[10] = header[11] = 0;
    uint32_t sum = 0;
    for (int i = 0; i < (header[0] & 15) * 4; i += 2) sum += static_cast<uint32_t>(header[i] << 8 | header[i + 1]);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    header[10] = static_cast<uint8_t>(~sum >> 8);
    header[11] = static_cast<uint8_t>(~sum);
  }
  void transmit(const uint8_t* data, uint32_t length) noexcept {
    sent++;
    if (tap != nullptr) tap(data, length);
    if (length > longest_passed || chance(impairment.loss)) return;
    if (chance(impairment.reorder) && !held_) {
      held_ = true;
      held_length_ = length;
      memcpy(held_frame_, data, length);
      return;
    }
    peer_->deliver(data, length);
    if (chance(impairment.duplicate)) peer_->deliver(data, length);
    if (held_) {
      held_ = false;
      peer_->deliver(held_frame_, held_length_);
    }
  }

  Frame& take() noexcept {
    CHECK(free_count_ > 0 && free_count_ <= kFrames);
    Frame& frame = frames_[free_[--free_count_]];
    CHECK(!frame.taken);
    frame.taken = true;
    return frame;
  }
  void give_back(Frame* frame) noexcept {
    CHECK(frame >= frames_ && frame < frames_ + kFrames && frame->taken);
    frame->taken = false;
    free_[free_count_++] = static_cast<int>(frame - frames_);
  }

  bool chance(int per_mille) noexcept {
    if (per_mille == 0) return false;
    impairment.seed = impairment.seed * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>((impairment.seed >> 33) % 1000) < per_mille;
  }

  MemoryWire* peer_ = nullptr;
  netstack::PortSteering* steering_ = nullptr;
  netstack::WireFacts facts_{};
  int free_count_ = 0;
  unsigned head_ = 0, tail_ = 0;
  bool held_ = false;
  uint32_t held_length_ = 0;
  uint8_t held_frame_[kGroMaxSize + 14];
  int waiting_count_ = 0;
  Frame* waiting_[kFrames];
  int free_[kFrames];
  int inbox_[kFrames];
  Frame frames_[kFrames];
};

struct MemoryLink {
  MemoryWire ends[2];

  static MemoryLink* make(Segments segments) {
    auto* link = new (map_shared(sizeof(MemoryLink))) MemoryLink();
    link->ends[0].join(link->ends[1], 1, segments);
    link->ends[1].join(link->ends[0], 2, segments);
    return link;
  }
};

}  // namespace netstack_test
