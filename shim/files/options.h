// The table of socket options, and the placeholder as the place where they are kept.
//
// Every option the program sets is first set on the placeholder: the kernel checks value, length and pointer, answers with Linux's own errno,
// and keeps the value, so that getsockopt is exact (SO_RCVBUF comes back doubled, and so on). Rows that name a TcpOption
// are then also set on the stack's endpoint, with the value read back. What was set before the side was decided is read back when it is.
// An option that is not in the table is refused once a socket is the stack's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "netstack/stack.h"

namespace shim {

enum class OptionKind : uint8_t {
  stored,           // kept by the placeholder only
  integer,          // an int for the stack
  half,             // an int that the kernel reports doubled
  linger,           // struct linger
  receive_timeout,  // struct timeval, used by waits
  send_timeout,
  error,            // SO_ERROR: the stack's, reading clears it
  listening,        // SO_ACCEPTCONN
  info,             // TCP_INFO
  from_stack        // read from the stack, set on both
};

struct OptionRow {
  int level;
  int name;
  const char* label;
  OptionKind kind;
  netstack::TcpOption option;  // where the kind has one
  const char* note;
};

struct OptionRows {
  const OptionRow* first;
  size_t count;
  [[nodiscard]] const OptionRow* begin() const noexcept { return first; }
  [[nodiscard]] const OptionRow* end() const noexcept { return first + count; }
};

[[nodiscard]] OptionRows option_rows() noexcept;
// The index of a row, or -1.
[[nodiscard]] int find_option(int level, int name) noexcept;

// Values for an endpoint, read from a placeholder.
struct StreamOptions {
  static constexpr int kCapacity = 24;
  struct Value {
    netstack::TcpOption option;
    int value;
  };
  Value values[kCapacity];
  int count = 0;
};

// `set`: the rows to look at, a bit each (Socket::options_set). Without the lock.
[[nodiscard]] StreamOptions read_placeholder_options(int fd, uint64_t set) noexcept;
// One row's value on the placeholder in the stack's terms; false if the row is not for the stack.
[[nodiscard]] bool read_placeholder_option(int fd, const OptionRow& row, int* value) noexcept;
void apply_options(netstack::TcpStream* stream, const StreamOptions& options) noexcept;
void apply_options(netstack::TcpListener* listener, const StreamOptions& options) noexcept;
// Copies the rows of `set` from one placeholder to another.
void inherit_options(int from_fd, int to_fd, uint64_t set) noexcept;

[[nodiscard]] uint64_t options_set_of(int fd) noexcept;
[[nodiscard]] int placeholder_int(int fd, int level, int name) noexcept;
[[nodiscard]] bool placeholder_is_v6_only(int fd) noexcept;
void set_placeholder_nonblocking(int fd) noexcept;

}  // namespace shim
