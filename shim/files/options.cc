// The placeholder's side of the options.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/options.h"

#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/placeholders.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

}  // namespace

// What sk_clone_lock() and tcp_create_openreq_child() do not hand on. What the stack tells needs no placeholder.
bool is_inherited(const OptionRow& row) noexcept {
  if (row.kind == OptionKind::sharing) return false;
  if (row.level == SOL_SOCKET) return row.name != SO_PRIORITY && row.name != SO_INCOMING_CPU;
  if (row.level == IPPROTO_TCP) return row.name != TCP_DEFER_ACCEPT && row.name != TCP_FASTOPEN;
  return row.level != IPPROTO_IP || row.name != IP_OPTIONS;
}

bool read_placeholder_option(int fd, const OptionRow& row, int* value) noexcept {
  struct linger linger{};
  socklen_t bytes = sizeof linger;
  switch (row.kind) {
    case OptionKind::integer:
    case OptionKind::sharing:
    case OptionKind::low_water:
    case OptionKind::segment_size:
      *value = placeholder_int(fd, row.level, row.name);
      return true;
    case OptionKind::half:
      *value = placeholder_int(fd, row.level, row.name) / 2;
      return true;
    case OptionKind::linger:
      if (kernel_call(SYS_getsockopt, fd, row.level, row.name, as_arg(&linger), as_arg(&bytes)) != 0) return false;
      *value = linger.l_onoff != 0 ? linger.l_linger : -1;
      return true;
    default: return false;
  }
}

StreamOptions read_placeholder_options(int fd, const OptionSet& set) noexcept {
  StreamOptions options;
  set.for_each([&](const OptionRow& row) {
    int value = 0;
    if (options.count == StreamOptions::kCapacity || !read_placeholder_option(fd, row, &value)) return;
    options.values[options.count++] = {row.option, value};
  });
  return options;
}

void apply_options(netstack::TcpStream* stream, const StreamOptions& options) noexcept {
  for (int i = 0; i < options.count; i++) (void)stream->set_option(options.values[i].option, options.values[i].value);
}

void apply_options(netstack::TcpListener* listener, const StreamOptions& options) noexcept {
  for (int i = 0; i < options.count; i++) (void)listener->set_option(options.values[i].option, options.values[i].value);
}

void inherit_options(int from_fd, int to_fd, const OptionSet& set) noexcept {
  set.for_each([&](const OptionRow& row) {
    if (!is_inherited(row)) return;
    char value[32];
    socklen_t bytes = sizeof value;
    if (kernel_call(SYS_getsockopt, from_fd, row.level, row.name, as_arg(value), as_arg(&bytes)) != 0) return;
    if (row.kind == OptionKind::half) *reinterpret_cast<int*>(value) /= 2;
    (void)kernel_call(SYS_setsockopt, to_fd, row.level, row.name, as_arg(value), bytes);
    if (row.level == IPPROTO_IP && row.name == IP_TOS) {  // which sets a priority as well
      const int none = 0;
      (void)kernel_call(SYS_setsockopt, to_fd, SOL_SOCKET, SO_PRIORITY, as_arg(&none), sizeof none);
    }
  });
}

void restore_held_options(int fd, Socket* socket) noexcept {
  for (const OptionRow& row : option_rows()) {
    int value = 0;
    if (!is_held_by_stream(row) || (socket->held_options & option_bit(row.option)) == 0) continue;
    if (socket->stream->get_option(row.option, &value) != 0) continue;
    if (kernel_call(SYS_setsockopt, fd, row.level, row.name, as_arg(&value), sizeof value) == 0) socket->options_set.add(index_of(row));
  }
  if (socket->held_options != 0) spoil_placeholder(socket);
  socket->held_options = 0;
}

OptionSet options_set_of(int fd) noexcept {
  Guard guard;
  const Socket* socket = socket_at(fd);
  return socket == nullptr ? OptionSet{} : socket->options_set;
}

ArrivalControl read_arrival_control(int fd) noexcept {
  constexpr int kSoftware = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE;
  ArrivalControl control;
  control.inq = placeholder_int(fd, IPPROTO_TCP, TCP_INQ) != 0;
  for (const int name : {SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW}) {
    if (placeholder_int(fd, SOL_SOCKET, name) != 0) control.timestamp_type = static_cast<uint8_t>(name);
  }
  for (const int name : {SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW}) {
    if ((placeholder_int(fd, SOL_SOCKET, name) & kSoftware) == kSoftware) control.timestamping = static_cast<uint8_t>(name);
  }
  return control;
}

int placeholder_int(int fd, int level, int name) noexcept {
  int value = 0;
  socklen_t bytes = sizeof value;
  return kernel_call(SYS_getsockopt, fd, level, name, as_arg(&value), as_arg(&bytes)) == 0 ? value : 0;
}

bool placeholder_is_v6_only(int fd, int domain) noexcept {
  return domain == AF_INET6 && placeholder_int(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 0;
}

void end_v4(int fd) noexcept {
  const int on = 1;
  (void)kernel_call(SYS_setsockopt, fd, IPPROTO_IPV6, IPV6_V6ONLY, as_arg(&on), sizeof on);
}

void set_placeholder_nonblocking(int fd) noexcept {
  const long flags = kernel_call(SYS_fcntl, fd, F_GETFL);
  if (flags >= 0) (void)kernel_call(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
}

}  // namespace shim
