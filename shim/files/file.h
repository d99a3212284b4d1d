// Open file descriptions that the shim serves: sockets of a stack and epoll sets.
// SPDX-License-Identifier: BSD-3-Clause
//
// A File is what Linux calls an open file description: descriptors of one or several processes refer to it and it lives until
// the last of them is closed. It lies in the family's shared memory. `refs` counts table entries of all members plus the waits that
// sleep on it. All fields are guarded by the family's lock; `kind` never changes.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <utility>

#include "netstack/stack.h"
#include "shim/family/slots.h"
#include "shim/family/wait.h"
#include "shim/files/options.h"

namespace shim {

class AsyncNotice;
class EpollItem;

// An epoll item's place in the list of its file's registrations.
struct FileLink : base::ListNode {};

enum class FileKind : uint8_t { socket, epoll, datagram };  // socket: of a stream

class File : public Counted {
 public:
  explicit File(FileKind file_kind) noexcept : kind(file_kind) {}
  // Closes the file: its registrations vanish, its connection ends.
  void end() noexcept final;

  FileKind kind;
  bool nonblocking = false;
  base::List<FileLink> registrations;
  EpollItem* parked = nullptr;  // a removed registration that waits to be made again (epoll_file.h)
  AsyncNotice* notice = nullptr;  // of a socket: signals that events bring about (async_io.h)

 protected:
  ~File() = default;
};

// No epoll set reports the file any more.
void drop_registrations(File* file) noexcept;

// A pollable's level with the bits that always come in pairs: data to read is also RDNORM, room to write also WRNORM.
[[nodiscard]] inline uint32_t full_level(const netstack::Pollable* source) noexcept {
  uint32_t level = source->ready();
  if ((level & EPOLLIN) != 0) level |= EPOLLRDNORM;
  if ((level & EPOLLOUT) != 0) level |= EPOLLWRNORM;
  return level;
}

// How the decision between stack and kernel went so far.
enum class SocketState : uint8_t {
  undecided,  // only the placeholder exists; the kernel answers
  kernel,     // given to the kernel for good: the table entry is about to vanish
  stream,     // a connection of the stack, made or in the making
  listening   // a listener of the stack, and (dual) one of the kernel under the same number
};

// sock->state of Linux (SS_UNCONNECTED ...): by it connect(), listen() and shutdown() judge. The other state, sk_state, is the stream's or
// the listener's, and TCP_CLOSE while only the placeholder exists.
enum class SsState : uint8_t {
  unconnected,
  connecting,    // until a connect() has told what became of the attempt
  connected,     // for good, whatever becomes of the connection
  disconnecting  // shutdown() found an attempt that had failed: only connect() to no address helps
};

class Socket final : public File {
 public:
  explicit Socket(int socket_domain) noexcept : File(FileKind::socket), domain(static_cast<uint8_t>(socket_domain)) {}

  SocketState state = SocketState::undecided;
  SsState ss_state = SsState::unconnected;
  uint8_t domain;             // AF_INET or AF_INET6
  bool stack_bound = false;   // bind() named an address of the stack; the kernel knows nothing of it
  bool kernel_bound = false;  // bind() has named the placeholder
  bool bound_to_all = false;  // and with all addresses
  bool v6_only = false;       // of IPv6, as IPV6_V6ONLY said then
  bool has_port = false;      // bound.port_be is its port still (inet_num)
  bool port_chosen = false;   // nobody asked for this port
  bool dual = false;          // the kernel listens too
  bool holds_port = false;    // the placeholder has the port of a connection (hold_port())
  uint8_t shut = 0;           // sk_shutdown, of before there is a connection: bits 1 and 2 as SHUT_RD + 1 and SHUT_WR + 1
  uint16_t old_port_be = 0;   // of the attempt or connection that is over: in the name until there is another one
  int error = 0;              // sk_err while there is no stream: what had ended an attempt before listen()
  netstack::TcpStream* stream = nullptr;
  netstack::TcpListener* listener = nullptr;
  ProcessSlot* mover = nullptr;   // whose splice() has claimed the readable bytes
  netstack::PortBinding* binding = nullptr;  // its port in the stack, unless a connection or listener has it (ports.h)
  netstack::SocketAddress bound{0, 0};       // the name: an address of the stack's, or all; a port that it had stays there (inet_sport)
  netstack::PortSharing sharing;
  uint64_t receive_timeout_ns = kForever;  // SO_RCVTIMEO; 0: do not wait
  uint64_t send_timeout_ns = kForever;     // SO_SNDTIMEO, also for connect()
  uint32_t receive_low_water = 1;   // a blocking read waits for so many bytes, or for what it asks for if that is less
  OptionSet options_set;            // what accepted sockets inherit
  uint32_t held_options = 0;        // set on the stream alone (options.h)
  ArrivalControl arrival;
  int32_t peek_offset = -1;         // SO_PEEK_OFF
  uint32_t options_stamp = 0;       // another one whenever an option may have changed that accepted sockets show; 0: as socket() makes them
  uint32_t placeholder_age = 0;     // of a connection (placeholders.h); 0: the program has done something to its placeholder
  uint8_t placeholder_place = 0;    // there, and counted from one

  int32_t mover_pid = 0;
  bool reader_waits = false;        // a blocking read waits for data
  uint8_t home = 0;                 // the bell that its frames ring; 0: the common one
  bool turned_away = false;         // somebody found the readable bytes claimed

  // The pending error (sk_err), which is told once; 0 if there is none.
  [[nodiscard]] int take_error() noexcept { return stream != nullptr ? stream->take_error() : std::exchange(error, 0); }
  // A connection of the stack, or an attempt that has not been given up.
  [[nodiscard]] bool has_connection() const noexcept { return state == SocketState::stream && ss_state != SsState::unconnected; }
  // Whether bind() has nothing more to give. Of a name that the kernel gave it alone knows whether it is there still.
  [[nodiscard]] bool has_name() const noexcept { return state == SocketState::listening || has_connection() || (stack_bound && has_port); }
  // Where it connects from or listens, as far as that is settled.
  [[nodiscard]] netstack::SocketAddress place() const noexcept {
    return {bound.address, has_port ? bound.port_be : static_cast<uint16_t>(0)};
  }
  // The calling thread waits for it: its frames ring that thread's bell from now on.
  void bring_home() noexcept {
    if (home != this_bell()) [[unlikely]] move_home(this_bell());
  }
  void leave_home() noexcept {
    if (home != 0) move_home(0);
  }
  // A splice() has looked at the readable bytes and is about to take them: nobody else may meanwhile.
  void claim(ProcessSlot* by) noexcept;
  // True while one does; whoever asks is woken after it. A claim dies with its process.
  [[nodiscard]] bool is_claimed() noexcept;

 private:
  void move_home(uint8_t bell) noexcept;
};

}  // namespace shim
