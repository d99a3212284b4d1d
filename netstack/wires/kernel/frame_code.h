// A BPF program that reads frames: of the traffic control, or of XDP.
// SPDX-License-Identifier: BSD-3-Clause
//
// The first kind has an sk_buff, whose bytes the kernel fetches wherever they lie. The second has a frame as the device left it, between
// two pointers: each access is preceded by a comparison that the kernel's verifier wants to see.
#pragma once

#include "netstack/wires/kernel/bpf.h"

namespace netstack {

// Jumps that lead to one place.
class Exits {
 public:
  void add(int jump) noexcept { at_[count_++] = jump; }
  void land(BpfCode& code) const noexcept {
    for (int i = 0; i < count_; i++) code.land(at_[i]);
  }

 private:
  int at_[128];
  int count_ = 0;
};

// The frame is in r6.
class FrameCode : public BpfCode {
 public:
  explicit FrameCode(bool xdp) noexcept : xdp_(xdp) {}

  // As BpfCode's. What lies beyond the frame leads to outside().
  void fetch(int size, int at) noexcept {
    if (!xdp_) return BpfCode::fetch(size, at);
    begin_access();
    access(size, at);
  }
  void fetch_behind(int size, int behind, int at) noexcept {
    if (!xdp_) return BpfCode::fetch_behind(size, behind, at);
    begin_access();
    add(BPF_ALU64 | BPF_ADD | BPF_X, r1, behind, 0, 0);
    access(size, at);
  }
  // From r2 on, counted from the frame's beginning, to the program's stack.
  void load_bytes(int to, int bytes) noexcept {
    move(r1, r6);
    move(r3, r10);
    add(BPF_ALU64 | BPF_ADD | BPF_K, r3, 0, 0, to);
    set(r4, bytes);
    call(xdp_ ? BPF_FUNC_xdp_load_bytes : BPF_FUNC_skb_load_bytes);
    outside_.add(jump(BPF_JNE, r0, 0));
  }
  [[nodiscard]] bool is_xdp() const noexcept { return xdp_; }
  [[nodiscard]] const Exits& outside() const noexcept { return outside_; }

 private:
  void begin_access() noexcept {
    add(BPF_LDX | BPF_MEM | BPF_W, r1, r6, offsetof(xdp_md, data), 0);
    add(BPF_LDX | BPF_MEM | BPF_W, r2, r6, offsetof(xdp_md, data_end), 0);
  }
  void access(int size, int at) noexcept {
    const int bytes = size == BPF_W ? 4 : size == BPF_H ? 2 : 1;
    constexpr int kBits = 8;
    move(r3, r1);
    add(BPF_ALU64 | BPF_ADD | BPF_K, r3, 0, 0, ETH_HLEN + at + bytes);
    add(BPF_JMP | BPF_JGT | BPF_X, r3, r2, 0, 0);
    outside_.add(last());
    add(BPF_LDX | BPF_MEM | size, r0, r1, ETH_HLEN + at, 0);
    if (bytes > 1) add(BPF_ALU | BPF_END | BPF_TO_BE, r0, 0, 0, bytes * kBits);
  }

  const bool xdp_;
  Exits outside_;
};

}  // namespace netstack
