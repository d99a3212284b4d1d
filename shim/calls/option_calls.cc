// getsockopt and setsockopt by the option table.
#include <netinet/in.h>
#include <linux/tcp.h>  // as netstack/: the C library's tcp_info is shorter
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <utility>

#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/family/family.h"
#include "shim/calls/ledger.h"
#include "shim/files/fd_table.h"
#include "shim/files/epoll_file.h"
#include "shim/files/options.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

bool said_get = false;
bool said_set = false;

// A timeout that the placeholder has accepted from `user`. In the kernel's grain, if there is one; what it tells of a negative one (do not
// wait) is what it tells of none: sock_set_timeout(), sock_get_timeout().
uint64_t accepted_timeout_ns(int fd, int name, const void* user) noexcept {
  constexpr int64_t kMostSeconds = INT64_MAX / 1'000'000'000 - 1;
  timeval value{};
  if (copy_in(&value, user, sizeof value) == 0 && value.tv_sec < 0) return 0;
  socklen_t bytes = sizeof value;
  if (kernel_call(SYS_getsockopt, fd, SOL_SOCKET, name, as_arg(&value), as_arg(&bytes)) != 0) return kForever;
  if (value.tv_sec == 0 && value.tv_usec == 0) return kForever;
  if (value.tv_sec > kMostSeconds) value.tv_sec = kMostSeconds;
  return static_cast<uint64_t>(value.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(value.tv_usec) * 1000u;
}

// Writes `bytes` of a value as getsockopt does: cut to the room there is.
long put_value(const zps_call& call, const void* value, socklen_t bytes) noexcept {
  void* user = reinterpret_cast<void*>(call.arg[3]);
  socklen_t* user_bytes = reinterpret_cast<socklen_t*>(call.arg[4]);
  socklen_t room;
  if (long error = copy_in(&room, user_bytes, sizeof room); error != 0) return error;
  if (static_cast<int>(room) < 0) return -EINVAL;
  if (room < bytes) bytes = room;
  if (long error = copy_out(user, value, bytes); error != 0) return error;
  return copy_out(user_bytes, &bytes, sizeof bytes);
}

long put_int(const zps_call& call, int value) noexcept { return put_value(call, &value, sizeof value); }

// SO_RCVTIMEO_NEW and SO_SNDTIMEO_NEW say the same as the old ones where time_t has 64 bits.
int old_name(int level, int name) noexcept {
  if (level != SOL_SOCKET) return name;
  return name == SO_RCVTIMEO_NEW ? SO_RCVTIMEO : name == SO_SNDTIMEO_NEW ? SO_SNDTIMEO : name;
}

// sk_setsockopt() calls sk_write_space(): an edge for who waits to write, whether there is more room or not.
void announce_space(Socket* socket) noexcept {
  netstack::Pollable* source = file_pollable(socket);
  if (source == nullptr) return;
  for (netstack::Observer* observer = source->observers.front(); observer != nullptr; observer = source->observers.after(observer)) {
    observer->on_ready(*source, EPOLLOUT | EPOLLWRNORM);
  }
}

// Brings a value that the placeholder has accepted to the stack's endpoint.
long follow(int fd, const OptionRow& row, int index, const void* user) noexcept {
  int value = 0;
  const bool for_stack = read_placeholder_option(fd, row, &value);
  const uint64_t timeout_ns =
      row.kind == OptionKind::receive_timeout || row.kind == OptionKind::send_timeout ? accepted_timeout_ns(fd, row.name, user) : kForever;
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return 0;
  socket->options_set |= uint64_t{1} << index;
  if (row.kind == OptionKind::receive_timeout) socket->receive_timeout_ns = timeout_ns;
  if (row.kind == OptionKind::send_timeout) socket->send_timeout_ns = timeout_ns;
  if (row.option == netstack::TcpOption::receive_low_water) socket->receive_low_water = static_cast<uint32_t>(value);
  if (row.kind == OptionKind::half && row.option == netstack::TcpOption::send_buffer_bytes) announce_space(socket);
  if (!for_stack) return 0;
  if (socket->stream != nullptr) return socket->stream->set_option(row.option, value);
  if (socket->listener != nullptr) return socket->listener->set_option(row.option, value);
  return 0;
}

}  // namespace

long shim_setsockopt(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr) return kPass;
  const int level = static_cast<int>(call.arg[1]);
  const int name = old_name(level, static_cast<int>(call.arg[2]));
  SocketState state;
  bool has_port;
  {
    Guard guard;
    const Socket* socket = socket_at(fd);
    if (socket == nullptr) return kPass;
    state = socket->state;
    has_port = socket->domain == AF_INET6 && state == SocketState::stream && (socket->stream->connected() || socket->stream->connecting());
  }
  const int index = find_option(level, name);
  if (index < 0) {
    if (state == SocketState::undecided || state == SocketState::listening) return kPass;
    log_once(&said_set, "setsockopt option %ld is not supported on the stack's sockets", name);
    return -ENOPROTOOPT;
  }
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && has_port) return -EINVAL;  // ipv6_setsockopt(); the placeholder may have none
  const long result = kernel_call(SYS_setsockopt, fd, level, call.arg[2], call.arg[3], call.arg[4]);
  if (result != 0) return result;
  return follow(fd, option_rows().first[index], index, reinterpret_cast<const void*>(call.arg[3]));
}

long shim_getsockopt(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr) return kPass;
  const int level = static_cast<int>(call.arg[1]);
  const int name = old_name(level, static_cast<int>(call.arg[2]));
  const int index = find_option(level, name);
  int value = 0;
  tcp_info info{};
  bool is_info = false;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr || socket->state == SocketState::undecided) return kPass;
    if (index < 0) {
      if (socket->state == SocketState::listening) return kPass;
      log_once(&said_get, "getsockopt option %ld is not supported on the stack's sockets", name);
      return -ENOPROTOOPT;
    }
    const OptionRow& row = option_rows().first[index];
    switch (row.kind) {
      case OptionKind::error: value = socket->stream != nullptr ? socket->stream->take_error() : std::exchange(socket->error, 0); break;
      case OptionKind::listening: value = socket->state == SocketState::listening ? 1 : 0; break;
      case OptionKind::info:
        if (socket->stream == nullptr) return kPass;
        socket->stream->info(&info);
        is_info = true;
        break;
      case OptionKind::from_stack:
        if (socket->stream == nullptr || socket->stream->get_option(row.option, &value) != 0) return kPass;
        break;
      default: return kPass;
    }
  }
  return is_info ? put_value(call, &info, sizeof info) : put_int(call, value);
}

}  // namespace shim
