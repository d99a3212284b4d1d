// Marks of one-shots, and events that have them.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/kernel_half.h"

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/placeholders.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// No address has these upper bits: a program's data that is a pointer or a small number is no mark.
constexpr uint64_t kMark = uint64_t{0x7a70} << 48;
constexpr uint64_t kMarkMask = uint64_t{0xffff} << 48;

uint64_t mark_of(const EpollItem* item) noexcept { return kMark | (reinterpret_cast<uint64_t>(item) & ~kMarkMask); }

bool is_mark(uint64_t data) noexcept { return (data & kMarkMask) == kMark && data != kKickData; }

EpollItem* item_of(EpollFile* set, uint64_t mark) noexcept {
  for (SetLink* link = set->items.front(); link != nullptr; link = set->items.after(link)) {
    auto* item = static_cast<EpollItem*>(link);
    if (mark_of(item) == mark) return item;
  }
  return nullptr;
}

// False if the event is not for the program.
bool settle(EpollFile* set, epoll_event* event) noexcept {
  if (event->data.u64 == kKickData && set->kicked_ns != 0) return false;
  if (!is_mark(event->data.u64)) return true;
  EpollItem* item = item_of(set, event->data.u64);
  if (item == nullptr) return !set->marked;
  if (!item->armed) return false;
  item->armed = false;
  item->ReadyLink::unlink();
  event->data.u64 = item->data;
  return true;
}

}  // namespace

long kernel_half_control(int set_fd, int operation, EpollItem* item, uint32_t events, uint64_t data) noexcept {
  if (item->file->kind == FileKind::socket) spoil_placeholder(static_cast<Socket*>(item->file));
  const bool is_written_here = item->file->kind == FileKind::datagram && has_two_sides(item->file);
  epoll_event event{is_written_here ? kernel_side_events(events) : events, {.u64 = data}};
  if ((events & EPOLLONESHOT) != 0) {
    item->set->marked = true;
    event.data.u64 = mark_of(item);
  }
  return kernel_call(SYS_epoll_ctl, set_fd, operation, item->fd, as_arg(&event));
}

void leave_kernel_half(EpollItem* item) noexcept {
  const int set_fd = peek(item->fd) == item->file ? number_of(item->set) : -1;
  epoll_event unused{};
  if (set_fd < 0 || kernel_call(SYS_epoll_ctl, set_fd, EPOLL_CTL_DEL, item->fd, as_arg(&unused)) != 0) return;
  item->in_kernel = false;
  if (item->set->kernel_items > 0) item->set->kernel_items--;
}

void hand_over(EpollItem* item) noexcept {
  if (!item->in_kernel) return;
  item->in_kernel = false;  // but kernel_items still counts it
  if (!item->armed || (item->events & EPOLLONESHOT) == 0 || peek(item->fd) != item->file) return;
  const int set_fd = number_of(item->set);
  epoll_event event{item->events, {.u64 = item->data}};
  if (set_fd >= 0) (void)kernel_call(SYS_epoll_ctl, set_fd, EPOLL_CTL_MOD, item->fd, as_arg(&event));
}

long settle_events_locked(EpollFile* set, epoll_event* events, long count) noexcept {
  if (set->kicked_ns == 0 && !set->marked) [[likely]] return count;
  long left = 0;
  bool kicked = false;
  for (long i = 0; i < count; i++) {
    kicked = kicked || events[i].data.u64 == kKickData;
    epoll_event event = events[i];
    if (settle(set, &event)) events[left++] = event;
  }
  if (kicked) take_kick_back(set);
  return count < 0 ? count : left;
}

long settle_events(EpollFile* set, epoll_event* events, long count) noexcept {
  if (count <= 0 || (set->kicked_ns == 0 && !set->marked)) [[likely]] return count;
  Guard guard;
  return settle_events_locked(set, events, count);
}

}  // namespace shim
