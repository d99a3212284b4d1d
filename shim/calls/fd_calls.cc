// close, dup, fcntl, ioctl: the kernel's table first, ours in step with it.
// SPDX-License-Identifier: BSD-3-Clause
#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/family/family.h"
#include "shim/family/process.h"
#include "shim/family/service.h"
#include "shim/files/async_io.h"
#include "shim/files/fd_table.h"
#include "shim/files/placeholders.h"
#include "shim/files/user_memory.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::as_arg;
using base::is_high_fd;
using base::kernel_call;

// In the child of vfork numbers are the kernel's only: the table is the parent's.
bool numbers_are_the_kernels() noexcept { return engine->thread()->vfork_child != 0; }

int number(int64_t argument) noexcept { return static_cast<int>(argument); }

void spoil(File* file) noexcept {
  if (file != nullptr && file->kind == FileKind::socket) spoil_placeholder(static_cast<Socket*>(file));
}

// One of ours, which the program does not have.
bool hidden(int64_t fd) noexcept { return is_high_fd(number(fd)) && !numbers_are_the_kernels(); }

// dup2 and dup3 with equal numbers aside: kernel and table change under one lock.
long duplicate_onto(const zps_call& call) noexcept {
  const int to = number(call.arg[1]);
  if (hidden(call.arg[0]) || hidden(to)) return -EBADF;
  if ((peek(call.arg[0]) == nullptr && peek(to) == nullptr) || numbers_are_the_kernels() || number(call.arg[0]) == to) return kPass;
  Guard guard;
  File* file = file_at(call.arg[0]);
  spoil(file);
  if (file != nullptr) add_reference(file);  // `to` may hold the last reference to it
  const long made = kernel_call(call.nr, call.arg[0], call.arg[1], call.arg[2]);
  if (made >= 0) {
    table_clear(to);
    if (file != nullptr) (void)table_set(to, file);
  }
  if (file != nullptr) drop_reference(file);
  return made;
}

// A copy under a new number that the kernel has chosen.
long duplicate(const zps_call& call) noexcept {
  if (hidden(call.arg[0])) return -EBADF;
  if (peek(call.arg[0]) == nullptr || numbers_are_the_kernels()) return kPass;
  Guard guard;
  File* file = file_at(call.arg[0]);
  if (file == nullptr) return kPass;
  spoil(file);
  const long made = kernel_call(call.nr, call.arg[0], call.arg[1], call.arg[2]);
  if (made >= 0) (void)table_set(static_cast<int>(made), file);
  return made;
}

long set_flags(const zps_call& call) noexcept {
  constexpr long kUsual = O_NONBLOCK | O_ACCMODE | O_LARGEFILE;
  const bool async = (call.arg[2] & O_ASYNC) != 0;
  long result;
  bool may_change;
  {
    Guard guard;
    File* file = file_at(call.arg[0]);
    if (file == nullptr) return kPass;
    const bool dual = file->kind == FileKind::socket && static_cast<const Socket*>(file)->dual;
    may_change = async || file->notice != nullptr;
    if ((call.arg[2] & ~kUsual) != 0) spoil(file);
    // A listener on both sides keeps its placeholder non-blocking; the program's wish is ours alone.
    result = kernel_call(SYS_fcntl, call.arg[0], F_SETFL, dual ? call.arg[2] | O_NONBLOCK : call.arg[2]);
    if (result == 0) file->nonblocking = (call.arg[2] & O_NONBLOCK) != 0;
  }
  return result == 0 && may_change ? follow_async_flag(number(call.arg[0]), async) : result;
}

// Locks, hints and the like are the placeholder's alone.
long control_placeholder(const zps_call& call) noexcept {
  Guard guard;
  spoil(file_at(call.arg[0]));
  return kPass;
}

// Whom signals go to, and which: the placeholder's business, and ours.
long set_owner(const zps_call& call) noexcept {
  (void)control_placeholder(call);
  const long result = kernel_call(call.nr, call.arg[0], call.arg[1], call.arg[2]);
  return result == 0 ? follow_owner(number(call.arg[0])) : result;
}

long set_async(const zps_call& call) noexcept {
  int wanted;
  if (long error = copy_in(&wanted, reinterpret_cast<void*>(call.arg[2]), sizeof wanted); error != 0) return error;
  (void)control_placeholder(call);
  const long result = kernel_call(SYS_ioctl, call.arg[0], FIOASYNC, as_arg(&wanted));
  return result == 0 ? follow_async_flag(number(call.arg[0]), wanted != 0) : result;
}

long get_flags(const zps_call& call) noexcept {
  Guard guard;
  const File* file = file_at(call.arg[0]);
  if (file == nullptr) return kPass;
  const long flags = kernel_call(SYS_fcntl, call.arg[0], F_GETFL);
  if (flags < 0) return flags;
  return file->nonblocking ? flags | O_NONBLOCK : flags & ~static_cast<long>(O_NONBLOCK);
}

long set_nonblocking(const zps_call& call) noexcept {
  int wanted;
  if (long error = copy_in(&wanted, reinterpret_cast<void*>(call.arg[2]), sizeof wanted); error != 0) return error;
  Guard guard;
  File* file = file_at(call.arg[0]);
  if (file == nullptr) return kPass;
  if (file->kind == FileKind::socket && static_cast<Socket*>(file)->dual) {
    file->nonblocking = wanted != 0;
    return 0;
  }
  const long result = kernel_call(SYS_ioctl, call.arg[0], FIONBIO, as_arg(&wanted));
  if (result == 0) file->nonblocking = wanted != 0;
  return result;
}

// What was not sent, and with `in_flight` what is not acknowledged.
int send_queue_bytes(const netstack::TcpStream& stream, bool in_flight) noexcept {
  tcp_info info{};
  stream.info(&info);
  const uint64_t sent_once = info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
  return static_cast<int>(info.tcpi_notsent_bytes + (in_flight ? sent_once - info.tcpi_bytes_acked : 0));
}

// FIONREAD, SIOCOUTQ, SIOCOUTQNSD and SIOCATMARK of a stream; kPass for whatever is not one.
long stream_figure(const zps_call& call) noexcept {
  int value = 0;
  {
    Guard guard;
    const Socket* socket = socket_at(call.arg[0]);
    if (socket == nullptr || socket->state == SocketState::undecided) return kPass;
    if (socket->state != SocketState::stream) return static_cast<unsigned>(call.arg[1]) == SIOCATMARK ? kPass : -EINVAL;
    const unsigned request = static_cast<unsigned>(call.arg[1]);
    if (request == FIONREAD) value = static_cast<int>(socket->stream->readable_to_mark());
    if (request == SIOCATMARK) value = socket->stream->at_mark() ? 1 : 0;
    if (request == SIOCOUTQ || request == SIOCOUTQNSD) value = send_queue_bytes(*socket->stream, request == SIOCOUTQ);
  }
  return copy_out(reinterpret_cast<void*>(call.arg[2]), &value, sizeof value);
}

// Everything that was written has been acknowledged, or never will be; what comes now brings about a reset, as it does on Linux.
class Delivered final : public Condition {
 public:
  explicit Delivered(netstack::TcpStream* stream) noexcept : stream_(stream) {}
  long check() noexcept override { return stream_->unsent_bytes() == 0 || stream_->readable_bytes() > 0 ? 0 : -EAGAIN; }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, stream_); }

 private:
  netstack::TcpStream* stream_;
};

// SO_LINGER: the last close() of a connection that still has something to deliver waits for that, blocking or not. Begins the wait with the
// lock held; nullptr if there is none.
Socket* begin_lingering(File* file, uint64_t* linger_ns) noexcept {
  if (file == nullptr || file->kind != FileKind::socket || file->refs != 1) return nullptr;
  auto* socket = static_cast<Socket*>(file);
  if (socket->state != SocketState::stream || socket->stream->unsent_bytes() == 0 || socket->stream->readable_bytes() > 0) return nullptr;
  int seconds = -1;
  (void)socket->stream->get_option(netstack::TcpOption::linger_s, &seconds);
  if (seconds <= 0 || !begin_wait(socket)) return nullptr;
  drop_registrations(socket);
  (void)socket->stream->shutdown(SHUT_WR);
  *linger_ns = static_cast<uint64_t>(seconds) * 1'000'000'000;
  return socket;
}

void linger(Socket* socket, uint64_t linger_ns) noexcept {
  service_ensure();
  Delivered condition(socket->stream);
  WaitOptions options;
  options.deadline_ns = deadline_after(linger_ns);
  (void)wait_for(condition, options);
}

// What pidfd_getfd() is asked about: "Pid:" in what /proc says of the descriptor. 0: not known, or no such descriptor.
int pid_of_pidfd(int fd) noexcept {
  char path[64], text[512];
  (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  const long file = kernel_call(SYS_open, as_arg(path), O_RDONLY | O_CLOEXEC);
  const long length = file < 0 ? -1 : kernel_call(SYS_read, file, as_arg(text), sizeof text - 1);
  if (file >= 0) (void)kernel_call(SYS_close, file);
  text[length > 0 ? length : 0] = '\0';
  const char* const line = strstr(text, "Pid:");
  return line != nullptr ? static_cast<int>(strtol(line + 4, nullptr, 10)) : 0;
}

// Clears what a closed range held of ours.
void clear_range(unsigned first, unsigned last) noexcept {
  Guard guard;
  const unsigned end = my_slot->chunks * kChunkEntries;
  for (unsigned fd = first; fd < end && fd <= last; fd++) {
    if (peek(fd) != nullptr) table_clear(static_cast<int>(fd));
  }
}

}  // namespace

long shim_close(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr) return is_high_fd(number(call.arg[0])) ? -EBADF : kPass;
  if (numbers_are_the_kernels()) return kPass;
  Socket* lingering;
  uint64_t linger_ns = 0;
  LeavingPlaceholder placeholder(number(call.arg[0]));
  {
    Guard guard;
    File* const file = file_at(call.arg[0]);
    placeholder.leave(file);
    lingering = begin_lingering(file, &linger_ns);
    table_clear(number(call.arg[0]));
    if (lingering != nullptr) guard.stack()->flush();
  }
  placeholder.keep();
  const long result = kernel_call(SYS_close, call.arg[0]);
  if (lingering != nullptr) linger(lingering, linger_ns);
  return result;
}

long shim_close_range(const zps_call& call) noexcept {
  const unsigned first = static_cast<unsigned>(call.arg[0]);
  const unsigned last = static_cast<unsigned>(call.arg[1]);
  const unsigned flags = static_cast<unsigned>(call.arg[2]);
  if (first > last || (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) != 0) return kPass;
  if ((flags & CLOSE_RANGE_CLOEXEC) == 0 && !numbers_are_the_kernels()) clear_range(first, last);
  if (base::next_high_fd(first) > last) return kPass;
  // Ours are left out, in the child of a vfork as well: what it executes may need them.
  long result = 0;
  for (uint64_t from = first; from <= last && result == 0;) {
    const uint64_t skipped = base::next_high_fd(static_cast<unsigned>(from));
    const uint64_t to = skipped <= last ? skipped : uint64_t{last} + 1;
    if (from < to) result = kernel_call(SYS_close_range, static_cast<long>(from), static_cast<long>(to - 1), flags);
    from = to + 1;
  }
  return result;
}

long shim_dup(const zps_call& call) noexcept { return duplicate(call); }
long shim_dup2(const zps_call& call) noexcept { return duplicate_onto(call); }
long shim_dup3(const zps_call& call) noexcept { return duplicate_onto(call); }

long shim_fcntl(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr) return hidden(call.arg[0]) ? -EBADF : kPass;
  switch (static_cast<int>(call.arg[1])) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: return duplicate(call);
    case F_SETFL: return set_flags(call);
    case F_GETFL: return get_flags(call);
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_SETSIG: return set_owner(call);
    case F_GETFD:
    case F_SETFD: return kPass;  // the number's
    default: return control_placeholder(call);
  }
}

long shim_ioctl(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr) return kPass;
  switch (static_cast<unsigned>(call.arg[1])) {
    case FIONBIO: return set_nonblocking(call);
    case FIOASYNC: return set_async(call);
    case FIOSETOWN:
    case SIOCSPGRP: return set_owner(call);
    case FIONREAD:
    case SIOCOUTQ:
    case SIOCOUTQNSD:
    case SIOCATMARK: return is_datagram(peek(call.arg[0])) ? datagram_figure(call) : stream_figure(call);
    default: return kPass;
  }
}

// The table of who has it changes with the lock held, and before the kernel frees a number.
long shim_pidfd_getfd(const zps_call& call) noexcept {
  if (the_stack() == nullptr || kernel_only() || numbers_are_the_kernels()) return kPass;
  const int pid = pid_of_pidfd(number(call.arg[0]));
  const auto theirs = static_cast<uint32_t>(call.arg[1]);
  if (pid <= 0 || theirs >= kMaxFd) return kPass;
  Guard guard;
  for (ProcessSlot& slot : all_slots()) {
    if (is_free(slot) || slot.pid != pid) continue;
    const FdChunk* chunk = slot.directory[theirs / kChunkEntries].load();
    auto* const file = chunk != nullptr ? static_cast<File*>(chunk->entry[theirs % kChunkEntries].load()) : nullptr;
    if (file == nullptr) return kPass;
    spoil(file);
    const long made = kernel_call(SYS_pidfd_getfd, call.arg[0], call.arg[1], call.arg[2]);
    if (made >= 0) (void)table_set(static_cast<int>(made), file);
    return made;
  }
  return kPass;
}

long shim_io_uring_setup(const zps_call&) noexcept { return config.io_uring ? kPass : -ENOSYS; }

long shim_exit(const zps_call&) noexcept {
  if (numbers_are_the_kernels()) return kPass;
  if (the_stack() != nullptr) {
    Guard guard;
    release_this_waiter();
  }
  release_thread_scratch();
  return kPass;
}

}  // namespace shim
