// Copies between the shim and the program that report bad pointers.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/user_memory.h"

#include <cerrno>

namespace shim {
namespace {

constexpr uintptr_t kPageMask = 4095;

// Calls try_byte for the first byte and for the first of each further page of what the parts hold of `bytes` bytes.
template <class F>
long probe(const iovec* parts, int count, size_t bytes, F try_byte) noexcept {
  if (bytes > kMostProbed) bytes = kMostProbed;
  for (int i = 0; i < count && bytes > 0; i++) {
    const size_t length = parts[i].iov_len < bytes ? parts[i].iov_len : bytes;
    bytes -= length;
    char* const end = static_cast<char*>(parts[i].iov_base) + length;
    char* at = static_cast<char*>(parts[i].iov_base);
    while (at < end) {
      if (try_byte(at) != 0) return -EFAULT;
      at = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(at) | kPageMask) + 1);
    }
  }
  return 0;
}

}  // namespace

long probe_readable_parts(const iovec* parts, int count, size_t bytes) noexcept { return probe(parts, count, bytes, zps_user_read_byte); }

long probe_writable_parts(const iovec* parts, int count, size_t bytes) noexcept { return probe(parts, count, bytes, zps_user_touch_byte); }

long copy_in(void* to, const void* user, size_t bytes) noexcept {
  if (bytes == 0) return 0;
  if (!plausible(user, bytes)) return -EFAULT;
  return zps_user_copy(to, user, bytes);
}

long copy_out(void* user, const void* from, size_t bytes) noexcept {
  if (bytes == 0) return 0;
  if (!plausible(user, bytes)) return -EFAULT;
  return zps_user_copy(user, from, bytes);
}

}  // namespace shim
