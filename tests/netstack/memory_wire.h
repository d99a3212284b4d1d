// Two wires joined back to back in shared memory, with loss, duplication and reordering on demand.
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

class MemoryWire final : public netstack::Wire {
 public:
  static constexpr int kFrames = 2048;
  static constexpr int kMtu = 1500;

  void join(MemoryWire& peer, uint8_t last_mac_byte, bool checksums) {
    peer_ = &peer;
    facts_ = {"memory", {2, 0, 0, 0, 0, last_mac_byte}, kMtu, !checksums, checksums};
    for (int i = 0; i < kFrames; i++) free_[i] = i;
    free_count_ = kFrames;
  }

  // From now on the peer may send frames of so many IP bytes.
  void take_in(uint16_t bytes) { facts_.takes_in = bytes; }

  // As if somebody else were at the other end from now on.
  void new_peer() { facts_.peers++; }

  const netstack::WireFacts& facts() const noexcept override { return facts_; }
  int receive(netstack::RxFrame* out, int capacity) noexcept override {
    int count = 0;
    for (; count < capacity && head_ != tail_; count++) {
      Frame& frame = frames_[inbox_[head_++ % kFrames]];
      out[count] = {frame.data, frame.length, &frame, frame.scratch};
    }
    return count;
  }
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
    sent++;
    if (tap != nullptr) tap(frame->data, length);
    if (!(chance(impairment.loss))) {
      if (chance(impairment.reorder) && !held_) {
        held_ = true;
        held_length_ = length;
        memcpy(held_frame_, frame->data, length);
      } else {
        peer_->deliver(frame->data, length);
        if (chance(impairment.duplicate)) peer_->deliver(frame->data, length);
        if (held_) {
          held_ = false;
          peer_->deliver(held_frame_, held_length_);
        }
      }
    }
    give_back(frame);
  }
  void flush() noexcept override {}
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
    held_ = false;
  }

  // Puts a frame into this wire's inbox, as if the peer had sent it.
  void deliver(const uint8_t* data, uint32_t length) noexcept {
    if (cut || free_count_ == 0 || length > sizeof frames_[0].data) return;
    Frame& frame = take();
    memcpy(frame.data, data, length);
    frame.length = length;
    inbox_[tail_++ % kFrames] = static_cast<int>(&frame - frames_);
  }
  bool idle() const noexcept { return head_ == tail_ && !held_; }

  Impairment impairment;
  bool cut = false;     // nothing arrives any more
  bool refuse = false;  // no frame to send with
  int reserve = 64;     // frames kept for receiving
  uint64_t sent = 0;
  void (*tap)(const uint8_t* data, uint32_t length) = nullptr;  // sees every frame sent
  void (*hook)(void*) = nullptr;                                 // called in the middle of the stack's work
  void* hook_argument = nullptr;

 private:
  struct Frame {
    alignas(64) unsigned char scratch[netstack::kFramePrivateBytes];
    uint8_t data[1600];
    uint32_t length;
    bool taken;
  };

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
  netstack::WireFacts facts_{};
  int free_count_ = 0;
  unsigned head_ = 0, tail_ = 0;
  bool held_ = false;
  uint32_t held_length_ = 0;
  uint8_t held_frame_[1600];
  int free_[kFrames];
  int inbox_[kFrames];
  Frame frames_[kFrames];
};

struct MemoryLink {
  MemoryWire ends[2];

  static MemoryLink* make(bool checksums) {
    auto* link = new (map_shared(sizeof(MemoryLink))) MemoryLink();
    link->ends[0].join(link->ends[1], 1, checksums);
    link->ends[1].join(link->ends[0], 2, checksums);
    return link;
  }
};

}  // namespace netstack_test
