// Page 0: the landing place of `call *%rax`, for every number a program may hold in rax.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/result.h"

namespace zpoline {

inline constexpr uint64_t kSledBytes = 512;
inline constexpr uint64_t kPageBytes = 4096;

// Where exits lead: a page of indirect jumps, and behind it their table, one address per number.
inline constexpr uint64_t kLandingPage = 0x6cf4f000;
inline constexpr uint64_t kDispatchTable = kLandingPage + kPageBytes;

// Numbers in this range have no system call; exits stand here, and bytes that fault.
inline constexpr uint64_t kFreeNumbersBegin = 337;
inline constexpr uint64_t kFreeNumbersEnd = 424;

// Writes the sled and its landing zone to `page` (kPageBytes long); the code is meant for address 0 whatever `page` is.
// Pure: tests read what it writes.
void write_sled(uint8_t* page) noexcept;

// Whether the kernel lets this process map page 0 now. Nothing stays mapped.
base::Result<bool> page_zero_is_free() noexcept;

// Maps page 0 and what its exits lead to: number n goes on at dispatch[n] (ZPS_DISPATCH_SLOTS entries). All of it is read-only and
// page 0 and the landing page executable when it returns. The error names what the kernel refused and how to mend it.
base::Result<bool> map_page_zero(const void* const* dispatch) noexcept;

}  // namespace zpoline
