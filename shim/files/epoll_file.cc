// Items, ready lists and what becomes of registrations when a socket's side is decided.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/epoll_file.h"

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim/files/kernel_half.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// Also where the set was ready before: that is an edge for the sets that hold it (ep_poll_callback()).
void tell_who_watches(EpollFile* set) noexcept {
  for (netstack::Observer* observer = set->observers.front(); observer != nullptr; observer = set->observers.after(observer)) {
    observer->on_ready(*set, EPOLLIN | EPOLLRDNORM);
  }
}

// A program that accepts one connection a turn (nginx) gets a turn for every so many events while some wait. In ours all that a busy
// server's clients have sent since the last is ready at once: the last of 500 connections was accepted seconds after it was made.
constexpr int kBesideListener = 16;

bool is_listener(const EpollItem& item) noexcept {
  return item.file->kind == FileKind::socket && static_cast<const Socket*>(item.file)->state == SocketState::listening;
}

// The level of an item's file, as far as the item asks for it.
uint32_t level_of(EpollItem* item) noexcept {
  netstack::Pollable* source = file_pollable(item->file);
  return source == nullptr ? 0 : full_level(source) & item->mask();
}

}  // namespace

void EpollItem::on_ready(netstack::Pollable&, uint32_t ready_events) noexcept {
  if ((ready_events & mask()) == 0) return;
  if (!ReadyLink::linked()) set->ready_items.push_back(this);
  tell_who_watches(set);
}

// Takes items out that are not ready any more: an item that stays would not notify the next time (invariant 2).
uint32_t EpollFile::ready() const noexcept {
  EpollFile* self = const_cast<EpollFile*>(this);
  while (ReadyLink* link = self->ready_items.front()) {
    if (level_of(static_cast<EpollItem*>(link)) != 0) return EPOLLIN | EPOLLRDNORM;
    link->unlink();
  }
  return 0;
}

void mark_ready(EpollItem* item) noexcept {
  if (item->ReadyLink::linked()) return;
  item->set->ready_items.push_back(item);
  tell_who_watches(item->set);
}

void attach_item(EpollItem* item) noexcept {
  netstack::Pollable* source = file_pollable(item->file);
  if (source == nullptr) return;
  if (!item->netstack::Observer::linked()) source->observers.push_back(item);
  if (item->set->bare_waiters > 0) [[unlikely]] kick(item->set);
  if ((full_level(source) & item->mask()) != 0) mark_ready(item);
}

void drop_item(EpollItem* item) noexcept {
  if (item->file->parked == item) item->file->parked = nullptr;
  item->netstack::Observer::unlink();
  item->FileLink::unlink();
  item->SetLink::unlink();
  item->ReadyLink::unlink();
  if (item->in_kernel && item->set->kernel_items > 0) item->set->kernel_items--;
  files().items.release(item);
}

void remove_item(EpollItem* item) noexcept {
  File* file = item->file;
  if (item->in_kernel || file->kind != FileKind::socket || static_cast<Socket*>(file)->state != SocketState::stream) {
    drop_item(item);
    return;
  }
  drop_parked(file);
  park_item(item);
}

EpollItem* take_parked(File* file, const EpollFile* set, int fd) noexcept {
  EpollItem* item = file->parked;
  if (item == nullptr || item->set != set || item->fd != fd) return nullptr;
  item->armed = true;
  file->parked = nullptr;
  return item;
}

void drop_parked(File* file) noexcept {
  if (file->parked != nullptr) drop_item(file->parked);
}

int collect_ready(EpollFile* set, epoll_event* out, int capacity) noexcept {
  int count = 0;
  base::List<ReadyLink> again;
  EpollItem* listener = nullptr;
  while (count < capacity) {
    ReadyLink* link = set->ready_items.pop_front();
    if (link == nullptr) break;
    EpollItem* item = static_cast<EpollItem*>(link);
    const uint32_t level = level_of(item);
    if (level == 0) continue;
    if (zps_user_store_pair(&out[count], level, item->data) != 0) {
      set->ready_items.push_front(item);
      if (count == 0) count = -EFAULT;
      break;
    }
    count++;
    if ((item->events & EPOLLONESHOT) != 0) {
      item->armed = false;
      if (item->in_kernel) leave_kernel_half(item);  // EPOLL_CTL_MOD brings it back
    } else if (!item->edge()) {
      again.push_back(item);
      if (listener != nullptr || !is_listener(*item)) continue;
      listener = item;
      if (capacity - count > kBesideListener) capacity = count + kBesideListener;
    }
  }
  if (listener != nullptr && !set->ready_items.empty()) {  // cut short for it: it is the first of the next turn
    static_cast<ReadyLink*>(listener)->unlink();
    set->ready_items.push_front(listener);
  }
  while (ReadyLink* link = again.pop_front()) set->ready_items.push_back(link);
  return count;
}

void registrations_follow(File* file, bool dual) noexcept {
  drop_parked(file);
  for (FileLink* link = file->registrations.front(); link != nullptr; link = file->registrations.after(link)) {
    EpollItem* item = static_cast<EpollItem*>(link);
    if (item->in_kernel && !dual) leave_kernel_half(item);
    item->netstack::Observer::unlink();
    attach_item(item);
  }
}

void kick(EpollFile* set) noexcept {
  if (set->kicked_ns != 0 || the_stack() == nullptr) return;
  epoll_event event{EPOLLIN, {.u64 = kKickData}};
  set->kicked_ns = base::monotonic_ns();  // before the kernel has it: whoever sees its event must know it
  const long error = kernel_call(SYS_epoll_ctl, number_of(set), EPOLL_CTL_ADD, family->kick_fd, as_arg(&event));
  if (error != 0 && error != -EEXIST) set->kicked_ns = 0;
}

void take_kick_back(EpollFile* set) noexcept {
  if (set->kicked_ns == 0) return;
  if (set->bare_waiters > 0 && base::monotonic_ns() - set->kicked_ns < kKickNs) return;
  epoll_event unused{};
  (void)kernel_call(SYS_epoll_ctl, number_of(set), EPOLL_CTL_DEL, family->kick_fd, as_arg(&unused));
  set->kicked_ns = 0;
  set->bare_waiters = 0;
}

bool registrations_return(File* file) noexcept {
  bool all = true;
  drop_parked(file);
  for (FileLink* link = file->registrations.front(); link != nullptr; link = file->registrations.after(link)) {
    EpollItem* item = static_cast<EpollItem*>(link);
    item->netstack::Observer::unlink();
    item->ReadyLink::unlink();
    // Of one that has fired the kernel would tell HUP: it comes back with EPOLL_CTL_MOD.
    if (item->in_kernel || !item->armed) continue;
    if (peek(item->fd) != file || kernel_half_control(number_of(item->set), EPOLL_CTL_ADD, item, item->events, item->data) != 0) {
      all = false;
      continue;
    }
    item->in_kernel = true;
    item->set->kernel_items++;
  }
  return all;
}

void registrations_go(File* file) noexcept {
  for (FileLink* link = file->registrations.front(); link != nullptr; link = file->registrations.after(link)) {
    hand_over(static_cast<EpollItem*>(link));
  }
}

int number_of(EpollFile* set) noexcept {
  if (set->fd_hint >= 0 && peek(set->fd_hint) == set) return set->fd_hint;
  int found = -1;
  for_each_entry(my_slot, [&](int fd, const Counted* file) {
    if (found < 0 && file == set) found = fd;
  });
  return found;
}

}  // namespace shim
