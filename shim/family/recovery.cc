// Making the family's lists and counts whole after a member died in the middle of changing them.
//
// What can be trusted: the `used` marks of pool cells, table entries (each one store), and the objects' own scalar fields.
// What cannot: links of any list, reference counts, free lists. So every list is emptied and filled again from the items, every count is
// taken anew from the tables, and what nobody refers to is freed.
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

template <class T>
void empty_list(base::List<T>& list) noexcept {
  new (&list) base::List<T>();
}

bool known_file(Counted* file) noexcept {
  return files().sockets.owns(static_cast<Socket*>(file)) || files().epolls.owns(static_cast<EpollFile*>(file));
}

// An item's links, as if it had never been in a list.
void forget_links(EpollItem* item) noexcept {
  static_cast<netstack::Observer&>(*item).prev = static_cast<netstack::Observer&>(*item).next = nullptr;
  static_cast<FileLink&>(*item).prev = static_cast<FileLink&>(*item).next = nullptr;
  static_cast<SetLink&>(*item).prev = static_cast<SetLink&>(*item).next = nullptr;
  static_cast<ReadyLink&>(*item).prev = static_cast<ReadyLink&>(*item).next = nullptr;
}

}  // namespace

void forget_lists() noexcept {
  files().sockets.for_each([](Socket* socket) {
    socket->refs = 0;
    empty_list(socket->registrations);
    if (netstack::Pollable* source = file_pollable(socket)) empty_list(source->observers);
  });
  files().epolls.for_each([](EpollFile* set) {
    set->refs = 0;
    empty_list(set->registrations);
    empty_list(set->items);
    empty_list(set->ready_items);
    empty_list(set->observers);
  });
}

namespace {

void relink_items() noexcept {
  files().items.for_each([](EpollItem* item) {
    forget_links(item);
    if (!files().epolls.owns(item->set) || !known_file(item->file) || item->file->parked == item) {
      files().items.release(item);
      return;
    }
    item->set->items.push_back(item);
    item->file->registrations.push_back(item);
  });
  files().sockets.for_each([](Socket* socket) { socket->parked = nullptr; });
}

void recount() noexcept {
  for (ProcessSlot& slot : family->slots) {
    if (slot.state.load(std::memory_order_relaxed) == SlotState::free) continue;
    for_each_entry(&slot, [&](int fd, Counted* file) {
      if (known_file(file)) {
        file->refs++;
      } else {
        slot.directory[static_cast<uint32_t>(fd) / kChunkEntries].load()->entry[static_cast<uint32_t>(fd) % kChunkEntries].store(nullptr);
      }
    });
  }
}

// Every sleeper is woken, to look and watch again; its nodes were in lists that are no more.
void restart_waiters() noexcept {
  family->nodes.for_each([](WaitNode* node) {
    node->prev = node->next = nullptr;
    family->nodes.release(node);
  });
  family->wire_watchers = 0;
  family->waiters.for_each([](Waiter* waiter) {
    waiter->nodes = nullptr;
    if (waiter->on_wire) family->wire_watchers++;
    if (waiter->pinned != nullptr && known_file(waiter->pinned)) {
      waiter->pinned->refs++;
    } else {
      waiter->pinned = nullptr;
    }
    waiter->notified = false;
    notify(waiter);
  });
}

// What a dead member had allocated and not yet put into a table.
void free_unreferenced() noexcept {
  files().sockets.for_each([](Socket* socket) {
    if (socket->refs != 0) return;
    socket->refs = 1;
    drop_reference(socket);
  });
  files().epolls.for_each([](EpollFile* set) {
    if (set->refs != 0) return;
    set->refs = 1;
    drop_reference(set);
  });
}

}  // namespace

void recover_family() noexcept {
  files().sockets.rebuild();
  files().epolls.rebuild();
  files().items.rebuild();
  family->waiters.rebuild();
  family->nodes.rebuild();
  family->chunks.rebuild();
  relink_items();
  recount();
  restart_waiters();
  free_unreferenced();
  files().items.for_each([](EpollItem* item) {
    attach_item(item);
    mark_ready(item);
  });
}

}  // namespace shim
