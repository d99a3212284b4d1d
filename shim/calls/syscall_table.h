// The table of the system calls the shim serves; dispatch, ledger and docs/syscalls.md come from it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>

#include "zpoline/hook.h"

namespace shim {

struct SyscallRow {
  int nr;
  const char* name;
  // One letter per argument: d descriptor, i int, x flags, p pointer, s string, z size, v iovec array, a address, t time.
  const char* arguments;
  long (*handler)(const zps_call& call) noexcept;
  long (*handler_with_page_zero)(const zps_call& call) noexcept;  // where the trampoline is mapped (page_zero_pointers.h)
  zps_claim claim;
  const char* note;  // what is served, for the documentation
};

struct SyscallRows {
  const SyscallRow* first;
  size_t count;
  [[nodiscard]] const SyscallRow* begin() const noexcept { return first; }
  [[nodiscard]] const SyscallRow* end() const noexcept { return first + count; }
};

[[nodiscard]] SyscallRows syscall_rows() noexcept;

}  // namespace shim
