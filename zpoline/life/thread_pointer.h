// The two thread pointers of a static program's threads: fs, which is the program's or the engine's, and gs, which is the engine's.
// SPDX-License-Identifier: BSD-3-Clause
//
// static_entry.S has the essay. All of this is for static programs only: in others fs is libc's, and gs nobody's.
#pragma once

#include <cstdint>

#include "zpoline/layout.h"

namespace zpoline {

[[nodiscard]] inline uint64_t thread_pointer() noexcept {
  uint64_t pointer;
  asm volatile("rdfsbase %0" : "=r"(pointer)::"memory");
  return pointer;
}
inline void set_thread_pointer(uint64_t pointer) noexcept { asm volatile("wrfsbase %0" ::"r"(pointer) : "memory"); }

// What the engine has of this thread lies there. Known by gs, or, where a thread begins and fs is right, made known to it.
[[nodiscard]] inline uint64_t engine_pointer() noexcept {
  uint64_t pointer;
  asm volatile("mov %%gs:0, %0" : "=r"(pointer)::"memory");
  return pointer;
}
inline void take_engine_pointer() noexcept { asm volatile("wrgsbase %0" ::"r"(thread_pointer()) : "memory"); }

// The program's fs.
[[nodiscard]] inline uint64_t program_pointer() noexcept {
  uint64_t pointer;
  asm volatile("mov %%gs:%c1, %0" : "=r"(pointer) : "i"(ZPS_PROGRAM_FS) : "memory");
  return pointer;
}
// A word for signals.cc.
[[nodiscard]] inline uint64_t interrupted_word() noexcept {
  uint64_t word;
  asm volatile("mov %%gs:%c1, %0" : "=r"(word) : "i"(ZPS_INTERRUPTED) : "memory");
  return word;
}
inline void set_interrupted_word(uint64_t word) noexcept {
  asm volatile("mov %0, %%gs:%c1" ::"r"(word), "i"(ZPS_INTERRUPTED) : "memory");
}
inline void set_program_pointer(uint64_t pointer) noexcept {
  asm volatile("mov %0, %%gs:%c1" ::"r"(pointer), "i"(ZPS_PROGRAM_FS) : "memory");
}

}  // namespace zpoline
