// Reads two files of /proc/sys/net/ipv4.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/local_ports.h"

#include <fcntl.h>

#include "base/syscall.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::LocalPorts;

netstack::LocalPorts ports;

// The file's text with its end, which is cut if it is long; false if it cannot be read.
template <int N>
bool read_text(const char* path, char (&out)[N]) noexcept {
  const long fd = kernel_call(SYS_openat, AT_FDCWD, as_arg(path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const long bytes = kernel_call(SYS_read, fd, as_arg(out), N - 1);
  (void)kernel_call(SYS_close, fd);
  if (bytes < 0) return false;
  out[bytes] = '\0';
  return true;
}

// False if there is no number.
bool take_port(const char** at, uint16_t* out) noexcept {
  uint32_t value = 0;
  const char* const begin = *at;
  for (; **at >= '0' && **at <= '9'; (*at)++) value = value * 10 + static_cast<uint32_t>(**at - '0');
  *out = static_cast<uint16_t>(value);
  return *at != begin && value <= 65535;
}

// "32768	60999"
void parse_range(const char* text, LocalPorts::Range* out) noexcept {
  LocalPorts::Range range{};
  if (!take_port(&text, &range.first)) return;
  while (*text == ' ' || *text == '\t') text++;
  if (take_port(&text, &range.last) && range.first <= range.last) *out = range;
}

// "8080,9148,40000-40010"
void parse_reserved(const char* text, LocalPorts* out) noexcept {
  out->reserved_count = 0;
  LocalPorts::Range range{};
  while (out->reserved_count < LocalPorts::kMostReserved && take_port(&text, &range.first)) {
    range.last = range.first;
    if (*text == '-' && !take_port(&++text, &range.last)) return;
    out->reserved[out->reserved_count++] = range;
    if (*text == ',') text++;
  }
}

}  // namespace

const LocalPorts& read_local_ports() noexcept {
  char text[512];
  if (read_text("/proc/sys/net/ipv4/ip_local_port_range", text)) parse_range(text, &ports.range);
  if (read_text("/proc/sys/net/ipv4/ip_local_reserved_ports", text)) parse_reserved(text, &ports);
  return ports;
}

}  // namespace shim
