// One-line messages on stderr with raw writes: no malloc, no stdio, no lock, async-signal-safe.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdarg>
#include <cstddef>

namespace base {

enum class LogLevel { error, warn, info, debug };

// What is printed is `level` and above. Default: info.
void set_log_level(LogLevel level) noexcept;
[[nodiscard]] LogLevel log_level() noexcept;

// Parses "error", "warn", "info" or "debug"; false (and no change) for anything else.
[[nodiscard]] bool parse_log_level(const char* name, LogLevel* out) noexcept;

// Formats like printf for the conversions %s %d %u %x %c %p %% with the length modifiers l, ll and z, plus
// field width and zero padding for numbers. Always terminates; returns the length without the terminator.
size_t format_line(char* out, size_t capacity, const char* format, va_list arguments) noexcept;

// Writes "zpstack: <text>\n" to stderr if `level` is enabled; errors also to the system's log where nobody sees that. Lines over 500 bytes
// are cut.
[[gnu::format(printf, 2, 3)]] void log(LogLevel level, const char* format, ...) noexcept;

}  // namespace base
