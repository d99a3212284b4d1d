// Page 0: the landing place of `call *%rax`, for every number a program may hold in rax.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace zpoline {

inline constexpr uint64_t kSledBytes = 512;
inline constexpr uint64_t kPageBytes = 4096;

// Writes the sled and its landing zone to `page` (kPageBytes long). `jump` is the displacement that every exit uses
// (exit_displacement()); the code is written for address 0 whatever `page` is. Pure: tests read what it writes.
void write_sled(uint8_t* page, int32_t jump) noexcept;

// Maps page 0 and the page its exits lead to, fills both and makes them read + execute. The error names what the
// kernel refused and how to mend it.
base::Result<bool> map_page_zero(const void* entry) noexcept;

}  // namespace zpoline
