// epoll_ctl as event loops call it all the time: a connection's registration changed, parked, or taken up again.
// SPDX-License-Identifier: BSD-3-Clause
//
// Such a call is so short that keeping sixteen vector registers around it is a seventh of its price. So the entry keeps none for this
// number, this file is compiled without vector instructions, and so is all it reaches: Pollable::ready() of a stream, by contract. Whatever
// else there is to do, and every case that is not the usual one, is left to control_anyhow(), around which the registers are kept here.
// A test follows all calls from the dispatch on and looks for vector registers (tests/shim/vectors_test.py).
#include "shim/calls/calls.h"
#include "shim/calls/epoll_ctl.h"
#include "shim/family/family.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"

namespace shim {
namespace {

constexpr long kUnusual = kPass + 1;

void set_and_look(EpollFile* set, EpollItem* item, netstack::Pollable* source, const zps_word_pair& event) noexcept {
  item->events = static_cast<uint32_t>(event.word);
  item->data = event.value;
  item->armed = true;
  if ((full_level(source) & item->mask()) != 0 && !item->ReadyLink::linked()) set->ready_items.push_back(item);
}

// With the lock held.
long control_connection(EpollFile* set, Socket* socket, int operation, int fd, const zps_word_pair& event) noexcept {
  if (socket->state != SocketState::stream || (event.word & EPOLLEXCLUSIVE) != 0) return kUnusual;
  if (set->bare_waiters != 0 || !set->observers.empty()) return kUnusual;  // somebody may have to be told
  if (operation == EPOLL_CTL_ADD) {
    EpollItem* parked = socket->parked;
    if (parked == nullptr || parked->set != set || parked->fd != fd) return kUnusual;
    set_and_look(set, parked, socket->stream, event);
    socket->parked = nullptr;
    return 0;
  }
  EpollItem* item = find_item(set, socket, fd);
  if (item == nullptr || item->in_kernel) return kUnusual;
  if (operation == EPOLL_CTL_MOD && (item->events & EPOLLEXCLUSIVE) == 0) {
    set_and_look(set, item, socket->stream, event);
    return 0;
  }
  if (operation != EPOLL_CTL_DEL || socket->parked != nullptr) return kUnusual;
  park_item(item);
  return 0;
}

long control_as_favourite(const zps_call& call, EpollFile* set) noexcept {
  const int operation = static_cast<int>(call.arg[1]);
  zps_word_pair event{};
  if (operation != EPOLL_CTL_DEL) {
    event = load_event(call.arg[3]);
    if (event.word < 0) return kUnusual;
  }
  netstack::Stack* stack = the_stack();
  if (stack == nullptr || exiting.load(std::memory_order_relaxed) || !stack->lock.enter_as_favourite()) return kUnusual;
  File* file = peek(call.arg[2]);
  const bool usual = peek(call.arg[0]) == set && file != nullptr && file->kind == FileKind::socket;
  const long result =
      usual ? control_connection(set, static_cast<Socket*>(file), operation, static_cast<int>(call.arg[2]), event) : kUnusual;
  stack->lock.leave_as_favourite();
  return result;
}

}  // namespace

long shim_epoll_ctl(const zps_call& call) noexcept {
  File* file = peek(call.arg[0]);
  if (file == nullptr || file->kind != FileKind::epoll) return kPass;
  const long result = control_as_favourite(call, static_cast<EpollFile*>(file));
  return result != kUnusual ? result : zps_keep_vectors(call, control_anyhow);
}

}  // namespace shim
