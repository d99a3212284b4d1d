// Whether the program that an exec makes of this process will have the engine, as far as its file tells.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "zpoline/hook.h"

namespace zpoline {

// What a program is executed as: nullptr if ld.so will load this library into it, or why it will not. `library` is libzpstack.so's path.
[[nodiscard]] const char* is_out_of_reach(const zps_call& call, const char* library) noexcept;

}  // namespace zpoline
