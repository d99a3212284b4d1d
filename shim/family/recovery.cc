// Making everything that a family shares whole after a member died in the middle of changing it.
// SPDX-License-Identifier: BSD-3-Clause
//
// What can be trusted is what one store each has written: the marks of slots and pool cells (a marked cell holds a whole object), table
// entries, and the scalar fields of objects. What cannot: links of lists, counts, free lists, and whether a pointer still leads to what it
// once led to. So nothing is undone or completed. Everything is derived anew from what the processes hold:
//
//   slots -> chunks, entries -> files; waiters -> pinned files; messages -> files in flight
//   files -> endpoints of the stack; items -> files and sets
//
// What is reached is in use, and once; the rest was being made or ended by the dead member, and its cell is freed as it is, without the
// steps of a close, some of which may have been taken. A description that says it is a connection or a listener and has no endpoint is
// undecided again, as before the call that made it one, or after the one that ended it.
//
// The next owner may die in here as well, at any instruction: then the one after it does all this again from the same marks.
#include <iterator>

#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

template <class T>
void empty_list(base::List<T>& list) noexcept {
  new (&list) base::List<T>();
}

bool known(Counted* file) noexcept {
  return files().sockets.owns(static_cast<Socket*>(file)) || files().epolls.owns(static_cast<EpollFile*>(file)) ||
         files().datagrams.owns(static_cast<DatagramSocket*>(file));
}

bool is_process(const ProcessSlot* slot) noexcept {
  return slot >= &all_slots().front() && slot <= &all_slots().back() && !is_free(*slot);
}

void rebuild_pools() noexcept {
  files().sockets.rebuild();
  files().epolls.rebuild();
  files().items.rebuild();
  files().notices.rebuild();
  files().datagrams.rebuild();
  family->waiters.rebuild();
  family->nodes.rebuild();
  family->chunks.rebuild();
}

void forget_counts_and_lists() noexcept {
  files().sockets.for_each([](Socket* socket) {
    socket->refs = 0;
    empty_list(socket->registrations);
  });
  files().datagrams.for_each([](DatagramSocket* socket) {
    socket->refs = 0;
    empty_list(socket->registrations);
  });
  files().epolls.for_each([](EpollFile* set) {
    set->refs = 0;
    empty_list(set->registrations);
    empty_list(set->items);
    empty_list(set->ready_items);
    empty_list(set->observers);
  });
}

// ---------------------------------------------------------------- what processes hold

void find_chunks() noexcept {
  uint32_t processes = 0;
  for (ProcessSlot& slot : all_slots()) {
    if (is_free(slot)) continue;
    processes++;
    slot.chunks = 0;
    for (uint32_t i = 0; i < kDirectoryEntries; i++) {
      FdChunk* chunk = slot.directory[i].load(std::memory_order_relaxed);
      if (chunk == nullptr) continue;
      if (family->chunks.owns(chunk) && chunk->slot == &slot && chunk->index == i) {
        slot.chunks = i + 1;
      } else {
        slot.directory[i].store(nullptr, std::memory_order_relaxed);
      }
    }
  }
  family->processes.store(processes, std::memory_order_relaxed);
  family->chunks.for_each([](FdChunk* chunk) {
    if (is_process(chunk->slot) && chunk->index < kDirectoryEntries && chunk->slot->directory[chunk->index].load() == chunk) return;
    family->chunks.release(chunk);
  });
}

void count_entries() noexcept {
  for (ProcessSlot& slot : all_slots()) {
    if (is_free(slot)) continue;
    for_each_entry(&slot, [&](int fd, Counted* file) {
      if (known(file)) {
        file->refs++;
      } else {
        slot.directory[static_cast<uint32_t>(fd) / kChunkEntries].load()->entry[static_cast<uint32_t>(fd) % kChunkEntries].store(nullptr);
      }
    });
  }
}

// Sleepers keep their wake-up slots and what they have pinned. What they watched they will watch again: all of them are woken at the end.
void find_waiters() noexcept {
  family->nodes.for_each([](WaitNode* node) {
    node->prev = node->next = nullptr;
    family->nodes.release(node);
  });
  family->wire_watchers = 0;
  family->bells_taken = 0;
  const netstack::WakeBells* const bells = bells_in_use();
  for (int bell = 0; bells != nullptr && bell < netstack::WakeBells::kBells; bell++) bells->vacate(bell);
  for (uint64_t& taken : family->wake_taken) taken = 0;
  family->waiters.for_each([](Waiter* waiter) {
    waiter->nodes = nullptr;
    if (!is_process(waiter->process)) {
      family->waiters.release(waiter);
      return;
    }
    if (waiter->on_wire) family->wire_watchers++;
    if (waiter->bell != netstack::WakeBells::kCommon) family->bells_taken |= uint64_t{1} << waiter->bell;
    if (waiter->wake_slot >= 0) family->wake_taken[waiter->wake_slot / 64] |= uint64_t{1} << (waiter->wake_slot % 64);
    if (waiter->pinned == nullptr) return;
    if (known(waiter->pinned)) {
      waiter->pinned->refs++;
    } else {
      waiter->pinned = nullptr;
    }
  });
}

void free_what_nobody_holds() noexcept {
  files().sockets.for_each([](Socket* socket) {
    if (socket->refs == 0) files().sockets.release(socket);
  });
  files().epolls.for_each([](EpollFile* set) {
    if (set->refs == 0) files().epolls.release(set);
  });
  files().datagrams.for_each([](DatagramSocket* socket) {
    if (socket->refs == 0) files().datagrams.release(socket);
  });
}

// ---------------------------------------------------------------- what files refer to

void hold_endpoints(netstack::Stack* stack, Socket* socket) noexcept {
  const bool connection = socket->state == SocketState::stream, listening = socket->state == SocketState::listening;
  if (!connection || !stack->hold(socket->stream)) socket->stream = nullptr;
  if (!listening || !stack->hold(socket->listener)) socket->listener = nullptr;
  if (!stack->hold(socket->binding)) socket->binding = nullptr;
  if (netstack::Pollable* source = file_pollable(socket)) {
    empty_list(source->observers);
  } else if (connection || listening) {
    socket->state = SocketState::undecided;
    socket->dual = false;
  }
}

// One that has lost its endpoint is the kernel's until it needs another.
void hold_endpoint(netstack::Stack* stack, DatagramSocket* socket) noexcept {
  if (stack->hold(socket->reserve)) {
    empty_list(socket->reserve->observers);
  } else {
    socket->reserve = nullptr;
  }
  if (stack->hold(socket->endpoint)) {
    empty_list(socket->endpoint->observers);
  } else {
    socket->endpoint = nullptr;
    socket->both = socket->bound_here = false;
  }
}

// A parked item waits for a registration that the program would have to make: it is none.
void relink_items() noexcept {
  files().items.for_each([](EpollItem* item) {
    static_cast<netstack::Observer&>(*item).prev = static_cast<netstack::Observer&>(*item).next = nullptr;
    static_cast<FileLink&>(*item).prev = static_cast<FileLink&>(*item).next = nullptr;
    static_cast<SetLink&>(*item).prev = static_cast<SetLink&>(*item).next = nullptr;
    static_cast<ReadyLink&>(*item).prev = static_cast<ReadyLink&>(*item).next = nullptr;
    if (!files().epolls.owns(item->set) || !known(item->file) || item->file->parked == item) {
      files().items.release(item);
      return;
    }
    item->set->items.push_back(item);
    item->file->registrations.push_back(item);
  });
  files().sockets.for_each([](Socket* socket) { socket->parked = nullptr; });
  files().datagrams.for_each([](DatagramSocket* socket) { socket->parked = nullptr; });
}

void relink_notices() noexcept {
  const auto check = [](File* file) {
    if (!files().notices.owns(file->notice) || file->notice->file != file) file->notice = nullptr;
  };
  files().sockets.for_each(check);
  files().datagrams.for_each(check);
  files().notices.for_each([](AsyncNotice* notice) {
    notice->prev = notice->next = nullptr;
    notice->muted = false;
    if (!known(notice->file) || notice->file->notice != notice) files().notices.release(notice);
  });
}

// ---------------------------------------------------------------- what has become of them

void tell_owners() noexcept {
  const auto tell = [](File* file) {
    attach_notice(file);
    netstack::Pollable* source = file->notice != nullptr ? file_pollable(file) : nullptr;
    if (source != nullptr && (source->ready() & EPOLLERR) != 0) file->notice->on_ready(*source, EPOLLERR);
  };
  files().sockets.for_each(tell);
  files().datagrams.for_each(tell);
}

void tell_sets() noexcept {
  files().sockets.for_each([](Socket* socket) {
    if (socket->state == SocketState::undecided) (void)registrations_return(socket);
  });
  files().datagrams.for_each([](DatagramSocket* socket) {
    if (socket->endpoint == nullptr || socket->both) (void)registrations_return(socket);
  });
  files().items.for_each([](EpollItem* item) {
    attach_item(item);
    mark_ready(item);
  });
}

void wake_everybody() noexcept {
  family->waiters.for_each([](Waiter* waiter) {
    waiter->notified = false;
    notify(waiter);
  });
}

}  // namespace

void recover_family(netstack::Stack* stack) noexcept {
  rebuild_pools();
  forget_counts_and_lists();
  find_chunks();
  count_entries();
  find_waiters();
  recount_flights(known);
  free_what_nobody_holds();
  if (stack != nullptr) {
    stack->forget_holders();
    files().sockets.for_each([&](Socket* socket) { hold_endpoints(stack, socket); });
    files().datagrams.for_each([&](DatagramSocket* socket) { hold_endpoint(stack, socket); });
  }
  relink_items();
  relink_notices();
  if (stack != nullptr) stack->recover();
  tell_sets();
  tell_owners();
  wake_everybody();
}

}  // namespace shim
