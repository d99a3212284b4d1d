// Thread-local variables that every call reads, without a call of __tls_get_addr().
// SPDX-License-Identifier: BSD-3-Clause
//
// A library that is loaded late has no fixed place for its thread-local variables (shim/thread_storage.h has the essay): in it, they all
// lie at one distance from fs:0 that is known when it has been loaded. In a program, that distance is none, and the linker puts the
// variable's own distance from fs:0 where in a library it puts the one from the first of them (x86-64 psABI, TLS: x@dtpoff).
#pragma once

#include <cstddef>
#include <cstdint>

namespace base {

// The first word of a thread's control block is its own address.
[[nodiscard]] inline uint8_t* thread_pointer() noexcept {
  uint8_t* pointer;
  asm("mov %%fs:0, %0" : "=r"(pointer));
  return pointer;
}

// From fs:0 to the variables of this library, in every thread; 0 in a program.
extern constinit ptrdiff_t variables_from_fs [[gnu::visibility("hidden")]];

}  // namespace base

// Defines `name()`: a reference to this thread's variable, which begins as zero.
#define ZPS_THREAD_VARIABLE(type, name)                                                                                              \
  extern "C" {                                                                                                                       \
  [[gnu::used, gnu::visibility("hidden")]] inline constinit thread_local type zps_this_##name{};                                     \
  }                                                                                                                                  \
  [[nodiscard]] inline type& name() noexcept {                                                                                       \
    type* place;                                                                                                                     \
    asm("lea zps_this_" #name "@dtpoff(%1), %0" : "=r"(place) : "r"(base::thread_pointer() + base::variables_from_fs));              \
    return *place;                                                                                                                   \
  }
