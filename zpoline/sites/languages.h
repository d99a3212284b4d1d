// What the language of a program does that not every mode of the engine can live with.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace zpoline {

// What in this program leaves its null checks to the fault of a read near NULL ("Java", "Go"), or nullptr if nothing is known to. Looks at
// the objects that are loaded now.
[[nodiscard]] const char* relies_on_null_faults() noexcept;

// True if Go's note is among those in [at, end).
[[nodiscard]] bool has_go_note(uint64_t at, uint64_t end) noexcept;

// True if the program sets the thread pointer itself and makes threads without libc's, as a static one does.
[[nodiscard]] bool leaves_thread_pointer() noexcept;

}  // namespace zpoline
