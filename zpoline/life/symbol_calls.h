// Functions that stand in for libc's and are more than a system call.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace zpoline {

struct Symbol {
  const char* name;
  const void* function;
  int64_t nr;  // that it makes; -1: any
};

// Ends with a row without a name.
[[nodiscard]] const Symbol* symbol_calls() noexcept;
// At start; false if libc has no key for it.
[[nodiscard]] bool prepare_symbol_calls() noexcept;
// The program ends by exit(): the hook's part.
void end_with_symbols() noexcept;

}  // namespace zpoline
