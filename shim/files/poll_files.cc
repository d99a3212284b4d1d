// One wait over stack sockets and kernel descriptors.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/poll_files.h"

#include <sys/epoll.h>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// What the stack says about an entry, with the lock held.
short stack_level(const pollfd& entry) noexcept {
  File* file = entry.fd < 0 || peek(entry.fd) == nullptr ? nullptr : file_at(entry.fd);
  netstack::Pollable* source = file == nullptr ? nullptr : file_pollable(file);
  if (source == nullptr) return 0;
  return static_cast<short>(full_level(source) & static_cast<uint32_t>(static_cast<unsigned short>(entry.events) | POLLERR | POLLHUP));
}

// True if the kernel has nothing to say about this descriptor.
bool stack_only(int fd) noexcept {
  if (const DatagramSocket* datagram = fd < 0 ? nullptr : datagram_at(fd)) return datagram->endpoint != nullptr && !datagram->both;
  const Socket* socket = fd < 0 || peek(fd) == nullptr ? nullptr : socket_at(fd);
  return socket != nullptr && (socket->state == SocketState::stream || (socket->state == SocketState::listening && !socket->dual));
}

// Of a datagram socket with two sides the stack's says whether it can be written to.
short kernel_events(const pollfd& entry) noexcept {
  const DatagramSocket* const datagram = entry.fd < 0 ? nullptr : datagram_at(entry.fd);
  const bool is_written_here = datagram != nullptr && datagram->both;
  return is_written_here ? static_cast<short>(kernel_side_events(static_cast<unsigned short>(entry.events))) : entry.events;
}

// The placeholder alone answers for it.
bool is_undecided(int fd) noexcept {
  if (const DatagramSocket* datagram = datagram_at(fd)) return datagram->endpoint == nullptr;
  const Socket* socket = socket_at(fd);
  return socket != nullptr && socket->state == SocketState::undecided;
}

class PollCondition final : public Condition {
 public:
  explicit PollCondition(const PollRequest& request) noexcept : request_(request) {
    // Entries of the stack alone are negative in the kernel's copy: ignored there.
    for (int i = 0; i < request.count; i++) {
      const pollfd& entry = request.fds[i];
      request.copies[i] = {stack_only(entry.fd) ? -1 : entry.fd, kernel_events(entry), 0};
      if (request.copies[i].fd >= 0) kernel_side_ = true;
    }
  }

  long check() noexcept override {
    for (int i = 0; i < request_.count; i++) {
      if (stack_level(request_.fds[i]) != 0 || goes_to_kernel(i)) return 1;
    }
    return -EAGAIN;
  }
  bool watch_all(Waiter* waiter) noexcept override {
    bool all = true;
    for (int i = 0; i < request_.count; i++) {
      const int fd = request_.fds[i].fd;
      File* file = fd < 0 || peek(fd) == nullptr ? nullptr : file_at(fd);
      netstack::Pollable* source = file == nullptr ? nullptr : file_pollable(file);
      if (source != nullptr && !watch(waiter, source)) all = false;
    }
    return all;
  }
  bool has_kernel_side() const noexcept override { return kernel_side_; }
  long check_kernel() noexcept override {
    timespec zero{};
    const long result = kernel_call(SYS_ppoll, as_arg(request_.copies), request_.count, as_arg(&zero), 0, 8);
    return result == 0 ? -EAGAIN : result;
  }

  // Both sides' answers, put together. The number of entries that have one.
  long finish() noexcept {
    if (kernel_side_) {
      if (const long result = check_kernel(); result < 0 && result != -EAGAIN) return result;
    }
    long count = 0;
    Guard guard;
    for (int i = 0; i < request_.count; i++) {
      const short kernel = request_.copies[i].fd >= 0 ? request_.copies[i].revents : static_cast<short>(0);
      request_.fds[i].revents = static_cast<short>(kernel | stack_level(request_.fds[i]));
      if (request_.fds[i].revents != 0) count++;
    }
    return count;
  }

 private:
  // A listener that was shut down, or a connection that failed or went to the kernel's side, while this poll() sleeps: its placeholder
  // answers from now on.
  bool goes_to_kernel(int i) noexcept {
    const int fd = request_.fds[i].fd;
    if (fd < 0 || request_.copies[i].fd >= 0 || peek(fd) == nullptr) return false;
    if (!is_undecided(fd)) return false;
    request_.copies[i].fd = fd;
    kernel_side_ = true;
    return true;
  }

  const PollRequest& request_;
  bool kernel_side_ = false;
};

// -EINTR if a handler ran, else 0.
long let_signals_in(const PollRequest& request) noexcept {
  const Interruption interruption;
  timespec zero{};
  (void)engine->sleep(SYS_ppoll, 0, 0, as_arg(&zero), as_arg(request.signal_mask), request.signal_mask_bytes, 0);
  return interruption.came() ? -EINTR : 0;
}

}  // namespace

bool any_ours(const pollfd* fds, int count) noexcept {
  if (the_stack() == nullptr) return false;
  for (int i = 0; i < count; i++) {
    if (fds[i].fd >= 0 && peek(fds[i].fd) != nullptr) return true;
  }
  return false;
}

long poll_files(const PollRequest& request) noexcept {
  service_ensure();
  WaitOptions options;
  options.deadline_ns = request.deadline_ns;
  options.signal_mask = request.signal_mask;
  options.signal_mask_bytes = request.signal_mask_bytes;
  options.kernel_fds = request.copies;
  options.kernel_fd_count = request.count;
  Guard guard;
  PollCondition condition(request);
  while (true) {
    if (!begin_wait(nullptr)) return -ENOMEM;
    guard.drop();
    const long waited = wait_for(condition, options);
    long count = waited < 0 && waited != -EAGAIN ? waited : condition.finish();
    // Time is up: signals that only the mask lets in end the call before that does (do_poll() of Linux).
    if (count == 0 && waited == -EAGAIN && request.signal_mask != nullptr) count = let_signals_in(request);
    guard.take();
    // Ready a moment ago and taken by another thread since: go on, unless time is up.
    if (count != 0 || waited == -EAGAIN) return count;
  }
}

}  // namespace shim
