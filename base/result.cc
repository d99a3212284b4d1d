// Formats start-up errors.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/result.h"

#include <cstdarg>

#include "base/log.h"

namespace base {

Error make_error(const char* format, ...) noexcept {
  Error error;
  va_list arguments;
  va_start(arguments, format);
  (void)format_line(error.text, sizeof error.text, format, arguments);
  va_end(arguments);
  return error;
}

}  // namespace base
