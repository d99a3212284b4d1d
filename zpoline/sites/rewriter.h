// Turns proven sites into calls of the hook and keeps the table of what was rewritten.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "zpoline/sites/scanner.h"

namespace zpoline {


// Scans and rewrites nothing, now and later, but looks which code runs on small stacks.
void note_loaded_objects() noexcept;

// What else may be done about text that may not be written, or holds calls that cannot be proven: true if its system calls trap from now
// on, false if they go to the kernel.
using AfterFailure = bool (*)(uint64_t begin, uint64_t end);
// Scans and rewrites every object of the program's namespace that is loaded now, except libzpstack.so and the vDSO.
// An error leaves no site rewritten.
base::Result<bool> rewrite_loaded_objects(AfterFailure after_failure) noexcept;
// The same for a static program that was mapped, and has not begun; `program.dlpi_name` is its file. 0 or what mprotect said.
long rewrite_static_program(const dl_phdr_info& program, AfterFailure after_failure) noexcept;
// Scans and rewrites the objects that were loaded since; false if there are none. For calls that ld.so makes during dlopen.
bool rewrite_new_objects(AfterFailure after_failure) noexcept;

// The begin of the lowest scanned text above `address`, at most `limit`.
[[nodiscard]] uint64_t first_text_above(uint64_t address, uint64_t limit) noexcept;

// Forgets the sites and objects in [begin, end): the program unmapped that memory.
void forget_sites(uint64_t begin, uint64_t end) noexcept;

// True if `address` is the return address of a rewritten site.
[[nodiscard]] bool is_return_address(uint64_t address) noexcept;

// hlt, in place of a system call's first byte: faults, and the handler of the fault makes the call (signals.cc).
inline constexpr uint8_t kTrap = 0xf4;

// For tests: what would be done with a site.
enum class Verdict { jump, call, trap, native_unclaimed, native_other };
[[nodiscard]] Verdict judge(const Site& site) noexcept;

// In the child of a fork: the lock's holder may be a thread that this process does not have.
void reset_rewriter_lock() noexcept;

}  // namespace zpoline
