// Which build an object in memory is of.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace base {

// What the linker wrote (NT_GNU_BUILD_ID, a hash of all that it put in); zeros if it wrote none.
struct BuildId {
  uint8_t bytes[20] = {};
  [[nodiscard]] bool operator==(const BuildId&) const noexcept = default;
  [[nodiscard]] bool is_known() const noexcept { return *this != BuildId{}; }
};

// Of the object whose ELF header lies here.
[[nodiscard]] BuildId build_id_of(const void* header) noexcept;

}  // namespace base
