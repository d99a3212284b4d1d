// Copies between the engine and the program's memory, where the program's pointer may be bad.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {
// 0 or -EFAULT. A fault between begin and end resumes at fault (signals.cc). General registers only.
long zps_engine_copy(void* to, const void* from, size_t bytes) noexcept;
extern const char zps_engine_copy_begin[], zps_engine_copy_end[], zps_engine_copy_fault[];
}

namespace zpoline {

// Reads `bytes` of the program's memory at `address`; false if it is not all there. SIGSEGV must not be blocked.
[[nodiscard]] bool copy_in(void* out, uint64_t address, size_t bytes) noexcept;
// Writes to the program's memory; false if it is not all there.
[[nodiscard]] bool copy_out(uint64_t address, const void* value, size_t bytes) noexcept;

}  // namespace zpoline
