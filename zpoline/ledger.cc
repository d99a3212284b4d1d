// Prints the counts of engine.h with raw writes.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/ledger.h"

#include <cstdarg>

#include "base/log.h"
#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/trap.h"

namespace zpoline {
namespace {

[[gnu::format(printf, 2, 3)]] void print_line(int fd, const char* format, ...) noexcept {
  char line[200];
  va_list arguments;
  va_start(arguments, format);
  const size_t length = base::format_line(line, sizeof line, format, arguments);
  va_end(arguments);
  (void)base::kernel_call(SYS_write, fd, base::as_arg(line), static_cast<long>(length));
}

}  // namespace

void print_ledger(int fd) {
  print_line(fd, "engine: mode %s, started in %llu us\n", mode_name(), static_cast<unsigned long long>(counts.startup_ns / 1000));
  print_line(fd, "engine: %zu objects, %zu of them loaded late; %zu byte pairs, %zu system calls\n", counts.objects, counts.late_objects,
             counts.pairs, counts.sites);
  print_line(fd, "engine: %zu near jumps, %zu calls, %zu traps, %zu left because nobody claims their number, %zu other\n", counts.jumped,
             counts.called, counts.trapped, counts.native, counts.other);
  if (is_dispatching()) {
    print_line(fd, "engine: %llu calls caught by Syscall User Dispatch\n", static_cast<unsigned long long>(counts.dispatched));
  }
}

}  // namespace zpoline
