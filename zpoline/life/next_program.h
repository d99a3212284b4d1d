// Whether the program that an exec makes of this process will have the engine, as far as its file tells.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>

#include "zpoline/hook.h"

namespace zpoline {

// What a program is executed as: nullptr if it will have this library, or why it will not. `library` is libzpstack.so's path;
// `reaches_static`: static programs are run with it as well (run_static_programs()).
[[nodiscard]] const char* is_out_of_reach(const zps_call& call, const char* library, bool reaches_static) noexcept;
// True if the call executes a static program that may be, and has no rights of its own; its path, at most `capacity` bytes.
[[nodiscard]] bool names_static_program(const zps_call& call, char* path, size_t capacity) noexcept;

}  // namespace zpoline
