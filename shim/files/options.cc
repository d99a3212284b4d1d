// The option table and the placeholder's side of it.
#include "shim/files/options.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::TcpOption;

constexpr TcpOption kNone = TcpOption::nodelay;

#define ROW(level, name, kind, option, note) {level, name, #name, OptionKind::kind, option, note}

constexpr OptionRow kRows[] = {
    ROW(SOL_SOCKET, SO_REUSEADDR, stored, kNone, "kept; bind() on the kernel's side honours it"),
    ROW(SOL_SOCKET, SO_REUSEPORT, stored, kNone, "honoured by listen() on both sides"),
    ROW(SOL_SOCKET, SO_KEEPALIVE, integer, TcpOption::keepalive, ""),
    ROW(SOL_SOCKET, SO_LINGER, linger, TcpOption::linger_s, "close() waits; dup2(), close_range() and exit() do not"),
    ROW(SOL_SOCKET, SO_RCVBUF, half, TcpOption::receive_buffer_bytes, "reported doubled; the window has room for two incoming segments at least"),
    ROW(SOL_SOCKET, SO_SNDBUF, half, TcpOption::send_buffer_bytes, "reported doubled"),
    ROW(SOL_SOCKET, SO_RCVTIMEO, receive_timeout, kNone, ""),
    ROW(SOL_SOCKET, SO_SNDTIMEO, send_timeout, kNone, ""),
    ROW(SOL_SOCKET, SO_ERROR, error, kNone, "one-shot"),
    ROW(SOL_SOCKET, SO_ACCEPTCONN, listening, kNone, ""),
    ROW(SOL_SOCKET, SO_TYPE, stored, kNone, ""),
    ROW(SOL_SOCKET, SO_DOMAIN, stored, kNone, ""),
    ROW(SOL_SOCKET, SO_PROTOCOL, stored, kNone, ""),
    ROW(SOL_SOCKET, SO_BROADCAST, stored, kNone, "no meaning for TCP"),
    ROW(SOL_SOCKET, SO_OOBINLINE, stored, kNone, "urgent data is not received"),
    ROW(SOL_SOCKET, SO_PRIORITY, stored, kNone, "kept, not used"),
    ROW(SOL_SOCKET, SO_MARK, stored, kNone, "kept, not used"),
    ROW(SOL_SOCKET, SO_RCVLOWAT, integer, TcpOption::receive_low_water, "at most half of the window"),
    ROW(SOL_SOCKET, SO_BUSY_POLL, stored, kNone, "kept, not used: waits poll by themselves"),
    ROW(SOL_SOCKET, SO_INCOMING_CPU, stored, kNone, "kept, not used"),
    ROW(SOL_SOCKET, SO_COOKIE, stored, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_BINDTODEVICE, stored, kNone, "kept, not used: the wire is the device"),
    ROW(IPPROTO_TCP, TCP_NODELAY, integer, TcpOption::nodelay, ""),
    ROW(IPPROTO_TCP, TCP_CORK, integer, TcpOption::cork, ""),
    ROW(IPPROTO_TCP, TCP_KEEPIDLE, integer, TcpOption::keepidle_s, ""),
    ROW(IPPROTO_TCP, TCP_KEEPINTVL, integer, TcpOption::keepintvl_s, ""),
    ROW(IPPROTO_TCP, TCP_KEEPCNT, integer, TcpOption::keepcnt, ""),
    ROW(IPPROTO_TCP, TCP_USER_TIMEOUT, integer, TcpOption::user_timeout_ms, ""),
    ROW(IPPROTO_TCP, TCP_MAXSEG, from_stack, TcpOption::max_segment, "the connection's true value"),
    ROW(IPPROTO_TCP, TCP_QUICKACK, integer, TcpOption::quickack, ""),
    ROW(IPPROTO_TCP, TCP_INFO, info, kNone, "true figures of the stack"),
    ROW(IPPROTO_TCP, TCP_CONGESTION, stored, kNone, "kept; the stack has one algorithm"),
    ROW(IPPROTO_TCP, TCP_DEFER_ACCEPT, stored, kNone, "kept; accept() returns at once"),
    ROW(IPPROTO_TCP, TCP_SYNCNT, stored, kNone, "kept, not used"),
    ROW(IPPROTO_TCP, TCP_LINGER2, stored, kNone, "kept, not used"),
    ROW(IPPROTO_TCP, TCP_WINDOW_CLAMP, stored, kNone, "kept, not used"),
    ROW(IPPROTO_TCP, TCP_NOTSENT_LOWAT, stored, kNone, "kept, not used"),
    ROW(IPPROTO_IP, IP_TOS, integer, TcpOption::tos, ""),
    ROW(IPPROTO_IP, IP_TTL, integer, TcpOption::ttl, ""),
    ROW(IPPROTO_IP, IP_MTU_DISCOVER, stored, kNone, "kept, not used"),
    ROW(IPPROTO_IP, IP_RECVERR, stored, kNone, "kept; the error queue is always empty"),
    ROW(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, stored, kNone, "kept, not used"),
    ROW(IPPROTO_IPV6, IPV6_V6ONLY, stored, kNone, "1 makes a listener the kernel's"),
    ROW(IPPROTO_IPV6, IPV6_TCLASS, integer, TcpOption::tos, ""),
    ROW(IPPROTO_IPV6, IPV6_UNICAST_HOPS, stored, kNone, "kept, not used"),
    ROW(IPPROTO_IPV6, IPV6_RECVERR, stored, kNone, "kept; the error queue is always empty"),
};

#undef ROW

constexpr int kRowCount = sizeof kRows / sizeof kRows[0];
static_assert(kRowCount <= 64, "Socket::options_set has a bit per row");

}  // namespace

OptionRows option_rows() noexcept { return {kRows, kRowCount}; }

int find_option(int level, int name) noexcept {
  for (int i = 0; i < kRowCount; i++) {
    if (kRows[i].level == level && kRows[i].name == name) return i;
  }
  return -1;
}

bool read_placeholder_option(int fd, const OptionRow& row, int* value) noexcept {
  struct linger linger{};
  socklen_t bytes = sizeof linger;
  switch (row.kind) {
    case OptionKind::integer:
    case OptionKind::from_stack:
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

StreamOptions read_placeholder_options(int fd, uint64_t set) noexcept {
  StreamOptions options;
  for (; set != 0 && options.count < StreamOptions::kCapacity; set &= set - 1) {
    const OptionRow& row = kRows[__builtin_ctzll(set)];
    int value = 0;
    if (read_placeholder_option(fd, row, &value)) options.values[options.count++] = {row.option, value};
  }
  return options;
}

void apply_options(netstack::TcpStream* stream, const StreamOptions& options) noexcept {
  for (int i = 0; i < options.count; i++) (void)stream->set_option(options.values[i].option, options.values[i].value);
}

void apply_options(netstack::TcpListener* listener, const StreamOptions& options) noexcept {
  for (int i = 0; i < options.count; i++) (void)listener->set_option(options.values[i].option, options.values[i].value);
}

void inherit_options(int from_fd, int to_fd, uint64_t set) noexcept {
  for (; set != 0; set &= set - 1) {
    const OptionRow& row = kRows[__builtin_ctzll(set)];
    if (row.name == SO_REUSEADDR && row.level == SOL_SOCKET) continue;
    char value[32];
    socklen_t bytes = sizeof value;
    if (kernel_call(SYS_getsockopt, from_fd, row.level, row.name, as_arg(value), as_arg(&bytes)) != 0) continue;
    if (row.kind == OptionKind::half) *reinterpret_cast<int*>(value) /= 2;
    (void)kernel_call(SYS_setsockopt, to_fd, row.level, row.name, as_arg(value), bytes);
  }
}

uint64_t options_set_of(int fd) noexcept {
  Guard guard;
  const Socket* socket = socket_at(fd);
  return socket == nullptr ? 0 : socket->options_set;
}

int placeholder_int(int fd, int level, int name) noexcept {
  int value = 0;
  socklen_t bytes = sizeof value;
  return kernel_call(SYS_getsockopt, fd, level, name, as_arg(&value), as_arg(&bytes)) == 0 ? value : 0;
}

bool placeholder_is_v6_only(int fd) noexcept { return placeholder_int(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 0; }

void set_placeholder_nonblocking(int fd) noexcept {
  const long flags = kernel_call(SYS_fcntl, fd, F_GETFL);
  if (flags >= 0) (void)kernel_call(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
}

}  // namespace shim
