// Reads a flat TOML file and hands each setting on as text.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/result.h"

namespace base {

// Calls `set(context, name, value)` for each `name = value` of `file`; strings come without their quotes (`quoted` then), numbers in
// decimal, booleans as "true" or "false". Stops at the first error that `set` returns (an empty text is no error) and
// returns it. A file that does not exist holds no settings.
Error read_config_file(const char* file, void* context,
                       Error (*set)(void* context, const char* name, const char* value, bool quoted) noexcept) noexcept;

}  // namespace base
