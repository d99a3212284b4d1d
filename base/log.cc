// The formatter and the writer behind log.h and check.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/log.h"

#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/syscall.h"
#include "base/unseen_stderr.h"

namespace base {
namespace {

LogLevel current_level = LogLevel::info;

constexpr const char* kLevelNames[] = {"error", "warn", "info", "debug"};

class LineWriter {
 public:
  LineWriter(char* out, size_t capacity) noexcept : out_(out), capacity_(capacity) {}

  void put(char c) noexcept {
    if (length_ + 1 < capacity_) out_[length_++] = c;
  }
  void put(const char* text) noexcept {
    while (*text != '\0') put(*text++);
  }
  void put_number(uint64_t value, unsigned radix, int width, char pad, bool negative) noexcept {
    char digits[24];
    int count = 0;
    do {
      digits[count++] = "0123456789abcdef"[value % radix];
      value /= radix;
    } while (value != 0);
    if (negative && pad == '0') put('-');
    for (int i = count + (negative ? 1 : 0); i < width; i++) put(pad);
    if (negative && pad != '0') put('-');
    while (count > 0) put(digits[--count]);
  }
  size_t finish() noexcept {
    if (capacity_ > 0) out_[length_] = '\0';
    return length_;
  }

 private:
  char* out_;
  size_t capacity_;
  size_t length_ = 0;
};

}  // namespace

void set_log_level(LogLevel level) noexcept { current_level = level; }

LogLevel log_level() noexcept { return current_level; }

bool parse_log_level(const char* name, LogLevel* out) noexcept {
  for (int i = 0; i < 4; i++) {
    if (strcmp(name, kLevelNames[i]) == 0) {
      *out = static_cast<LogLevel>(i);
      return true;
    }
  }
  return false;
}

size_t format_line(char* out, size_t capacity, const char* format, va_list arguments) noexcept {
  LineWriter writer(out, capacity);
  for (const char* p = format; *p != '\0'; p++) {
    if (*p != '%') {
      writer.put(*p);
      continue;
    }
    p++;
    char pad = ' ';
    int width = 0;
    int longs = 0;
    if (*p == '0') pad = *p++;
    while (*p >= '0' && *p <= '9') width = width * 10 + (*p++ - '0');
    while (*p == 'l' || *p == 'z') longs++, p++;
    switch (*p) {
      case 's': {
        const char* text = va_arg(arguments, const char*);
        writer.put(text != nullptr ? text : "(null)");
        break;
      }
      case 'c': writer.put(static_cast<char>(va_arg(arguments, int))); break;
      case 'd': {
        const int64_t value = longs > 0 ? va_arg(arguments, long) : va_arg(arguments, int);
        writer.put_number(value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value), 10, width, pad, value < 0);
        break;
      }
      case 'u':
      case 'x': {
        const uint64_t value = longs > 0 ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned);
        writer.put_number(value, *p == 'x' ? 16 : 10, width, pad, false);
        break;
      }
      case 'p':
        writer.put("0x");
        writer.put_number(reinterpret_cast<uint64_t>(va_arg(arguments, void*)), 16, 0, ' ', false);
        break;
      case '\0': return writer.finish();
      default: writer.put(*p);
    }
  }
  return writer.finish();
}

void log(LogLevel level, const char* format, ...) noexcept {
  if (level > current_level) return;
  constexpr char kPrefix[] = "zpstack: ";
  char line[512];
  memcpy(line, kPrefix, sizeof kPrefix - 1);
  va_list arguments;
  va_start(arguments, format);
  size_t length = sizeof kPrefix - 1;
  length += format_line(line + length, sizeof line - length - 1, format, arguments);
  va_end(arguments);
  line[length++] = '\n';
  (void)kernel_call(SYS_write, 2, as_arg(line), static_cast<long>(length));
  if (level == LogLevel::error && stderr_is_unseen()) send_to_syslog(line, length - 1);
}

void check_failed(const char* condition, const char* file, int line) noexcept {
  log(LogLevel::error, "internal error: %s:%d: %s", file, line, condition);
  const long pid = kernel_call(SYS_getpid);
  const long tid = kernel_call(SYS_gettid);
  (void)kernel_call(SYS_tgkill, pid, tid, 6 /* SIGABRT */);
  __builtin_trap();
}

}  // namespace base
