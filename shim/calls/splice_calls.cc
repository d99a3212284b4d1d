// splice between a pipe and a connection of the stack, and sendfile from a connection into a pipe.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Linux moves references to pages, under the socket's and the pipe's lock; here bytes are copied between two worlds, and a
// pipe call can block for long: whoever splices into a pipe holds its mutex while it waits for its own source. So no pipe is touched with
// the family's lock held, and between the halves of a move both pipe and stream may change. Yet no byte may be lost or come twice, and what
// was not moved must still be where it was: programs go on with read() and write() when splice() says EAGAIN.
//
// From a pipe. The stream's free space is looked at first and only so much is taken out of the pipe: the move counts as done then, as a
// write() into a send queue does. A reset that comes before the bytes are queued throws them away, as it throws the queue away. If another
// thread has used the space meanwhile, or memory is short, the rest is queued as soon as it fits.
//
// Into a pipe. The bytes are looked at (peek), the pipe takes what it has room for, and that much is taken from the stream. Meanwhile the
// stream's readable bytes belong to this thread (Socket::mover): other readers find nothing, and are woken after it. The pages are fresh
// ones, given to the pipe as they are.
//
// vmsplice(SPLICE_F_NONBLOCK) does both pipe calls: it waits neither for data nor for room, whatever the descriptor's mode, on every
// kernel.
//
// Known limits: a process killed between the halves loses what it took out of a pipe, or leaves in the stream what the pipe has already.
// Sources: Linux fs/splice.c (do_splice, splice_to_socket, splice_file_to_pipe), net/ipv4/tcp.c (tcp_splice_read).
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <csignal>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"
#include "shim/files/fd_table.h"
#include "shim/files/stream_io.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr unsigned kKnownFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;
constexpr long kNapNs = 1'000'000;

struct Move {
  int pipe;
  int socket_fd;
  Socket* socket;  // pinned by this thread's waiter
  size_t wanted;
  bool pipe_waits;  // neither SPLICE_F_NONBLOCK nor a pipe that is O_NONBLOCK
  bool more;        // SPLICE_F_MORE
};

// What poll() says about the pipe; 0: full, or empty.
short pipe_level(int pipe, short events) noexcept {
  pollfd one{pipe, events, 0};
  timespec zero{};
  return kernel_call(SYS_ppoll, as_arg(&one), 1, as_arg(&zero), 0, 8) > 0 ? one.revents : static_cast<short>(0);
}

class PipeCondition final : public Condition {
 public:
  PipeCondition(int pipe, short events) noexcept : fds_{{pipe, events, 0}} {}
  long check() noexcept override { return -EAGAIN; }
  bool watch_all(Waiter*) noexcept override { return true; }
  bool has_kernel_side() const noexcept override { return true; }
  long check_kernel() noexcept override { return pipe_level(fds_[0].fd, fds_[0].events) != 0 ? 0 : -EAGAIN; }
  [[nodiscard]] pollfd* fds() noexcept { return fds_; }

 private:
  pollfd fds_[1 + kOwnFds];
};

// Until the pipe has something, or room. 0, -EINTR or kRestart.
long await_pipe(int pipe, short events) noexcept {
  PipeCondition condition(pipe, events);
  WaitOptions options;
  options.restartable = true;
  options.kernel_fds = condition.fds();
  options.kernel_fd_count = 1;
  return wait_and_keep(condition, options);
}

// Until the stream has room (its size), or an error.
class RoomCondition final : public Condition {
 public:
  explicit RoomCondition(Socket* socket) noexcept : socket_(socket) {}
  long check() noexcept override {
    if (socket_->stream == nullptr) return -EPIPE;
    const iovec nothing{nullptr, 0};
    if (const long error = socket_->stream->write(&nothing, 0, false); error < 0) return error;
    if (const size_t room = socket_->stream->writable_bytes(); room > 0) return static_cast<long>(room);
    (void)socket_->stream->ready();  // who finds no room is told when there is some
    return -EAGAIN;
  }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, socket_->stream); }

 private:
  Socket* socket_;
};

// Until the stream has something (how much), its end, or an error; after the first byte an error is kept for the next call.
class ReadableCondition final : public Condition {
 public:
  ReadableCondition(Socket* socket, bool first) noexcept : socket_(socket), first_(first) {}
  long check() noexcept override {
    if (socket_->stream == nullptr) return -ENOTCONN;
    if (socket_->is_claimed()) return -EAGAIN;
    if (const size_t there = socket_->stream->readable_bytes(); there > 0) return static_cast<long>(there);
    if (!first_ && (socket_->stream->ready() & EPOLLERR) != 0) return 0;
    char byte;
    const iovec part{&byte, 1};
    return socket_->stream->read(&part, 1, true);
  }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, socket_->stream) && socket_->mover == nullptr; }

 private:
  Socket* socket_;
  bool first_;
};

// Looks at the bytes, which are then this thread's to take. Their number, 0, or a negative errno.
long claim(Socket* socket, const iovec& part) noexcept {
  Guard guard;
  if (socket->stream == nullptr) return -ENOTCONN;
  if (socket->is_claimed()) return -EAGAIN;
  const long result = socket->stream->read(&part, 1, true);
  if (result > 0) socket->claim(my_slot);
  return result;
}

// A look at the stream and, where the socket is to wait, a wait for it. `timeout` is the one of this direction.
long check_or_wait(const Move& move, Condition& condition, uint64_t Socket::*timeout, bool may_wait) noexcept {
  WaitOptions options;
  {
    Guard guard;
    long result = condition.check();
    if (result != -EAGAIN) return result;
    if (!may_wait || move.socket->nonblocking || move.socket->*timeout == 0) {
      (void)guard.stack()->poll(base::monotonic_ns());
      return condition.check();
    }
    options.deadline_ns = deadline_after(move.socket->*timeout);
    options.restartable = move.socket->*timeout == kForever;
  }
  return wait_and_keep(condition, options);
}

// Queues all of the part. Nothing can be given back to the pipe, so signals have to wait meanwhile.
void queue_all(Socket* socket, iovec part, bool more) noexcept {
  while (part.iov_len > 0) {
    {
      Guard guard;
      long result = socket->stream == nullptr ? -EPIPE : socket->stream->write(&part, 1, more);
      if (result < 0 && result != -EAGAIN) return;
      if (result > 0) part = {static_cast<char*>(part.iov_base) + result, part.iov_len - static_cast<size_t>(result)};
      if (part.iov_len == 0) return;
      (void)guard.stack()->poll(base::monotonic_ns());
    }
    timespec nap{0, kNapNs};
    (void)kernel_call(SYS_nanosleep, as_arg(&nap));
  }
}

size_t least(size_t a, size_t b, size_t c) noexcept {
  const size_t ab = a < b ? a : b;
  return ab < c ? ab : c;
}

// Moves what the pipe has at once: the count, 0 at its end, or a negative errno.
long move_into_stream(const Move& move, void* buffer, size_t wanted, bool first) noexcept {
  if (pipe_level(move.pipe, POLLIN) == 0) {
    if (!first || !move.pipe_waits) return -EAGAIN;
    if (const long error = await_pipe(move.pipe, POLLIN); error != 0) return error;
  }
  // At its end there is nothing to write: the stream may have an error to keep for later.
  if ((pipe_level(move.pipe, POLLIN) & (POLLIN | POLLHUP)) == POLLHUP) return 0;
  RoomCondition condition(move.socket);
  const long room = check_or_wait(move, condition, &Socket::send_timeout_ns, true);
  if (room < 0) return room;
  const iovec part{buffer, least(wanted, static_cast<size_t>(room), kScratchBytes)};
  const long taken = kernel_call(SYS_vmsplice, move.pipe, as_arg(&part), 1, SPLICE_F_NONBLOCK);
  if (taken > 0) queue_all(move.socket, {buffer, static_cast<size_t>(taken)}, move.more);
  return taken;
}

long splice_into_stream(const Move& move) noexcept {
  void* buffer = thread_scratch();
  if (buffer == nullptr) return -ENOMEM;
  size_t done = 0;
  while (done < move.wanted) {
    const long moved = move_into_stream(move, buffer, move.wanted - done, done == 0);
    if (moved == -EAGAIN && done == 0 && move.pipe_waits && pipe_level(move.pipe, POLLIN) == 0) continue;  // another reader was faster
    if (moved > 0) done += static_cast<size_t>(moved);
    if (moved <= 0 || engine->thread()->signals_pending != 0) {
      if (moved < 0 && done == 0) return moved;
      break;
    }
  }
  return static_cast<long>(done);
}

// Fresh pages, for a pipe to keep.
class Pages {
 public:
  explicit Pages(size_t bytes) noexcept : bytes_(bytes) {
    const long address = kernel_call(SYS_mmap, 0, static_cast<long>(bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address >= 0 || address <= -4096) memory_ = reinterpret_cast<void*>(address);
  }
  ~Pages() {
    if (memory_ != nullptr) (void)kernel_call(SYS_munmap, as_arg(memory_), static_cast<long>(bytes_));
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  [[nodiscard]] bool exist() const noexcept { return memory_ != nullptr; }
  [[nodiscard]] iovec part() const noexcept { return {memory_, bytes_}; }

 private:
  size_t bytes_;
  void* memory_ = nullptr;
};

// Takes `count` of the claimed bytes out of the stream, and lets other readers at it again.
void take_claimed(Socket* socket, size_t count) noexcept {
  Guard guard;
  const iovec part{thread_scratch(), count};
  if (count > 0 && socket->stream != nullptr) (void)socket->stream->read(&part, 1, false);
  socket->mover = nullptr;
  if (!socket->turned_away) return;
  socket->turned_away = false;
  netstack::TcpStream* stream = socket->stream;
  if (stream == nullptr || stream->readable_bytes() == 0) return;
  for (netstack::Observer* observer = stream->observers.front(); observer != nullptr; observer = stream->observers.after(observer)) {
    observer->on_ready(*stream, EPOLLIN);
  }
}

// Until the pipe has room. 0, or a negative errno; SIGPIPE is raised here.
long await_room(const Move& move, bool first) noexcept {
  short level;
  while ((level = pipe_level(move.pipe, POLLOUT)) == 0) {
    if (!first || !move.pipe_waits) return -EAGAIN;
    if (const long error = await_pipe(move.pipe, POLLOUT); error != 0) return error;
  }
  if ((level & POLLERR) == 0) return 0;
  if (first) raise_sigpipe();
  return -EPIPE;
}

// Moves what the stream has at once: the count, 0 at its end, or a negative errno. *full: the pipe took less than there was.
long move_into_pipe(const Move& move, size_t wanted, bool first, bool* full) noexcept {
  if (const long error = await_room(move, first); error != 0) return error;
  ReadableCondition condition(move.socket, first);
  while (true) {
    const long there = check_or_wait(move, condition, &Socket::receive_timeout_ns, first);
    if (there <= 0) return there;
    // Not before the wait, which a handler may leave for good.
    const Pages pages(least(wanted, static_cast<size_t>(there), kScratchBytes));
    if (!pages.exist() || thread_scratch() == nullptr) return -ENOMEM;
    const long seen = claim(move.socket, pages.part());
    if (seen == -EAGAIN) continue;  // another reader was faster
    if (seen <= 0) return seen;
    const iovec part{pages.part().iov_base, static_cast<size_t>(seen)};
    const long taken = kernel_call(SYS_vmsplice, move.pipe, as_arg(&part), 1, SPLICE_F_NONBLOCK);
    take_claimed(move.socket, taken > 0 ? static_cast<size_t>(taken) : 0);
    *full = taken < seen;
    return taken;
  }
}

long splice_into_pipe(const Move& move) noexcept {
  size_t done = 0;
  while (done < move.wanted) {
    bool full = false;
    const long moved = move_into_pipe(move, move.wanted - done, done == 0, &full);
    if (moved == -EAGAIN && full && done == 0 && move.pipe_waits) continue;  // another writer was faster
    if (moved > 0) done += static_cast<size_t>(moved);
    if (moved <= 0 || full || engine->thread()->signals_pending != 0) {
      if (moved < 0 && done == 0) return moved;
      break;
    }
  }
  return static_cast<long>(done);
}

// With everything checked. Count or a negative errno; kPass if the descriptor is no stream (any more).
long splice_stream(Move& move, bool into_stream) noexcept {
  {
    Guard guard;
    move.socket = socket_at(move.socket_fd);
    if (move.socket == nullptr || move.socket->state != SocketState::stream) return kPass;
    if (!begin_wait(move.socket)) return -ENOMEM;
  }
  service_ensure();
  const long result = into_stream ? splice_into_stream(move) : splice_into_pipe(move);
  {
    Guard guard;
    end_wait();
  }
  if (into_stream && result == -EPIPE) raise_sigpipe();
  return result;
}

// True if `fd` is a pipe that can be used in this direction; its flags in *mode.
bool is_pipe(int fd, int access, long* mode) noexcept {
  struct stat status;
  if (kernel_call(SYS_fstat, fd, as_arg(&status)) != 0 || !S_ISFIFO(status.st_mode)) return false;
  *mode = kernel_call(SYS_fcntl, fd, F_GETFL);
  return *mode >= 0 && (*mode & O_PATH) == 0 && ((*mode & O_ACCMODE) == access || (*mode & O_ACCMODE) == O_RDWR);
}

// A second, short-lived descriptor of the same pipe, for reading alone.
long open_for_reading(int fd) noexcept {
  char path[32] = "/proc/self/fd/";
  char digits[12];
  int count = 0;
  do digits[count++] = static_cast<char>('0' + fd % 10);
  while ((fd /= 10) != 0);
  for (char* at = path + 14; count > 0; at++) *at = digits[--count];
  return kernel_call(SYS_open, as_arg(path), O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
}

}  // namespace

long splice_to_pipe(int socket_fd, int pipe, size_t wanted, unsigned flags) noexcept {
  long mode;
  if (static_cast<ssize_t>(wanted) <= 0 || !is_pipe(pipe, O_WRONLY, &mode)) return kPass;
  Move move{pipe, socket_fd, nullptr, wanted, (flags & SPLICE_F_NONBLOCK) == 0 && (mode & O_NONBLOCK) == 0, false};
  return splice_stream(move, false);
}

// Whatever is refused before anything moves is left to the kernel, which finds a socket in the placeholder and says why.
long shim_splice(const zps_call& call) noexcept {
  const int in = static_cast<int>(call.arg[0]);
  const int out = static_cast<int>(call.arg[2]);
  const size_t wanted = static_cast<size_t>(call.arg[4]);
  const unsigned flags = static_cast<unsigned>(call.arg[5]);
  const bool from_stream = is_stream(in);
  if (from_stream == is_stream(out)) return kPass;
  if (call.arg[1] != 0 || call.arg[3] != 0 || (flags & ~kKnownFlags) != 0) return kPass;
  if (from_stream) return splice_to_pipe(in, out, wanted, flags);
  long mode;
  if (static_cast<ssize_t>(wanted) <= 0 || !is_pipe(in, O_RDONLY, &mode)) return kPass;
  if ((kernel_call(SYS_fcntl, out, F_GETFL) & O_APPEND) != 0) return kPass;
  Move move{in, out, nullptr, wanted, (flags & SPLICE_F_NONBLOCK) == 0 && (mode & O_NONBLOCK) == 0, (flags & SPLICE_F_MORE) != 0};
  if ((mode & O_ACCMODE) == O_RDONLY) return splice_stream(move, true);
  // vmsplice() would write into it: a FIFO that is open both ways.
  const long reader = open_for_reading(in);
  if (reader < 0) return reader;
  move.pipe = static_cast<int>(reader);
  const long result = splice_stream(move, true);
  (void)kernel_call(SYS_close, reader);
  return result;
}

}  // namespace shim
