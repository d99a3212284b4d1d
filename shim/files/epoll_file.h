// An epoll set that holds stack sockets and kernel descriptors at once.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. One epoll_wait must report both sides, with the program's data untouched, in level, edge and one-shot mode;
// a socket may be in several sets, and several times in one set through dup; sets nest; other members of the family use the same set.
//
// What Linux does. A registration (item) belongs to the pair (open file description, number). Each watched file calls the item when
// it becomes ready, and the item queues itself on the set's ready list. epoll_wait walks that list, asks each file anew for its level,
// reports what is set, and puts level-triggered items back at the end.
//
// Our choice: the same, for the stack's part. The descriptor of a set is a real kernel epoll descriptor that holds the program's
// kernel descriptors and nothing of ours, so the kernel's events need no filter. A stack socket is an item in shared memory with an
// Observer on the stack's endpoint. A wait looks at the ready list under the lock; the kernel's half is fetched by a plain epoll_wait with
// timeout 0, at every wait that found nothing and every so often (kKernelEveryTurns, kKernelEveryNs) at one that found something,
// so that neither side starves. A sleep is one ppoll on { the set's own descriptor, the wire, the thread's wake-up eventfd }.
// Rejected: a hidden outer epoll set per thread (one more kernel object per thread and set, and exactly the same events); putting
// wire and wake-up descriptors into the program's set (their events would have to be taken out of what the program sees).
//
// A listener that listens on both sides, a socket whose side is undecided, and a nested set are registered on both sides; if both report
// in one wait, the two events become one.
//
// Event loops that keep a list per direction remove and add the same registration several times per request. So a removed item of a
// connection is parked: it stays linked where it is, tells nothing, and is what the next registration of the same number with the same set
// gets. For the program it does not exist. A file parks one item, the one removed last.
//
// Invariants
//  1 An item is in its file's list, in its set's list, and, while the file has an endpoint, in the endpoint's observers.
//  2 An item is in the ready list if its file may be ready; whoever takes it out has looked at the level.
//  3 Items die with the last reference to their file or their set, never with a number.
//  4 The kernel's half is changed by the process that calls, through its own number of the set.
//  5 A one-shot tells once, whichever half it is in (kernel_half.h).
//  6 A parked item is not armed, not in the ready list and not in the kernel's half, and its file is a connection.
//
// Known limits: EPOLLEXCLUSIVE wakes every set (more wake-ups, never fewer); a set that already sleeps when the family's first
// stack is made is woken by a descriptor put into its kernel half for that moment (kick), whose event is taken out again.
// Sources: epoll(7), epoll_ctl(2); the behaviour is compared with the kernel's by the differential tests.
#pragma once

#include <sys/epoll.h>

#include "shim/files/datagram_socket.h"
#include "shim/files/file.h"

namespace shim {

struct SetLink : base::ListNode {};
struct ReadyLink : base::ListNode {};

class EpollFile;

class EpollItem final : public netstack::Observer, public FileLink, public SetLink, public ReadyLink {
 public:
  EpollItem(EpollFile* item_set, File* item_file, int item_fd) noexcept : set(item_set), file(item_file), fd(item_fd) {}

  void on_ready(netstack::Pollable& source, uint32_t events) noexcept override;

  // The bits this item reports: what was asked for, and the two that cannot be refused. Nothing after a one-shot fired.
  [[nodiscard]] uint32_t mask() const noexcept { return armed ? (events & ~kFlags) | EPOLLERR | EPOLLHUP : 0; }
  [[nodiscard]] bool edge() const noexcept { return (events & EPOLLET) != 0; }

  static constexpr uint32_t kFlags = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;

  EpollFile* set;
  File* file;
  int fd;
  uint32_t events = 0;
  uint64_t data = 0;
  bool armed = true;       // false: a one-shot that fired, or a parked item
  bool in_kernel = false;  // the kernel's set holds the placeholder too
};

class EpollFile final : public File, public netstack::Pollable {
 public:
  EpollFile() noexcept : File(FileKind::epoll) {}

  [[nodiscard]] uint32_t ready() const noexcept override;

  base::List<SetLink> items;
  base::List<ReadyLink> ready_items;
  int fd_hint = -1;           // the number it was made with; other members may have another
  uint32_t kernel_items = 0;  // upper bound of what the kernel's half holds
  bool marked = false;        // its kernel's half has had a mark for data (kernel_half.h)
  uint32_t turns = 0;         // waits since the kernel's half was looked at
  uint64_t kernel_looked_ns = 0;
  uint32_t bare_waiters = 0;  // threads that sleep in the kernel's half alone, from before there was a stack
  uint64_t kicked_ns = 0;     // since when the kernel's half holds the family's kick descriptor; 0: it does not
};

inline constexpr uint64_t kKickNs = 100'000'000;  // a kick lasts so long at most
// The data of the kick descriptor's event.
inline constexpr uint64_t kKickData = 0x7a70'737e'6b69'636b;

inline constexpr uint32_t kKernelEveryTurns = 32;
inline constexpr uint64_t kKernelEveryNs = 100'000;

// What readiness to look at, or nullptr if the stack has none for this file (yet).
[[nodiscard]] inline netstack::Pollable* file_pollable(File* file) noexcept {
  if (file->kind != FileKind::socket) [[unlikely]] {
    if (file->kind == FileKind::datagram) return static_cast<DatagramSocket*>(file)->endpoint;
    return static_cast<EpollFile*>(file);
  }
  Socket* socket = static_cast<Socket*>(file);
  if (socket->stream != nullptr) return socket->stream;
  return socket->listener;
}

// Whether the placeholder is registered in the kernel's half beside an endpoint of the stack's: both sides have the socket.
[[nodiscard]] inline bool has_two_sides(const File* file) noexcept {
  return file->kind == FileKind::socket ? static_cast<const Socket*>(file)->dual
                                        : file->kind == FileKind::datagram && static_cast<const DatagramSocket*>(file)->both;
}

// Puts an item on its set's ready list, and tells whoever waits for the set. With the lock held.
void mark_ready(EpollItem* item) noexcept;
// Connects an item with its file's endpoint, once there is one, and looks at its level.
void attach_item(EpollItem* item) noexcept;
// Takes an item out of everything and frees it. The kernel's half is the caller's business.
void drop_item(EpollItem* item) noexcept;
// Removes a registration as drop_item() does, or parks it.
void remove_item(EpollItem* item) noexcept;
inline void park_item(EpollItem* item) noexcept {
  item->file->parked = item;
  item->armed = false;
  item->ReadyLink::unlink();
}
// A file's parked item for this set and number, armed again, or nullptr. And forgets the parked item, whatever it is for.
[[nodiscard]] EpollItem* take_parked(File* file, const EpollFile* set, int fd) noexcept;
void drop_parked(File* file) noexcept;
// Moves ready events to the program's array `out` (at most `capacity`), oldest first, level-triggered items to the end of the line.
// How many, or -EFAULT.
[[nodiscard]] int collect_ready(EpollFile* set, epoll_event* out, int capacity) noexcept;
// A file's side was decided: its registrations follow (kernel's half removed unless `dual`; endpoint observed).
void registrations_follow(File* file, bool dual) noexcept;
// Wakes those who sleep in a set's kernel half alone: it has something of the stack now. And takes the kick back when they are awake,
// or have had time enough: a thread that left its sleep by siglongjmp never says so.
void kick(EpollFile* set) noexcept;
void take_kick_back(EpollFile* set) noexcept;
// A file is undecided again: the kernel's half takes its registrations back. False if it cannot, as of a number that is closed.
bool registrations_return(File* file) noexcept;
// A file is the kernel's for good, and so are its registrations.
void registrations_go(File* file) noexcept;
// The number of `set` in this process, or -1.
[[nodiscard]] int number_of(EpollFile* set) noexcept;

}  // namespace shim
