// Reading and writing the program's memory where a bad pointer must become EFAULT.
//
// Arrays and structures are copied in before they are looked at and copied out when they are complete, through base/user_copy.h,
// whose faults the engine turns into an error. The bytes of a stream are copied by the stack, under its lock; there only pointers that
// no program can have (the first page, the kernel's half) are refused here.
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
