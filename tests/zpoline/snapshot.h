// All registers of one system call, before and after it (snapshot.S), and what may differ.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>

namespace tests {

struct State {
  uint64_t general[16];  // rax rcx rdx rbx rsp rbp rsi rdi r8..r15
  uint64_t flags;
  uint64_t after;  // the address of the next instruction
  uint32_t mxcsr;
  uint16_t x87_control;
  uint16_t unused;
  uint64_t red_zone[16];  // the 128 bytes below rsp, lowest first
  uint64_t masks[8];
  alignas(64) uint8_t vectors[32][64];
};
static_assert(offsetof(State, flags) == 128 && offsetof(State, mxcsr) == 144 && offsetof(State, red_zone) == 152 &&
              offsetof(State, masks) == 280 && offsetof(State, vectors) == 384);

using Snapshot = void(const State* in, State* out, int width);
extern "C" Snapshot snapshot_call;

enum Width { kXmm, kYmm, kZmm };

inline int widest() { return __builtin_cpu_supports("avx512bw") ? kZmm : __builtin_cpu_supports("avx") ? kYmm : kXmm; }

inline State random_state(std::mt19937_64& random, long nr) {
  State state{};
  for (uint64_t& value : state.general) value = random();
  for (uint64_t& value : state.red_zone) value = random();
  for (uint64_t& value : state.masks) value = random();
  for (auto& vector : state.vectors) {
    for (uint8_t& byte : vector) byte = static_cast<uint8_t>(random());
  }
  state.general[0] = static_cast<uint64_t>(nr);
  state.mxcsr = 0x5f80;  // round up
  state.x87_control = 0x0b7f;
  return state;
}

// Expects of `out` what the kernel promises: rax, rcx and r11 differ, and these as it leaves them. Of the red zone's 16 words
// the lowest `whole_words` must be whole: a call has the highest.
inline void expect_kept(const State& in, const State& out, int width, int whole_words = 15) {
  static const char* const kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  for (int i = 2; i < 16; i++) {
    if (i == 4 || i == 11) continue;
    EXPECT_EQ(in.general[i], out.general[i]) << kNames[i];
  }
  EXPECT_EQ(out.general[1], out.after) << "rcx is the next instruction";
  EXPECT_EQ(out.general[11], in.flags) << "r11 holds the flags";
  EXPECT_EQ(out.flags, in.flags);
  EXPECT_EQ(out.mxcsr & 0xffc0, in.mxcsr & 0xffc0);
  EXPECT_EQ(out.x87_control, in.x87_control);
  for (int i = 0; i < whole_words; i++) EXPECT_EQ(in.red_zone[i], out.red_zone[i]) << "8 bytes at rsp-" << 128 - 8 * i;
  const size_t bytes = width == kZmm ? 64 : width == kYmm ? 32 : 16;
  for (int i = 0; i < (width == kZmm ? 32 : 16); i++) EXPECT_EQ(memcmp(in.vectors[i], out.vectors[i], bytes), 0) << "vector register " << i;
  if (width == kZmm) {
    EXPECT_EQ(memcmp(in.masks, out.masks, sizeof in.masks), 0);
  }
}

}  // namespace tests
