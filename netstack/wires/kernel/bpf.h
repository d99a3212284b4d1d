// BPF maps, programs under construction, and their links, by the system call alone.
// SPDX-License-Identifier: BSD-3-Clause
//
// A program is some dozens of instructions whose constants are known when a wire is opened; a compiler's output, with a loader that
// relocates it, would be another dependency and another file beside the library. Sources: Documentation/bpf/ and include/uapi/linux/bpf.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/bpf.h>
#include <linux/if_ether.h>

namespace netstack {

enum { r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10 };

// A descriptor out of the program's sight, or a negative errno.
[[nodiscard]] int make_bpf_map(uint32_t type, uint32_t key_bytes, uint32_t value_bytes, uint32_t entries, uint32_t flags = 0) noexcept;
// Has a program run for what comes in at an interface of the calling thread's network namespace, behind those that are there already (tcx,
// Linux 6.6), for as long as the descriptor is open anywhere.
[[nodiscard]] int link_to_ingress(int program, int interface) noexcept;
// The same for what has just come, before anybody else sees it (XDP; `flags`: XDP_FLAGS_). An interface has one such program: -EBUSY.
[[nodiscard]] int link_to_xdp(int program, int interface, uint32_t flags) noexcept;
// 0 or a negative errno.
[[nodiscard]] long set_map_entry(int map, uint32_t key, uint32_t value) noexcept;
// What ours are called.
inline constexpr char kOwnProgram[] = "zpstack";
// The name of a loaded program (BPF_OBJ_NAME_LEN bytes), empty if the kernel does not tell.
void program_name(uint32_t id, char* out) noexcept;

// Jumps lead forward, to where land() is called with what jump() has returned.
class BpfCode {
 public:
  void add(int code, int to, int from, int offset, int immediate) noexcept {
    code_[count_++] = bpf_insn{static_cast<uint8_t>(code), static_cast<uint8_t>(to & 0xf), static_cast<uint8_t>(from & 0xf),
                               static_cast<int16_t>(offset), immediate};
  }
  void set(int to, int value) noexcept { add(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value); }
  void move(int to, int from) noexcept { add(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0); }
  // r0 is what stands there in the frame, counted from its IP header, as the host has numbers; r1 to r5 are lost. (From the frame's
  // beginning: what is counted from the network header, SKF_NET_OFF, takes a call.) The frame is in r6.
  void fetch(int size, int at) noexcept { add(BPF_LD | BPF_ABS | size, 0, 0, 0, ETH_HLEN + at); }
  // The same, counted from so many bytes behind it as a register says.
  void fetch_behind(int size, int behind, int at) noexcept { add(BPF_LD | BPF_IND | size, 0, behind, 0, ETH_HLEN + at); }
  void address_of(int to, int map_fd, int pseudo, int offset) noexcept {
    add(BPF_LD | BPF_DW | BPF_IMM, to, pseudo, 0, map_fd);
    add(0, 0, 0, 0, offset);
  }
  [[nodiscard]] int jump(int code, int left, int value) noexcept {
    add(BPF_JMP | code | BPF_K, left, 0, 0, value);
    return count_ - 1;
  }
  [[nodiscard]] int jump_unlike(int left, int right) noexcept {
    add(BPF_JMP | BPF_JNE | BPF_X, left, right, 0, 0);
    return count_ - 1;
  }
  [[nodiscard]] int last() const noexcept { return count_ - 1; }
  void land(int jump) noexcept { code_[jump].off = static_cast<int16_t>(count_ - jump - 1); }
  void call(int helper) noexcept { add(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
  void leave(int result) noexcept {
    set(0, result);
    leave();
  }
  void leave() noexcept { add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }
  // A descriptor out of the program's sight, or a negative errno. `flags`: BPF_F_XDP_HAS_FRAGS ...
  [[nodiscard]] int load(uint32_t type, uint32_t flags = 0) const noexcept;

 private:
  bpf_insn code_[640];
  int count_ = 0;
};

}  // namespace netstack
