// Reading and writing streams, blocking or not.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/stream_io.h"

#include <sys/socket.h>

#include <climits>
#include <csignal>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim/files/fd_table.h"
#include "shim/files/user_memory.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::kernel_call;

constexpr size_t kMostBytes = 0x7fff'f000;  // what Linux moves in one call at most
constexpr uint32_t kNoMoreWillCome = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

size_t total_bytes(const iovec* parts, int count) noexcept {
  size_t sum = 0;
  for (int i = 0; i < count; i++) sum += parts[i].iov_len;
  return sum < kMostBytes ? sum : kMostBytes;
}

// A window of parts that starts `done` bytes into an array: what is left of a transfer that came part of the way.
class Remainder {
 public:
  Remainder(const iovec* parts, int count, size_t done) noexcept {
    int i = 0;
    while (i < count && done >= parts[i].iov_len) done -= parts[i++].iov_len;
    for (; i < count && count_ < kWindow; i++) {
      window_[count_] = {static_cast<char*>(parts[i].iov_base) + done, parts[i].iov_len - done};
      if (window_[count_].iov_len != 0) count_++;
      done = 0;
    }
  }
  [[nodiscard]] const iovec* parts() const noexcept { return window_; }
  [[nodiscard]] int count() const noexcept { return count_; }

 private:
  static constexpr int kWindow = 16;
  iovec window_[kWindow];
  int count_ = 0;
};

// The stack's read and write, with the program's pages tried first.
long read_stream(netstack::TcpStream* stream, const iovec* parts, int count, bool peek) noexcept {
  if (long error = probe_writable(parts, count, stream->readable_bytes()); error != 0) return error;
  return stream->read(parts, count, peek);
}

// Takes bytes out, if no splice() is about to. What is peeked at from an offset on comes nearer (sk_peek_offset_bwd()).
long take(Socket* socket, const iovec* parts, int count) noexcept {
  if (socket->mover != nullptr && socket->is_claimed()) [[unlikely]] return -EAGAIN;
  const long result = read_stream(socket->stream, parts, count, false);
  if (result > 0) socket->bring_home();
  if (socket->peek_offset > 0 && result > 0) [[unlikely]] {
    socket->peek_offset = result < socket->peek_offset ? socket->peek_offset - static_cast<int32_t>(result) : 0;
  }
  return result;
}

// A call that takes no bytes asks by a byte that it does not want whether there is one: for what a read would take, or a look would see.
enum class Look { sees, would_take, would_see };

// Looks at bytes: the first ones, or with SO_PEEK_OFF those behind what was looked at last.
long peek_stream(Socket* socket, const iovec* parts, int count, Look look) noexcept {
  if (socket->peek_offset < 0 || look == Look::would_take) return read_stream(socket->stream, parts, count, true);
  const auto offset = static_cast<size_t>(socket->peek_offset);
  const size_t readable = socket->stream->readable_bytes();
  if (long error = probe_writable(parts, count, readable > offset ? readable - offset : 0); error != 0) return error;
  const long result = socket->stream->peek_at(parts, count, offset);
  if (result > 0 && look == Look::sees) socket->peek_offset += static_cast<int32_t>(result);
  return result;
}

long write_stream(netstack::TcpStream* stream, const iovec* parts, int count, int flags) noexcept {
  if (long error = probe_readable(parts, count, kMostProbed); error != 0) return error;
  const bool more = (flags & MSG_MORE) != 0;
  return (flags & MSG_OOB) != 0 ? stream->write_urgent(parts, count, more) : stream->write(parts, count, more);
}

// Reads until `wanted` bytes came, of which `done` are there. What came before an error is told first, and the error by the next read.
class ReadCondition final : public Condition {
 public:
  ReadCondition(Socket* socket, const iovec* parts, int count, size_t wanted, size_t done) noexcept
      : socket_(socket), parts_(parts), count_(count), wanted_(wanted), done_(done) {}

  long check() noexcept override {
    const long result = look();
    socket_->reader_waits = result == -EAGAIN;
    return result;
  }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, socket_->stream) && socket_->mover == nullptr; }
  [[nodiscard]] bool has_moved() const noexcept override { return done_ > 0; }
  [[nodiscard]] size_t done() const noexcept { return done_; }

 private:
  long look() noexcept {
    if (socket_->stream == nullptr) return done_ > 0 ? static_cast<long>(done_) : -ENOTCONN;
    while (true) {
      if (done_ > 0 && socket_->stream->at_mark()) return static_cast<long>(done_);
      long result;
      if (done_ == 0) {
        result = take(socket_, parts_, count_);
      } else {
        if (socket_->stream->readable_bytes() == 0)
          return (socket_->stream->ready() & kNoMoreWillCome) != 0 ? static_cast<long>(done_) : -EAGAIN;
        const Remainder rest(parts_, count_, done_);
        result = take(socket_, rest.parts(), rest.count());
      }
      if (result <= 0) return done_ > 0 && result != -EAGAIN ? static_cast<long>(done_) : result;
      done_ += static_cast<size_t>(result);
      if (done_ >= wanted_) return static_cast<long>(done_);
    }
  }

  Socket* socket_;
  const iovec* parts_;
  int count_;
  size_t wanted_, done_;
};

// Looks until `wanted` bytes are there; without MSG_WAITALL until the stream calls itself readable.
class PeekCondition final : public Condition {
 public:
  PeekCondition(Socket* socket, const iovec* parts, int count, Look look, size_t wanted, bool all) noexcept
      : socket_(socket),
        parts_(parts),
        count_(count),
        look_(look),
        wanted_(wanted),
        enough_(all ? kNoMoreWillCome : kNoMoreWillCome | EPOLLIN) {}

  long check() noexcept override {
    if (socket_->stream == nullptr) return -ENOTCONN;
    const size_t there = socket_->stream->readable_bytes(), to_mark = socket_->stream->readable_to_mark();
    const bool ends_at_mark = to_mark > 0 && to_mark < there;
    const size_t skipped = socket_->peek_offset > 0 && look_ != Look::would_take ? static_cast<size_t>(socket_->peek_offset) : 0;
    if (there < wanted_ + skipped && !ends_at_mark && (socket_->stream->ready() & enough_) == 0) return -EAGAIN;
    return peek_stream(socket_, parts_, count_, look_);
  }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, socket_->stream); }

 private:
  Socket* socket_;
  const iovec* parts_;
  int count_;
  Look look_;
  size_t wanted_;
  uint32_t enough_;
};

// What is to be sent: the program's memory, or what a source has. write() queues bytes behind the first `done`: their number, or a negative
// errno.
struct PartsToSend {
  const iovec* parts;
  int count;
  int flags;
  [[nodiscard]] size_t bytes() const noexcept { return total_bytes(parts, count); }
  [[nodiscard]] long begin(netstack::TcpStream* stream) const noexcept { return write_stream(stream, parts, count, flags); }
  [[nodiscard]] long go_on(netstack::TcpStream* stream, size_t done) const noexcept {
    const Remainder rest(parts, count, done);
    return write_stream(stream, rest.parts(), rest.count(), flags);
  }
  static constexpr bool kMayEnd = false;
};

struct SourceToSend {
  netstack::ByteSource* source;
  size_t wanted;
  [[nodiscard]] size_t bytes() const noexcept { return wanted; }
  [[nodiscard]] long begin(netstack::TcpStream* stream) const noexcept { return stream->write_from(*source, wanted, false); }
  [[nodiscard]] long go_on(netstack::TcpStream* stream, size_t done) const noexcept {
    return stream->write_from(*source, wanted - done, false);
  }
  static constexpr bool kMayEnd = true;  // 0 says that there is no more
};

// Writes until everything is in the send queue.
template <class Output>
class WriteCondition final : public Condition {
 public:
  WriteCondition(Socket* socket, const Output& output, size_t done) noexcept : socket_(socket), output_(output), done_(done) {}

  long check() noexcept override {
    if (socket_->stream == nullptr) return done_ > 0 ? static_cast<long>(done_) : -EPIPE;
    while (done_ < output_.bytes()) {
      if (done_ > 0 && (socket_->stream->ready() & EPOLLERR) != 0) return static_cast<long>(done_);
      const long result = output_.go_on(socket_->stream, done_);
      if (result == -EAGAIN) return result;
      if (result < 0) return done_ > 0 ? static_cast<long>(done_) : result;
      if (result == 0) return Output::kMayEnd ? static_cast<long>(done_) : -EAGAIN;
      done_ += static_cast<size_t>(result);
    }
    return static_cast<long>(done_);
  }
  bool watch_all(Waiter* waiter) noexcept override {
    socket_->bring_home();
    return watch(waiter, socket_->stream);
  }
  [[nodiscard]] bool has_moved() const noexcept override { return done_ > 0; }
  [[nodiscard]] size_t done() const noexcept { return done_; }

 private:
  Socket* socket_;
  const Output& output_;
  size_t done_;
};

WaitOptions wait_options(uint64_t timeout_ns) noexcept {
  WaitOptions options;
  options.deadline_ns = deadline_after(timeout_ns);
  options.restartable = timeout_ns == kForever;
  return options;
}

}  // namespace

bool is_stream(int64_t fd) noexcept {
  const File* file = peek(fd);
  if (file == nullptr || file->kind != FileKind::socket) return false;
  Guard guard;
  const Socket* socket = socket_at(fd);
  return socket != nullptr && socket->state == SocketState::stream;
}

void raise_sigpipe() noexcept {
  (void)kernel_call(SYS_tgkill, kernel_call(SYS_getpid), kernel_call(SYS_gettid), SIGPIPE);
}

long Parts::load(const iovec* user, long count) noexcept {
  if (count < 0 || count > IOV_MAX) return -EINVAL;
  if (count > kFew) {
    parts_ = static_cast<iovec*>(thread_scratch());
    if (parts_ == nullptr) return -ENOMEM;
  }
  count_ = static_cast<int>(count);
  if (long error = copy_in(parts_, user, static_cast<size_t>(count) * sizeof *user); error != 0) return error;
  size_t sum = 0;
  for (int i = 0; i < count_; i++) {
    const iovec& part = parts_[i];
    if (static_cast<ssize_t>(part.iov_len) < 0) return -EINVAL;
    if (part.iov_len != 0 && !plausible(part.iov_base, part.iov_len)) return -EFAULT;
    if (__builtin_add_overflow(sum, part.iov_len, &sum) || static_cast<ssize_t>(sum) < 0) return -EINVAL;
  }
  return 0;
}

static long receive(int fd, const iovec* parts, int count, int flags, Look how) noexcept {
  if ((flags & MSG_ERRQUEUE) != 0) return -EAGAIN;
  const bool peek_only = (flags & MSG_PEEK) != 0;
  const bool all = (flags & MSG_WAITALL) != 0;
  Socket* socket;
  uint64_t timeout_ns;
  size_t wanted, started = 0;
  {
    Guard guard;
    socket = socket_at(fd);
    if (socket == nullptr || socket->state == SocketState::undecided) return ZPS_PASS;
    if (socket->state != SocketState::stream) return -ENOTCONN;
    if (total_bytes(parts, count) == 0) return 0;
    const bool wait = !socket->nonblocking && (flags & MSG_DONTWAIT) == 0 && socket->receive_timeout_ns != 0;
    const size_t wanted_at_once = total_bytes(parts, count);
    wanted = all || wanted_at_once < socket->receive_low_water ? wanted_at_once : socket->receive_low_water;
    const auto look = [&] { return peek_only ? peek_stream(socket, parts, count, how) : take(socket, parts, count); };
    long result = wait && peek_only && wanted > 1 ? -EAGAIN : look();
    if (result == -EAGAIN && !wait) {
      // A program that asks without waiting still drives the wire.
      (void)guard.stack()->poll(base::monotonic_ns());
      result = look();
    }
    if (!wait || (result != -EAGAIN && (peek_only || result <= 0 || static_cast<size_t>(result) >= wanted))) return result;
    if (result > 0 && socket->stream->at_mark()) return result;
    if (result > 0) started = static_cast<size_t>(result);
    timeout_ns = socket->receive_timeout_ns;
    if (!begin_wait(socket)) return started > 0 ? static_cast<long>(started) : -ENOMEM;
  }
  service_ensure();
  if (peek_only) {
    PeekCondition condition(socket, parts, count, how, wanted, all);
    const long result = wait_for(condition, wait_options(timeout_ns));
    if (result != -EAGAIN && result != -EINTR && result != kRestart) return result;
    Guard guard;
    const bool there = socket_at(fd) == socket && socket->state == SocketState::stream && socket->stream->readable_bytes() > 0;
    return there ? peek_stream(socket, parts, count, how) : result;
  }
  ReadCondition condition(socket, parts, count, wanted, started);
  const long result = wait_for(condition, wait_options(timeout_ns));
  return result < 0 && condition.done() > 0 ? static_cast<long>(condition.done()) : result;
}

long receive_parts(int fd, const iovec* parts, int count, int flags) noexcept { return receive(fd, parts, count, flags, Look::sees); }

long receive_urgent(int fd, const iovec* parts, int count, int flags, int* message_flags) noexcept {
  char byte = 0;
  {
    Guard guard;
    const Socket* socket = socket_at(fd);
    if (socket == nullptr || socket->state == SocketState::undecided) return ZPS_PASS;
    if (socket->state != SocketState::stream) return -ENOTCONN;
    const bool peek_only = (flags & MSG_PEEK) != 0;
    long result = socket->stream->read_urgent(&byte, peek_only);
    if (result == -EAGAIN || result == -EINVAL) {
      (void)guard.stack()->poll(base::monotonic_ns());
      result = socket->stream->read_urgent(&byte, peek_only);
    }
    if (result <= 0) return result;
  }
  *message_flags |= MSG_OOB;
  for (int i = 0; i < count; i++) {
    if (parts[i].iov_len == 0) continue;
    if ((flags & MSG_TRUNC) != 0) return 1;
    const long error = copy_out(parts[i].iov_base, &byte, 1);
    return error != 0 ? error : 1;
  }
  *message_flags |= MSG_TRUNC;
  return 0;
}

long receive_with_flags(int fd, const iovec* parts, int count, int flags) noexcept {
  const size_t wanted = total_bytes(parts, count);
  if (wanted == 0) {
    char byte;
    const iovec one{&byte, 1};
    const Look how = (flags & MSG_PEEK) != 0 ? Look::would_see : Look::would_take;
    const long result = receive(fd, &one, 1, (flags | MSG_PEEK) & ~(MSG_WAITALL | MSG_TRUNC), how);
    return result > 0 ? 0 : result;
  }
  if ((flags & MSG_TRUNC) == 0) return receive_parts(fd, parts, count, flags);
  void* nowhere = thread_scratch();
  if (nowhere == nullptr) return -ENOMEM;
  const iovec all{nowhere, wanted < kScratchBytes ? wanted : kScratchBytes};
  return receive_parts(fd, &all, 1, flags);
}

template <class Output>
static long send(int fd, const Output& output, int flags) noexcept {
  Socket* socket;
  uint64_t timeout_ns = 0;
  long result;
  bool wait;
  {
    Guard guard;
    socket = socket_at(fd);
    if (socket == nullptr || socket->state == SocketState::undecided) return ZPS_PASS;
    if (socket->state == SocketState::stream) {
      result = output.begin(socket->stream);
      timeout_ns = socket->send_timeout_ns;
      wait = !socket->nonblocking && (flags & MSG_DONTWAIT) == 0 && timeout_ns != 0;
      if (result == -EAGAIN && !wait) {
        (void)guard.stack()->poll(base::monotonic_ns());
        result = output.begin(socket->stream);
      }
    } else {
      const int error = socket->take_error();
      result = error != 0 ? -error : -EPIPE;
      wait = false;
    }
    wait =
        wait && (result == -EAGAIN || (result >= 0 && static_cast<size_t>(result) < output.bytes() && !(Output::kMayEnd && result == 0)));
    if (wait && !begin_wait(socket)) return result == -EAGAIN ? -ENOMEM : result;
  }
  if (wait) {
    service_ensure();
    WriteCondition condition(socket, output, result > 0 ? static_cast<size_t>(result) : 0);
    result = wait_for(condition, wait_options(timeout_ns));
    if (result < 0 && condition.done() > 0) result = static_cast<long>(condition.done());
  }
  if (result == -EPIPE && (flags & MSG_NOSIGNAL) == 0) raise_sigpipe();
  return result;
}

long send_parts(int fd, const iovec* parts, int count, int flags) noexcept {
  return (flags & MSG_FASTOPEN) != 0 ? -EOPNOTSUPP : send(fd, PartsToSend{parts, count, flags}, flags);
}

long send_from(int fd, netstack::ByteSource& source, size_t wanted) noexcept { return send(fd, SourceToSend{&source, wanted}, 0); }

}  // namespace shim
