// getsockopt and setsockopt by the option table.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>  // as netstack/: the C library's tcp_info is shorter
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <atomic>
#include <climits>
#include <utility>

#include "base/log.h"
#include "base/syscall.h"
#include "shim/files/address.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/calls/page_zero_pointers.h"
#include "shim/family/family.h"
#include "shim/calls/ledger.h"
#include "shim/files/async_io.h"
#include "shim/files/fd_table.h"
#include "shim/files/epoll_file.h"
#include "shim/files/options.h"
#include "shim/files/placeholders.h"
#include "shim/files/ports.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// setsockopt() takes NULL for no value where it has no length, and IPv6 takes it for zero, but in three options: do_ipv6_setsockopt().
// The hook has moved it out of page 0 (page_zero_pointers.h).
bool has_no_value(const zps_call& call) noexcept {
  if (call.arg[3] != kPageZeroEnd || !page_zero_is_hooks()) return false;
  if (static_cast<int>(call.arg[4]) == 0) return true;
  const int name = static_cast<int>(call.arg[2]);
  const bool is_followed = name == IPV6_2292PKTOPTIONS || name == IPV6_IPSEC_POLICY || name == IPV6_XFRM_POLICY;
  return static_cast<int>(call.arg[1]) == IPPROTO_IPV6 && !is_followed;
}

// What was refused is said once per option.
void say_refused(const OptionRow& row) noexcept {
  static std::atomic<bool> said[OptionSet::kCapacity];
  if (said[index_of(row)].exchange(true, std::memory_order_relaxed)) return;
  const char* const format = "socket option %s (level %d) is not supported on the stack's sockets: %s";
  base::log(base::LogLevel::warn, format, row.label, row.level, row.note);
}

// The same for options that the table does not know: the kernel does.
void say_unknown(int level, int name) noexcept {
  constexpr int kMost = 16;
  static std::atomic<uint64_t> said[kMost];
  const uint64_t option = uint64_t{static_cast<uint32_t>(level)} << 32 | static_cast<uint32_t>(name);
  for (std::atomic<uint64_t>& place : said) {
    uint64_t there = 0;
    if (place.compare_exchange_strong(there, option, std::memory_order_relaxed)) {
      base::log(base::LogLevel::warn, "socket option %d (level %d) is not supported on the stack's sockets", name, level);
      return;
    }
    if (there == option) return;
  }
}

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

// The room that getsockopt() has for a value; -EFAULT, or -EINVAL for one below zero, which IPv6 takes for a large one.
long room_for_value(const zps_call& call) noexcept {
  int room;
  if (long error = copy_in(&room, reinterpret_cast<void*>(call.arg[4]), sizeof room); error != 0) return error;
  if (room >= 0) return room;
  return static_cast<int>(call.arg[1]) == IPPROTO_IPV6 ? INT_MAX : -EINVAL;
}

// Writes `bytes` of a value as getsockopt does: cut to the room there is. IPv4 makes a byte of a small int that does not fit.
long put_value(const zps_call& call, long room, const unsigned char* value, socklen_t bytes) noexcept {
  const bool is_small = bytes == sizeof(int) && (value[1] | value[2] | value[3]) == 0;
  if (room < static_cast<long>(bytes)) bytes = room > 0 && is_small && call.arg[1] == IPPROTO_IP ? 1 : static_cast<socklen_t>(room);
  if (long error = copy_out(reinterpret_cast<void*>(call.arg[3]), value, bytes); error != 0) return error;
  return copy_out(reinterpret_cast<void*>(call.arg[4]), &bytes, sizeof bytes);
}

// SO_SNDBUF and TCP_NOTSENT_LOWAT call sk_write_space(): an edge for who waits to write, whether there is more room or not.
void announce_space(Socket* socket) noexcept {
  const MutedNotice muted(socket);
  netstack::Pollable* source = file_pollable(socket);
  if (source == nullptr) return;
  for (netstack::Observer* observer = source->observers.front(); observer != nullptr; observer = source->observers.after(observer)) {
    observer->on_ready(*source, EPOLLOUT | EPOLLWRNORM);
  }
}

// What accepted sockets show is not what others before them have shown.
void options_are_changing(Socket* socket, const OptionRow* row) noexcept {
  spoil_placeholder(socket);
  if (row != nullptr && is_inherited(*row)) socket->options_stamp = ++family->option_stamps;
}

// Brings a value that the placeholder has accepted to the stack's endpoint.
long follow(int fd, const OptionRow& row, const void* user) noexcept {
  int value = 0;
  const bool for_stack = read_placeholder_option(fd, row, &value);
  if (for_stack && row.option == netstack::TcpOption::reuse_port && value != 0) note_owner(fd);
  // A limit that is taken back: the placeholder shows its own default.
  const bool is_unset = row.kind == OptionKind::segment_size && copy_in(&value, user, sizeof value) == 0 && value == 0;
  const bool is_timeout = row.kind == OptionKind::receive_timeout || row.kind == OptionKind::send_timeout;
  const uint64_t timeout_ns = is_timeout ? accepted_timeout_ns(fd, row.name, user) : kForever;
  const ArrivalControl arrival = row.kind == OptionKind::arrival ? read_arrival_control(fd) : ArrivalControl{};
  const int peek_offset = row.kind == OptionKind::peek_offset ? placeholder_int(fd, row.level, row.name) : -1;
  Guard guard;
  Socket* socket = socket_at(fd);
  if (socket == nullptr) return 0;
  options_are_changing(socket, &row);  // has changed: an accept() meanwhile may have inherited either
  if (is_unset) {
    socket->options_set.remove(index_of(row));
  } else {
    socket->options_set.add(index_of(row));
  }
  switch (row.kind) {
    case OptionKind::receive_timeout: socket->receive_timeout_ns = timeout_ns; break;
    case OptionKind::send_timeout: socket->send_timeout_ns = timeout_ns; break;
    case OptionKind::low_water: socket->receive_low_water = static_cast<uint32_t>(value); break;
    case OptionKind::arrival: socket->arrival = arrival; break;
    case OptionKind::peek_offset: socket->peek_offset = peek_offset; break;
    default: break;
  }
  const bool is_send_buffer = row.level == SOL_SOCKET && row.name == SO_SNDBUF;
  if (is_send_buffer || (row.level == IPPROTO_TCP && row.name == TCP_NOTSENT_LOWAT)) announce_space(socket);
  if (!for_stack) return 0;
  set_sharing(socket, row.option, value);
  if (socket->stream != nullptr) return socket->stream->set_option(row.option, value);
  if (socket->listener != nullptr) return socket->listener->set_option(row.option, value);
  return 0;
}

// kPass: not for a connected stream to hold, or not as the program has said it.
long hold_in_stream(const zps_call& call, const OptionRow& row) noexcept {
  int value = 0;
  if (!is_held_by_stream(row) || static_cast<int>(call.arg[4]) < static_cast<int>(sizeof value)) return kPass;
  if (copy_in(&value, reinterpret_cast<const void*>(call.arg[3]), sizeof value) != 0) return kPass;
  Guard guard;
  Socket* const socket = socket_at(static_cast<int>(call.arg[0]));
  if (socket == nullptr || socket->state != SocketState::stream || !socket->stream->connected()) return kPass;
  const long result = socket->stream->set_option(row.option, value);
  if (result == 0) socket->held_options |= option_bit(row.option);
  return result;
}

// What Linux would call the state of the socket, as far as options ask.
struct Standing {
  int domain;
  bool is_stacks;
  bool listening;
  bool closed;
};

// With the lock held. `ask_stream`: whether it matters if a connection is over.
Standing standing_of(const Socket& socket, bool ask_stream) noexcept {
  constexpr int kTcpClose = 7;
  Standing standing{socket.domain, socket.state != SocketState::undecided, socket.state == SocketState::listening, false};
  standing.closed = socket.state != SocketState::stream && !standing.listening;
  if (!ask_stream || socket.state != SocketState::stream) return standing;
  tcp_info info{};
  socket.stream->info(&info);
  standing.closed = info.tcpi_state == kTcpClose;
  return standing;
}

// IPv4 sockets know nothing of IPv6.
bool has_level(int domain, const OptionRow& row) noexcept { return row.level != IPPROTO_IPV6 || domain == AF_INET6; }

bool is_taken(const OptionRow& row, const Standing& standing, int value) noexcept {
  switch (row.states) {
    case OptionStates::any: return true;
    case OptionStates::unconnected: return standing.closed || standing.listening;
    case OptionStates::closed: return standing.closed;
    case OptionStates::closed_if_zero: return standing.closed || value != 0;
    case OptionStates::not_listening: return !standing.listening;
  }
  return true;
}

// What setsockopt() says of a value that can be read; kPass: what the placeholder says, as of any that cannot.
long judge(const OptionRow& row, const Standing& standing, const zps_call& call) noexcept {
  const bool by_state = standing.is_stacks && row.states != OptionStates::any && has_level(standing.domain, row);
  if (!by_state && row.kind != OptionKind::never) return kPass;
  int value = 0;
  const auto* const user = reinterpret_cast<const void*>(call.arg[3]);
  const bool is_zero = user == nullptr && row.level == IPPROTO_IPV6;
  const bool is_whole = static_cast<int>(call.arg[4]) >= static_cast<int>(sizeof value);
  if (!is_zero && (!is_whole || copy_in(&value, user, sizeof value) != 0)) return kPass;
  if (row.kind == OptionKind::never ? value != 1 : is_taken(row, standing, value)) return kPass;
  if (row.kind == OptionKind::never || row.kind == OptionKind::refused) say_refused(row);
  return -row.error;
}

// ---------------------------------------------------------------- getsockopt

// What getsockopt() answers for the stack, filled in with the lock held.
struct Answer {
  alignas(8) unsigned char bytes[384];
  socklen_t size = 0;
  template <class T>
  void put(const T& value) noexcept {
    static_assert(sizeof value <= sizeof bytes && sizeof value >= sizeof(int));
    __builtin_memcpy(bytes, &value, sizeof value);
    size = sizeof value;
  }
};

// The placeholder's own answer, as far as it fits.
void ask_placeholder(int fd, const OptionRow& row, Answer* answer) noexcept {
  answer->size = sizeof answer->bytes;
  if (kernel_call(SYS_getsockopt, fd, row.level, row.name, as_arg(answer->bytes), as_arg(&answer->size)) != 0) answer->size = 0;
}

// As much as the running kernel tells, but the figures are the stack's: the first part as long as the headers' tcp_info, the tail behind it
// where the kernel has one.
void put_info(int fd, const OptionRow& row, const Socket& socket, Answer* answer) noexcept {
  static std::atomic<socklen_t> kernels_size{0};  // it says as much of each socket
  tcp_info info{};
  socklen_t size = kernels_size.load(std::memory_order_relaxed);
  if (size == 0 || socket.listener != nullptr) {
    ask_placeholder(fd, row, answer);
    size = answer->size > sizeof info ? answer->size : socklen_t{sizeof info};
    if (answer->size != 0) kernels_size.store(size, std::memory_order_relaxed);
  }
  if (socket.listener != nullptr) {
    __builtin_memcpy(&info, answer->bytes, answer->size < sizeof info ? answer->size : sizeof info);
    socket.listener->info(&info);
  } else {
    __builtin_memset(answer->bytes, 0, sizeof answer->bytes);
    socket.stream->info(&info);
  }
  answer->put(info);
  answer->size = size;
  if (socket.listener != nullptr) return;
  const netstack::TcpInfoTail tail = socket.stream->info_tail();
  __builtin_memcpy(answer->bytes + netstack::TcpInfoTail::kOffset, &tail, sizeof tail);
}

void put_memory(int fd, const OptionRow& row, const Socket& socket, Answer* answer) noexcept {
  ask_placeholder(fd, row, answer);
  if (socket.stream == nullptr || answer->size < SK_MEMINFO_VARS * sizeof(uint32_t)) return;
  auto* const figures = reinterpret_cast<uint32_t*>(answer->bytes);
  figures[SK_MEMINFO_RMEM_ALLOC] = static_cast<uint32_t>(socket.stream->readable_bytes());
  figures[SK_MEMINFO_WMEM_QUEUED] = static_cast<uint32_t>(socket.stream->unsent_bytes());
}

long put_path_mtu(const OptionRow& row, const Socket& socket, long room, Answer* answer) noexcept {
  int mtu = 0;
  if (socket.stream == nullptr || socket.stream->get_option(netstack::TcpOption::path_mtu, &mtu) != 0) return -ENOTCONN;
  if (row.kind == OptionKind::path_mtu) {
    answer->put(mtu);
  } else {
    ip6_mtuinfo info{};
    if (room < static_cast<long>(sizeof info)) return -EINVAL;
    info.ip6m_mtu = static_cast<uint32_t>(mtu);
    answer->put(info);
  }
  return 0;
}

// Who reads has received: a poll is run by whoever wants its data.
void put_processor(int fd, const OptionRow& row, const Socket& socket, Answer* answer) noexcept {
  int processor = placeholder_int(fd, row.level, row.name);
  unsigned here = 0;
  if (processor == -1 && socket.stream != nullptr && kernel_call(SYS_getcpu, as_arg(&here), 0, 0) == 0) processor = static_cast<int>(here);
  answer->put(processor);
}

// SO_PEERNAME: who asks for more than there is gets nothing.
long put_peer_name(const Socket& socket, long room, Answer* answer) noexcept {
  const netstack::SocketAddress peer = socket.stream != nullptr ? socket.stream->peer() : netstack::SocketAddress{};
  if (peer.port_be == 0) return -ENOTCONN;
  answer->size = make_address(socket.domain, peer, answer->bytes);
  return room > static_cast<long>(answer->size) ? -EINVAL : 0;
}

// TCP_SAVED_SYN: who has not room for all of it is told how much there is.
long put_saved_syn(const zps_call& call, Socket* socket, long room, Answer* answer) noexcept {
  if (socket->stream == nullptr) return kPass;
  const size_t most = room < static_cast<long>(sizeof answer->bytes) ? static_cast<size_t>(room) : sizeof answer->bytes;
  answer->size = static_cast<socklen_t>(socket->stream->take_saved_syn(answer->bytes, most));
  if (answer->size <= most) return 0;
  const long error = copy_out(reinterpret_cast<void*>(call.arg[4]), &answer->size, sizeof answer->size);
  return error != 0 ? error : -EINVAL;
}

// A connection that is over has none.
uint16_t local_port(const Socket& socket) noexcept {
  const netstack::TcpStream* const stream = socket.stream;
  if (stream == nullptr) return ntohs(socket.bound.port_be);
  return stream->connected() || stream->connecting() ? ntohs(stream->local().port_be) : uint16_t{0};
}

// The stack's answer, or kPass for the placeholder's, or a negative errno.
long answer_for(const zps_call& call, const OptionRow& row, Socket* socket, long room, Answer* answer) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  int value = 0;
  switch (row.kind) {
    case OptionKind::read_only:
      if (row.level == SOL_SOCKET && row.name == SO_COOKIE) spoil_placeholder(socket);  // which no other has
      return kPass;
    case OptionKind::error: answer->put(socket->take_error()); return 0;
    case OptionKind::listening: answer->put(socket->state == SocketState::listening ? 1 : 0); return 0;
    case OptionKind::peek_offset: answer->put(socket->peek_offset); return 0;
    case OptionKind::info: put_info(fd, row, *socket, answer); return 0;
    case OptionKind::memory: put_memory(fd, row, *socket, answer); return 0;
    case OptionKind::processor: put_processor(fd, row, *socket, answer); return 0;
    case OptionKind::path_mtu:
    case OptionKind::path_mtu_info: return put_path_mtu(row, *socket, room, answer);
    case OptionKind::saved_syn: return put_saved_syn(call, socket, room, answer);
    case OptionKind::peer_name: return put_peer_name(*socket, room, answer);
    case OptionKind::local_port: answer->put(static_cast<int>(local_port(*socket))); return 0;
    case OptionKind::sharing:
      answer->put(int{row.option == netstack::TcpOption::reuse_address ? socket->sharing.reuse_address : socket->sharing.reuse_port});
      return 0;
    case OptionKind::integer:
      if (!is_held_by_stream(row) || (socket->held_options & option_bit(row.option)) == 0) return kPass;
      if (socket->stream == nullptr || socket->stream->get_option(row.option, &value) != 0) return kPass;
      answer->put(value);
      return 0;
    case OptionKind::segment_size:
      if (socket->stream == nullptr || socket->stream->get_option(row.option, &value) != 0) return kPass;
      answer->put(value);
      return 0;
    default: return row.states == OptionStates::not_listening && socket->state == SocketState::listening ? -row.error : kPass;
  }
}

}  // namespace

void say_refused_of(const OptionSet& set) noexcept {
  set.for_each([](const OptionRow& row) {
    if (row.kind == OptionKind::refused) say_refused(row);
  });
}

long shim_setsockopt(const zps_call& call) noexcept {
  if (has_no_value(call)) {
    zps_call as_made = call;
    as_made.arg[3] = 0;
    const long result = shim_setsockopt(as_made);
    return result == kPass ? kernel_call(call.nr, call.arg[0], call.arg[1], call.arg[2], 0, call.arg[4]) : result;
  }
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr) return kPass;
  if (is_datagram(peek(fd))) return datagram_setsockopt(call);
  const int level = static_cast<int>(call.arg[1]);
  const int name = static_cast<int>(call.arg[2]);
  const OptionRow* const row = find_option(level, name);
  if (row != nullptr) {
    if (const long result = hold_in_stream(call, *row); result != kPass) return result;
  }
  Standing standing;
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr) return kPass;
    // ipv6_setsockopt(): not with a port, which the placeholder may be without, or may hold for an attempt that is over.
    if (row != nullptr && row->level == IPPROTO_IPV6 && row->name == IPV6_V6ONLY && socket->domain == AF_INET6) {
      if (socket->stack_bound && socket->has_port) return -EINVAL;
      if (socket->state == SocketState::stream && !socket->stream->connected() && !socket->stream->connecting()) let_port_go(fd, socket);
    }
    options_are_changing(socket, row);
    standing = standing_of(*socket, row != nullptr && row->states != OptionStates::any);
  }
  if (row == nullptr && !standing.is_stacks) return kPass;
  if (row != nullptr) {
    if (const long error = judge(*row, standing, call); error != kPass) return error;
  }
  const long result = kernel_call(SYS_setsockopt, fd, level, name, call.arg[3], call.arg[4]);
  if (result != 0) return result;
  if (row == nullptr) {
    say_unknown(level, name);
    return -ENOPROTOOPT;
  }
  if (row->kind == OptionKind::refused && standing.is_stacks) {
    say_refused(*row);
    return -row->error;
  }
  return follow(fd, *row, reinterpret_cast<const void*>(call.arg[3]));
}

long shim_getsockopt(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (peek(fd) == nullptr) return kPass;
  if (is_datagram(peek(fd))) return datagram_getsockopt(call);
  const OptionRow* const row = find_option(static_cast<int>(call.arg[1]), static_cast<int>(call.arg[2]));
  if (row == nullptr) return kPass;
  Answer answer;
  const long room = room_for_value(call);
  {
    Guard guard;
    Socket* socket = socket_at(fd);
    if (socket == nullptr || socket->state == SocketState::undecided || row->kind == OptionKind::stored) return kPass;
    if (!has_level(socket->domain, *row)) return kPass;
    if (room < 0) return room;
    if (const long error = answer_for(call, *row, socket, room, &answer); error != 0) return error;
  }
  return put_value(call, room, answer.bytes, answer.size);
}

}  // namespace shim
