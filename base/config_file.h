// Reads a flat TOML file and hands each setting on as text.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/result.h"

namespace base {

// One `name = value`, or one value of `name = [value, ...]`. Strings come without their quotes, numbers in decimal, booleans as "true" or
// "false".
struct FileSetting {
  const char* name;
  const char* value;
  bool quoted;
  int place;  // in the list; -1: it stands alone
  unsigned line;
};

// Calls `set(context, setting)` for each setting of `file`. Stops at the first error that `set` returns (an empty text is no error) and
// returns it. A file that does not exist holds no settings.
Error read_config_file(const char* file, void* context, Error (*set)(void* context, const FileSetting& setting) noexcept) noexcept;

}  // namespace base
