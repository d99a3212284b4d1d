// Reading and writing the program's memory where a bad pointer must become EFAULT.
//
// All copies go through base/user_copy.h, whose faults the engine turns into an error. What a call looks at in place (arrays of iovec, pollfd,
// fd_set, the event array of epoll_wait) is only checked for being plausible: not in the first page, not in the kernel's half.
// Known limit: such an array that is plausible but not mapped raises SIGSEGV, where Linux returns EFAULT.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shim {

// False for memory that no program can have.
[[nodiscard]] inline bool plausible(const void* memory, size_t bytes) noexcept {
  constexpr uintptr_t kEnd = 0x7fff'ffff'f000;
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  return address >= 4096 && address < kEnd && bytes <= kEnd - address;
}

// 0 or -EFAULT.
[[nodiscard]] long copy_in(void* to, const void* user, size_t bytes) noexcept;
[[nodiscard]] long copy_out(void* user, const void* from, size_t bytes) noexcept;

}  // namespace shim
