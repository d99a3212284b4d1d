// Reading and writing the program's memory where a bad pointer must become EFAULT.
// SPDX-License-Identifier: BSD-3-Clause
//
// Arrays and structures are copied in before they are looked at and copied out when they are complete, through base/user_copy.h,
// whose faults the engine turns into an error. The bytes of a stream are copied by the stack, under its lock, where a fault would
// be the end; so the pages that it is about to touch are tried first, a byte each.
//
// Known limits: a bad page fails the whole call, where Linux returns what came before it; of one long write the first kMostProbed bytes
// are tried; a page that another thread unmaps between trial and copy raises SIGSEGV.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "base/user_copy.h"

namespace shim {

// False for memory that no program can have.
[[nodiscard]] inline bool plausible(const void* memory, size_t bytes) noexcept {
  constexpr uintptr_t kEnd = 0x7fff'ffff'f000;
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  return address >= 4096 && address < kEnd && bytes <= kEnd - address;
}

// Tries the pages of the first `bytes` bytes of an array of parts: that they can be read, or written (a byte is written back as it was,
// so only bytes that are about to be overwritten may be asked for). 0 or -EFAULT.
[[nodiscard]] long probe_readable_parts(const iovec* parts, int count, size_t bytes) noexcept;
[[nodiscard]] long probe_writable_parts(const iovec* parts, int count, size_t bytes) noexcept;
inline constexpr size_t kMostProbed = 256 * 1024;

// True if `bytes` of the only part are some, and in one page.
[[nodiscard]] inline bool within_a_page(const iovec* parts, int count, size_t bytes) noexcept {
  if (count != 1) return false;
  if (parts->iov_len < bytes) bytes = parts->iov_len;
  return bytes != 0 && (reinterpret_cast<uintptr_t>(parts->iov_base) & 4095) + bytes <= 4096;
}
[[nodiscard]] inline long probe_readable(const iovec* parts, int count, size_t bytes) noexcept {
  return within_a_page(parts, count, bytes) ? zps_user_read_byte(parts->iov_base) : probe_readable_parts(parts, count, bytes);
}
[[nodiscard]] inline long probe_writable(const iovec* parts, int count, size_t bytes) noexcept {
  return within_a_page(parts, count, bytes) ? zps_user_touch_byte(parts->iov_base) : probe_writable_parts(parts, count, bytes);
}

// 0 or -EFAULT.
[[nodiscard]] long copy_in(void* to, const void* user, size_t bytes) noexcept;
[[nodiscard]] long copy_out(void* user, const void* from, size_t bytes) noexcept;

}  // namespace shim
