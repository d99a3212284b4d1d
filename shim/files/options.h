// The table of socket options, and the placeholder as the place where they are kept.
// SPDX-License-Identifier: BSD-3-Clause
//
// Every option the program sets is first set on the placeholder: the kernel checks value, length, pointer and privilege, answers with
// Linux's own errno, and keeps the value, so that getsockopt is exact (SO_RCVBUF comes back doubled, and so on). Rows that name a TcpOption
// are then also set on the stack's endpoint, with the value read back. What was set before the side was decided is read back when it is.
//
// What servers set on each connection, or around each answer (TCP_NODELAY, TCP_CORK, keepalive), a connected stream holds by itself: no
// system call, and the placeholder stays as good as new for the next connection (placeholders.h). It gets the values when the socket is its
// own again.
//
// The placeholder is a closed socket, whatever the stack's is; so a row says if Linux takes the option in some states only, and what is
// known of a connection is read from the stack.
// An option that is not in the table is the kernel's to refuse; if it does not, the stack does, once a socket is its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "netstack/stack.h"

namespace shim {

class Socket;

enum class OptionKind : uint8_t {
  stored,           // kept by the placeholder only
  integer,          // an int for the stack
  half,             // an int that the kernel reports doubled
  linger,           // struct linger
  sharing,          // SO_REUSEADDR, SO_REUSEPORT: the socket's and the stack's, handed on without the placeholder
  receive_timeout,  // struct timeval, used by waits
  send_timeout,
  low_water,        // SO_RCVLOWAT: the stack's and the waits'
  arrival,          // asks for control messages of recvmsg()
  peek_offset,      // SO_PEEK_OFF
  error,            // SO_ERROR: the stack's, reading clears it
  listening,        // SO_ACCEPTCONN
  info,             // TCP_INFO
  memory,           // SO_MEMINFO
  processor,        // SO_INCOMING_CPU
  peer_name,        // SO_PEERNAME
  local_port,       // IP_PROTOCOL: what Linux calls inet_num
  saved_syn,        // TCP_SAVED_SYN
  path_mtu,         // IP_MTU, IPV6_MTU
  path_mtu_info,    // IPV6_PATHMTU
  segment_size,     // TCP_MAXSEG: read from the stack, set on both
  read_only,        // the placeholder's answer is the stack's as well
  refused,          // on the stack's sockets
  never             // refused from the start: what it promises cannot be kept once the socket is the stack's
};

// In which states Linux takes an option; it says EINVAL in the others, or what the row says.
enum class OptionStates : uint8_t { any, unconnected, closed, closed_if_zero, not_listening };

struct OptionRow {
  int level;
  int name;
  const char* label;
  OptionKind kind;
  netstack::TcpOption option;  // where the kind has one
  const char* note;
  OptionStates states;
  int error;  // in other states, and of what is refused: an errno
};

// As a bit of Socket::held_options.
[[nodiscard]] constexpr uint32_t option_bit(netstack::TcpOption option) noexcept { return uint32_t{1} << static_cast<unsigned>(option); }
[[nodiscard]] constexpr bool is_held_by_stream(const OptionRow& row) noexcept {
  using netstack::TcpOption;
  constexpr uint32_t kHeld = option_bit(TcpOption::nodelay) | option_bit(TcpOption::cork) | option_bit(TcpOption::keepalive) |
                             option_bit(TcpOption::keepidle_s) | option_bit(TcpOption::keepintvl_s) | option_bit(TcpOption::keepcnt);
  return row.kind == OptionKind::integer && row.option <= TcpOption::keepcnt && (option_bit(row.option) & kHeld) != 0;
}

struct OptionRows {
  const OptionRow* first;
  size_t count;
  [[nodiscard]] const OptionRow* begin() const noexcept { return first; }
  [[nodiscard]] const OptionRow* end() const noexcept { return first + count; }
};

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51  // newer than the C library
#endif

// A set of rows.
class OptionSet {
 public:
  static constexpr size_t kCapacity = 256;
  void add(size_t row) noexcept { words_[row / 64] |= uint64_t{1} << row % 64; }
  void remove(size_t row) noexcept { words_[row / 64] &= ~(uint64_t{1} << row % 64); }
  [[nodiscard]] bool empty() const noexcept { return (words_[0] | words_[1] | words_[2] | words_[3]) == 0; }
  // Calls visit(const OptionRow&) for each.
  template <class Visit>
  void for_each(Visit visit) const noexcept;

 private:
  uint64_t words_[kCapacity / 64] = {};
};

// option_table.cc
[[nodiscard]] OptionRows option_rows() noexcept;
// The row of an option, or nullptr. SO_RCVTIMEO_NEW and its like have the row of the one that says the same.
[[nodiscard]] const OptionRow* find_option(int level, int name) noexcept;
[[nodiscard]] inline size_t index_of(const OptionRow& row) noexcept { return static_cast<size_t>(&row - option_rows().first); }

template <class Visit>
void OptionSet::for_each(Visit visit) const noexcept {
  for (size_t word = 0; word < kCapacity / 64; word++) {
    for (uint64_t left = words_[word]; left != 0; left &= left - 1) {
      visit(option_rows().first[word * 64 + static_cast<size_t>(__builtin_ctzll(left))]);
    }
  }
}

// What recvmsg() tells besides the data.
struct ArrivalControl {
  bool inq = false;            // TCP_INQ
  uint8_t timestamp_type = 0;  // SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD or their _NEW; 0: none
  uint8_t timestamping = 0;    // SO_TIMESTAMPING_OLD or _NEW; 0: none
  [[nodiscard]] bool any() const noexcept { return inq || timestamp_type != 0 || timestamping != 0; }
};
[[nodiscard]] ArrivalControl read_arrival_control(int fd) noexcept;

// Values for an endpoint, read from a placeholder.
struct StreamOptions {
  static constexpr int kCapacity = 32;
  struct Value {
    netstack::TcpOption option;
    int value;
  };
  Value values[kCapacity];
  int count = 0;
};

// `set`: the rows to look at (Socket::options_set). Without the lock.
[[nodiscard]] StreamOptions read_placeholder_options(int fd, const OptionSet& set) noexcept;
// One row's value on the placeholder in the stack's terms; false if the row is not for the stack.
[[nodiscard]] bool read_placeholder_option(int fd, const OptionRow& row, int* value) noexcept;
void apply_options(netstack::TcpStream* stream, const StreamOptions& options) noexcept;
void apply_options(netstack::TcpListener* listener, const StreamOptions& options) noexcept;
// Whether accepted sockets have it of their listener's placeholder.
[[nodiscard]] bool is_inherited(const OptionRow& row) noexcept;
// Copies the rows of `set` from one placeholder to another.
void inherit_options(int from_fd, int to_fd, const OptionSet& set) noexcept;

// The placeholder gets what the stream has held. With the lock held.
void restore_held_options(int fd, Socket* socket) noexcept;

[[nodiscard]] OptionSet options_set_of(int fd) noexcept;
[[nodiscard]] int placeholder_int(int fd, int level, int name) noexcept;
// IPV6_V6ONLY of a socket of `domain`.
[[nodiscard]] bool placeholder_is_v6_only(int fd, int domain) noexcept;
// What is bound to an address of IPv6 has nothing to do with IPv4 any more, and says so (__inet6_bind()).
void end_v4(int fd) noexcept;
void set_placeholder_nonblocking(int fd) noexcept;

}  // namespace shim
