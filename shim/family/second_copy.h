// This library once more in the same process, at another place.
// SPDX-License-Identifier: BSD-3-Clause
//
// Not by ld.so, which would bring a libc of its own along, allocate with the program's malloc(), and wait for a lock that the program may
// hold around this very call (netstack/lwip/image_loader.cc has the essay). What the copy refers to outside of itself it has from the one
// that ld.so has loaded: the linker's tables tell which words those are, and they hold the same addresses there. Its constructors run; its
// variables begin as in any program.
//
// Known limits: ld.so does not know it (dladdr(), dl_iterate_phdr()), nor does a debugger; it is never unmapped.
#pragma once

#include <cstdint>

namespace shim {

// nullptr, or why it cannot be. In the only thread.
[[nodiscard]] const char* map_second_copy(uintptr_t place) noexcept;

}  // namespace shim
