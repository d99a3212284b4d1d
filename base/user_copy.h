// Copies between our memory and the program's, where the program's pointer may be bad.
// SPDX-License-Identifier: BSD-3-Clause
//
// Linux answers EFAULT to a bad buffer; a plain memcpy under the stack's lock would kill the process. user_copy() is
// assembly whose faulting instructions lie between two labels: the engine's SIGSEGV and SIGBUS handler, seeing the fault
// there, resumes at a third, and the call returns -EFAULT. What was copied before the fault stays copied, as in the kernel.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// A word and the unaligned value behind it, as in an epoll_event. `word` is 0 .. 2^32-1, or -EFAULT.
struct zps_word_pair {
  int64_t word;
  uint64_t value;
};

// Copies `bytes` from `from` to `to` (they do not overlap). 0, or -EFAULT. Legacy SSE only: uses xmm0-3, no other vector register.
[[nodiscard]] long zps_user_copy(void* to, const void* from, size_t bytes) noexcept;

// The same for 12 bytes in registers, and for one byte: to see that it can be read, or written (it is written back as it was). No vector
// register.
[[nodiscard]] zps_word_pair zps_user_load_pair(const void* from) noexcept;
[[nodiscard]] long zps_user_store_pair(void* to, uint32_t word, uint64_t value) noexcept;
[[nodiscard]] long zps_user_read_byte(const void* from) noexcept;
[[nodiscard]] long zps_user_touch_byte(void* at) noexcept;

// The code range whose faults are resumed at zps_user_copy_fault, with the stack pointer as at entry.
extern const char zps_user_copy_begin[];
extern const char zps_user_copy_end[];
extern const char zps_user_copy_fault[];
}
