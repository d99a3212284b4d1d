// epoll_create, the complete epoll_ctl and the epoll_waits.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/calls/epoll_ctl.h"
#include "shim/family/family.h"
#include "shim/family/process.h"
#include "shim/family/service.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim/files/kernel_half.h"
#include "shim/files/user_memory.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// What may be asked for together with EPOLLEXCLUSIVE.
constexpr uint32_t kWithExclusive = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
constexpr long kMostEvents = INT32_MAX / static_cast<long>(sizeof(epoll_event));

EpollFile* set_at(int64_t fd) noexcept {
  File* file = peek(fd);
  return file != nullptr && file->kind == FileKind::epoll ? static_cast<EpollFile*>(file) : nullptr;
}

// A new item, linked; nullptr when there is no memory. Parked ones are not worth a refusal.
EpollItem* make_item(EpollFile* set, File* file, int fd) noexcept {
  EpollItem* item = files().items.allocate(set, file, fd);
  if (item == nullptr) [[unlikely]] {
    files().sockets.for_each([](Socket* socket) { drop_parked(socket); });
    item = files().items.allocate(set, file, fd);
    if (item == nullptr) return nullptr;
  }
  set->items.push_back(item);
  file->registrations.push_back(item);
  return item;
}

// True if the kernel's half of a set holds this file's placeholder too.
bool kernel_too(const File* file) noexcept {
  if (file->kind == FileKind::epoll) return true;
  if (file->kind == FileKind::datagram) return static_cast<const DatagramSocket*>(file)->endpoint == nullptr || has_two_sides(file);
  const Socket* socket = static_cast<const Socket*>(file);
  return socket->state == SocketState::undecided || (socket->state == SocketState::listening && socket->dual);
}

bool valid_exclusive(uint32_t events) noexcept { return (events & EPOLLEXCLUSIVE) == 0 || (events & ~kWithExclusive) == 0; }

long add_item(EpollFile* set, File* file, const zps_call& call, uint32_t events, uint64_t data) noexcept {
  if (!valid_exclusive(events)) return -EINVAL;
  const int fd = static_cast<int>(call.arg[2]);
  EpollItem* item = take_parked(file, set, fd);
  if (item == nullptr) {
    if (find_item(set, file, fd) != nullptr) return -EEXIST;
    item = make_item(set, file, fd);
    if (item == nullptr) return -ENOSPC;
    if (kernel_too(file)) {
      item->in_kernel = true;
      set->kernel_items++;
      if (long error = kernel_half_control(static_cast<int>(call.arg[0]), EPOLL_CTL_ADD, item, events, data); error != 0) {
        drop_item(item);
        return error;
      }
    }
  }
  item->events = events;
  item->data = data;
  attach_item(item);
  return 0;
}

long modify_item(EpollItem* item, const zps_call& call, uint32_t events, uint64_t data) noexcept {
  if ((events & EPOLLEXCLUSIVE) != 0) return -EINVAL;
  if (item == nullptr) return -ENOENT;
  if ((item->events & EPOLLEXCLUSIVE) != 0) return -EINVAL;
  if (item->in_kernel || kernel_too(item->file)) {  // not there though it could be: it has fired
    const int operation = item->in_kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (long error = kernel_half_control(static_cast<int>(call.arg[0]), operation, item, events, data); error != 0) return error;
    if (!item->in_kernel) item->set->kernel_items++;
    item->in_kernel = true;
  }
  item->events = events;
  item->data = data;
  item->armed = true;
  attach_item(item);
  return 0;
}

// A kernel descriptor: the kernel's half alone.
long control_kernel(EpollFile* set, const zps_call& call) noexcept {
  const bool adds = call.arg[1] == EPOLL_CTL_ADD;
  if (adds) set->kernel_items++;  // before the kernel has it: an upper bound, also if this process dies on the way
  const long result = kernel_call(SYS_epoll_ctl, call.arg[0], call.arg[1], call.arg[2], call.arg[3]);
  const bool fewer = adds ? result != 0 : result == 0 && call.arg[1] == EPOLL_CTL_DEL;
  if (fewer && set->kernel_items > 0) set->kernel_items--;
  return result;
}

// What the kernel's half has to tell, without waiting.
long ask_kernel(int fd, epoll_event* events, int capacity) noexcept { return kernel_call(SYS_epoll_wait, fd, as_arg(events), capacity, 0); }

// True if `data` stands for a socket on both sides, which is in both halves of a set: two files may have the same data.
bool is_in_both_halves(EpollFile* set, uint64_t data) noexcept {
  for (SetLink* link = set->items.front(); link != nullptr; link = set->items.after(link)) {
    const auto* item = static_cast<const EpollItem*>(link);
    if (item->in_kernel && item->data == data && has_two_sides(item->file)) return true;
  }
  return false;
}

// Joins events[count, end) into those before: a socket on both sides may be in both halves. The number that is left.
int merge_events(EpollFile* set, epoll_event* events, int count, int end) noexcept {
  int left = count;
  for (int i = count; i < end; i++) {
    int same = 0;
    while (same < count && events[same].data.u64 != events[i].data.u64) same++;
    if (same < count && is_in_both_halves(set, events[i].data.u64)) {
      events[same].events |= events[i].events;
    } else {
      events[left++] = events[i];
    }
  }
  return left;
}

class EpollCondition final : public Condition {
 public:
  EpollCondition(EpollFile* set, int fd, epoll_event* events, int capacity) noexcept
      : set_(set), fd_(fd), events_(events), capacity_(capacity), kernel_fds_{{fd, POLLIN, 0}} {}

  long check() noexcept override {
    const int count = collect_ready(set_, events_, capacity_);
    return count == 0 ? -EAGAIN : count;
  }
  bool watch_all(Waiter* waiter) noexcept override { return watch(waiter, set_); }
  bool has_kernel_side() const noexcept override { return set_->kernel_items != 0 || (kernel_fds_[0].fd >= 0 && peek(fd_) != set_); }
  long check_kernel() noexcept override {
    if (peek(fd_) != set_) {  // closed or replaced: the kernel's half went with the number
      kernel_fds_[0].fd = -1;
      return -EAGAIN;
    }
    const long count = settle_events(set_, events_, ask_kernel(fd_, events_, capacity_));
    return count == 0 ? -EAGAIN : count;
  }
  [[nodiscard]] pollfd* kernel_fds() noexcept { return kernel_fds_; }

 private:
  EpollFile* set_;
  int fd_;
  epoll_event* events_;
  int capacity_;
  pollfd kernel_fds_[1 + kOwnFds];
};

// The wait behind all four calls, for a set of ours and a family with a stack.
long wait_in_set(int fd, epoll_event* events, long capacity, uint64_t deadline_ns, const void* mask, long mask_bytes) noexcept {
  if (capacity <= 0 || capacity > kMostEvents) return -EINVAL;
  if (!plausible(events, static_cast<size_t>(capacity) * sizeof *events)) return -EFAULT;
  service_ensure();
  EpollFile* set;
  int count;
  bool look_at_kernel;
  {
    Guard guard;
    const uint64_t now = base::monotonic_ns();
    set = set_at(fd);
    if (set == nullptr) return kPass;
    (void)guard.stack()->poll(now);
    const bool ready = set->ready() != 0;
    look_at_kernel =
        set->kernel_items != 0 && (!ready || ++set->turns >= kKernelEveryTurns || now - set->kernel_looked_ns > kKernelEveryNs);
    if (look_at_kernel) {
      set->turns = 0;
      set->kernel_looked_ns = now;
    }
    // The kernel's half comes first when it is due, with half of the room: a busy stack must not leave it none.
    int first = 0;
    if (look_at_kernel && ready) {
      const long got = settle_events_locked(set, events, ask_kernel(fd, events, static_cast<int>(capacity > 1 ? capacity / 2 : 1)));
      first = got > 0 ? static_cast<int>(got) : 0;
    }
    count = collect_ready(set, events + first, static_cast<int>(capacity) - first);
    if (count < 0) return count;
    count = merge_events(set, events, first, first + count);
  }
  if (look_at_kernel && count == 0) {
    const long got = settle_events(set, events, ask_kernel(fd, events, static_cast<int>(capacity)));
    if (got > 0) count = static_cast<int>(got);
  }
  if (count > 0 || deadline_ns == 0) return count;
  {
    Guard guard;
    if (set_at(fd) != set) return -EBADF;
    if (!begin_wait(set)) return -ENOMEM;
  }
  EpollCondition condition(set, fd, events, static_cast<int>(capacity));
  WaitOptions options;
  options.deadline_ns = deadline_ns;
  options.signal_mask = mask;
  options.signal_mask_bytes = mask_bytes;
  options.kernel_fds = condition.kernel_fds();
  options.kernel_fd_count = 1;
  options.kernel_asked = look_at_kernel;
  const long result = wait_for(condition, options);
  return result == -EAGAIN ? 0 : result;
}

// A wait in a family without a stack: the kernel's half alone. kPass: a stack is there (now), wait again the other way. kRestart: once
// more.
long wait_in_kernel(int fd, epoll_event* events, long capacity, uint64_t deadline_ns, const void* mask, long mask_bytes) noexcept {
  const Interruption interruption;
  EpollFile* set;
  {
    Guard guard;
    set = set_at(fd);
    if (set == nullptr || guard.stack() != nullptr) return kPass;
    set->bare_waiters++;
  }
  int timeout_ms = -1;
  if (deadline_ns != kForever) {
    const uint64_t now = base::monotonic_ns();
    const uint64_t left_ms = deadline_ns > now ? (deadline_ns - now + 999'999) / 1'000'000 : 0;
    timeout_ms = left_ms < INT32_MAX ? static_cast<int>(left_ms) : INT32_MAX;
  }
  long count = engine->sleep(SYS_epoll_pwait, fd, as_arg(events), capacity, timeout_ms, as_arg(mask), mask_bytes);
  const long all = count;
  Guard guard;
  if (!files().epolls.owns(set)) set = set_at(fd);  // it has moved: the process has joined a family (join.h)
  if (set == nullptr) return count;
  if (set->bare_waiters > 0) set->bare_waiters--;
  count = settle_events_locked(set, events, count);
  take_kick_back(set);
  if (count == -EINTR) return interruption.came() ? -EINTR : kRestart;  // the engine has signals of its own
  if (count != 0 || all <= 0) return count;
  return interruption.came() ? -EINTR : kPass;
}

// Serves one of the waits, or leaves it to the kernel.
long wait_somewhere(const zps_call& call, uint64_t deadline_ns, const void* mask, long mask_bytes) noexcept {
  const File* file = peek(call.arg[0]);
  if (file == nullptr || file->kind != FileKind::epoll || engine->thread()->vfork_child != 0) return kPass;
  const int fd = static_cast<int>(call.arg[0]);
  epoll_event* events = reinterpret_cast<epoll_event*>(call.arg[1]);
  const int capacity = static_cast<int>(call.arg[2]);
  if (the_stack() == nullptr) {
    if (deadline_ns == 0 && !static_cast<const EpollFile*>(file)->marked) return kPass;
    long result;
    do result = wait_in_kernel(fd, events, capacity, deadline_ns, mask, mask_bytes);
    while (result == kRestart);
    if (result != kPass || the_stack() == nullptr) return result;
  }
  return wait_in_set(fd, events, capacity, deadline_ns, mask, mask_bytes);
}

long create(const zps_call& call) noexcept {
  if (kernel_only() || engine->thread()->vfork_child != 0) return kPass;
  const long fd = kernel_call(call.nr, call.arg[0]);
  if (fd < 0) return fd;
  Guard guard;
  EpollFile* set = files().epolls.allocate();
  if (set == nullptr) return fd;
  set->fd_hint = static_cast<int>(fd);
  if (table_set(static_cast<int>(fd), set) != 0) files().epolls.release(set);
  return fd;
}

uint64_t deadline_from_ms(int64_t argument) noexcept {
  const int timeout_ms = static_cast<int>(argument);
  return timeout_ms < 0 ? kForever : deadline_after(static_cast<uint64_t>(timeout_ms) * 1'000'000u);
}

}  // namespace

long shim_epoll_create(const zps_call& call) noexcept { return create(call); }
long shim_epoll_create1(const zps_call& call) noexcept { return create(call); }

long control_anyhow(const zps_call& call) noexcept {
  const File* hint = peek(call.arg[0]);
  if (hint == nullptr || hint->kind != FileKind::epoll) return kPass;
  const int operation = static_cast<int>(call.arg[1]);
  zps_word_pair event{};
  if (operation != EPOLL_CTL_DEL) {
    event = load_event(call.arg[3]);
    if (event.word < 0) return event.word;
  }
  Guard guard;
  EpollFile* set = set_at(call.arg[0]);
  if (set == nullptr) return kPass;
  File* file = file_at(call.arg[2]);
  if (file == nullptr || file == set) return control_kernel(set, call);
  const uint32_t events = static_cast<uint32_t>(event.word);
  if (operation == EPOLL_CTL_ADD) return add_item(set, file, call, events, event.value);
  EpollItem* item = find_item(set, file, static_cast<int>(call.arg[2]));
  if (operation == EPOLL_CTL_MOD) return modify_item(item, call, events, event.value);
  if (operation != EPOLL_CTL_DEL) return -EINVAL;
  if (item == nullptr) return -ENOENT;
  if (item->in_kernel) (void)kernel_call(SYS_epoll_ctl, call.arg[0], EPOLL_CTL_DEL, item->fd, call.arg[3]);
  remove_item(item);
  return 0;
}

long shim_epoll_wait(const zps_call& call) noexcept { return wait_somewhere(call, deadline_from_ms(call.arg[3]), nullptr, 8); }

long shim_epoll_pwait(const zps_call& call) noexcept {
  return wait_somewhere(call, deadline_from_ms(call.arg[3]), reinterpret_cast<void*>(call.arg[4]), call.arg[5]);
}

long shim_epoll_pwait2(const zps_call& call) noexcept {
  uint64_t deadline_ns = kForever;
  if (call.arg[3] != 0) {
    timespec time;
    if (copy_in(&time, reinterpret_cast<void*>(call.arg[3]), sizeof time) != 0) return kPass;
    if (time.tv_sec < 0 || time.tv_nsec < 0 || time.tv_nsec >= 1'000'000'000) return kPass;
    if (time.tv_sec <= INT32_MAX)
      deadline_ns = deadline_after(static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec));
  }
  return wait_somewhere(call, deadline_ns, reinterpret_cast<void*>(call.arg[4]), call.arg[5]);
}

}  // namespace shim
