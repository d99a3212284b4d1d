// copy_in and copy_out over the assembly.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/copy.h"

namespace zpoline {

bool copy_in(void* out, uint64_t address, size_t bytes) noexcept {
  return zps_engine_copy(out, reinterpret_cast<const void*>(address), bytes) == 0;
}

bool copy_out(uint64_t address, const void* value, size_t bytes) noexcept {
  return zps_engine_copy(reinterpret_cast<void*>(address), value, bytes) == 0;
}

}  // namespace zpoline
