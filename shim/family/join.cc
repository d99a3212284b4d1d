// The side of the process that joins: asks at the door, attaches, and takes along what it has open.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/join.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/high_fd.h"
#include "base/robust_lock.h"
#include "base/shared_memory.h"
#include "base/syscall.h"
#include "shim/family/door.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/family_memory.h"
#include "shim/family/in_flight.h"
#include "shim/family/process.h"
#include "shim/family/service.h"
#include "shim/family/succession.h"
#include "shim/family/wait.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kAtMostMs = 10'000;
constexpr int kMostMoved = 256;

// One entry of the old table, and its file in the new memory.
struct Moved {
  int fd;
  const File* old;  // only compared: its memory may be gone
  File* fresh;
  union {
    alignas(16) char socket[sizeof(Socket)];
    char datagram[sizeof(DatagramSocket)];
    char epoll[sizeof(EpollFile)];
  } bytes;
};
Moved* moved = nullptr;
int moved_count = 0;

bool has_tried = false;

// Whether nothing refers to it but the table.
bool may_move(const File* file) noexcept {
  if (!file->registrations.empty() || file->notice != nullptr || file->parked != nullptr) return false;
  if (file->kind == FileKind::epoll) {
    const auto* set = static_cast<const EpollFile*>(file);
    return set->items.empty() && set->observers.empty() && set->kicked_ns == 0;
  }
  if (file->kind == FileKind::datagram) {
    const auto* socket = static_cast<const DatagramSocket*>(file);
    return socket->endpoint == nullptr && socket->reserve == nullptr;
  }
  const auto* socket = static_cast<const Socket*>(file);
  return socket->state == SocketState::undecided && !socket->has_port && !socket->stack_bound && socket->binding == nullptr;
}

size_t size_of(FileKind kind) noexcept {
  return kind == FileKind::socket ? sizeof(Socket) : kind == FileKind::datagram ? sizeof(DatagramSocket) : sizeof(EpollFile);
}

// With the old lock held. nullptr, or why it cannot be done.
const char* list_own_files() noexcept {
  const long memory =
      kernel_call(SYS_mmap, 0, kMostMoved * sizeof(Moved), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory < 0 && memory > -4096) return "there is no memory left";
  moved = reinterpret_cast<Moved*>(memory);
  release_this_waiter();
  if (family->waiters.in_use() > 0) return "its other threads wait";
  moved_count = 0;
  const char* why = nullptr;
  for_each_entry(my_slot, [&](int fd, Counted* entry) {
    if (moved_count == kMostMoved || !may_move(static_cast<File*>(entry))) {
      why = "its own sockets are bound or watched";
    } else {
      const auto* const file = static_cast<const File*>(entry);
      moved[moved_count].fd = fd;
      moved[moved_count].old = file;
      memcpy(&moved[moved_count++].bytes, static_cast<const void*>(file), size_of(file->kind));
    }
  });
  return why;
}

// The same object in the new memory: what it says of itself, and none of its links.
template <class T, class P, class... A>
File* copy_of(const T& old, P& pool, A... arguments) noexcept {
  T* const fresh = pool.allocate(arguments...);
  if (fresh == nullptr) return nullptr;
  memcpy(static_cast<void*>(fresh), &old, sizeof old);
  fresh->refs = 0;
  new (&fresh->registrations) base::List<FileLink>();
  return fresh;
}

File* copy_file(const File& old) noexcept {
  if (old.kind == FileKind::socket)
    return copy_of(static_cast<const Socket&>(old), files().sockets, static_cast<const Socket&>(old).domain);
  if (old.kind == FileKind::datagram)
    return copy_of(static_cast<const DatagramSocket&>(old), files().datagrams, static_cast<const DatagramSocket&>(old).domain);
  auto* const set = static_cast<EpollFile*>(copy_of(static_cast<const EpollFile&>(old), files().epolls));
  if (set == nullptr) return nullptr;
  new (&set->items) base::List<SetLink>();
  new (&set->ready_items) base::List<ReadyLink>();
  new (&set->observers) base::List<netstack::Observer>();
  return set;
}

// With the new lock held. What does not find room is the kernel's from now on.
void move_own_files() noexcept {
  for (int i = 0; i < moved_count; i++) {
    for (int j = 0; j < i && moved[i].fresh == nullptr; j++) {
      if (moved[j].old == moved[i].old) moved[i].fresh = moved[j].fresh;
    }
    if (moved[i].fresh == nullptr) moved[i].fresh = copy_file(*reinterpret_cast<const File*>(&moved[i].bytes));
    if (moved[i].fresh != nullptr) (void)table_set(moved[i].fd, moved[i].fresh);
  }
}

// Waits for a message there, through signals: the kernel writes what is left of the time.
bool comes(int fd) noexcept {
  pollfd one{fd, POLLIN, 0};
  timespec at_most{kAtMostMs / 1000, 0};
  long ready;
  do {
    ready = kernel_call(SYS_ppoll, as_arg(&one), 1, as_arg(&at_most), 0, 8);
  } while (ready == -EINTR);
  return ready == 1;
}

void close_hidden(const uint64_t (&hidden)[base::kHighFdWords]) noexcept {
  for (unsigned fd = 0; fd < base::kHighFdWords * 64; fd++) {
    if ((hidden[fd / 64] >> fd % 64 & 1) != 0) (void)base::close_high_fd(static_cast<int>(fd));
  }
}

// By which the family is asked.
struct Way {
  int over;  // this process's end of what it is answered by
  // An envelope's door, and the other end, which is closed here; negative: `over` leads to a network's name.
  int door, their_end;
  bool closed = false;  // the other side has closed it without a word
  uintptr_t elsewhere = 0;  // where this process's code would have to lie

  [[nodiscard]] bool is_by_name() const noexcept { return door < 0; }
};

bool is_trusted(const ucred& who) noexcept {
  return who.pid > 0 && (who.uid == 0 || who.uid == static_cast<uid_t>(kernel_call(SYS_getuid)));
}

// From a process of this user or of root: whoever has sent the envelope need not be one, and what is mapped is believed. Who has a
// network's name is known.
long receive_from_own(const Way& way, void* data, unsigned long bytes, int* fds, int count) noexcept {
  ucred sender{};
  const long got = receive_with(way.over, data, bytes, fds, count, 0, &sender);
  if (got < 0 || way.is_by_name() || is_trusted(sender)) return got;
  for (int i = 0; i < count; i++) (void)kernel_call(SYS_close, fds[i]);
  return -EPERM;
}

// Puts what is passed under the numbers that it has in the family.
const char* take_hidden(const Way& way, int count, uint64_t (&hidden)[base::kHighFdWords]) noexcept {
  while (count > 0) {
    Passed message{};
    int fds[kMostPassed];
    if (!comes(way.over)) return "nobody answered at its door";
    {
      const base::RaisedFdLimit raised;
      // So many as the message says: looked at first.
      const bool came = kernel_call(SYS_recvfrom, way.over, as_arg(&message), sizeof message, MSG_PEEK, 0, 0) == sizeof message;
      if (!came || message.count < 1 || message.count > kMostPassed ||
          receive_from_own(way, &message, sizeof message, fds, message.count) < 0)
        return "its descriptors did not come";
    }
    const char* why = nullptr;
    for (int i = 0; i < message.count; i++) {
      const int number = message.numbers[i];
      if (why == nullptr && kernel_call(SYS_fcntl, number, F_GETFD) >= 0) why = "this process has something else under its numbers";
      if (why != nullptr || base::move_fd_to(fds[i], number) < 0) {
        (void)kernel_call(SYS_close, fds[i]);
        if (why == nullptr) why = "this process may not have its descriptors (RLIMIT_NOFILE)";
        continue;
      }
      base::adopt_high_fd(number);
      hidden[number / 64] |= uint64_t{1} << number % 64;
    }
    if (why != nullptr) return why;
    count -= message.count;
  }
  return nullptr;
}

long ring(const Way& way) noexcept {
  const Visit visit{base::build_id_of(__ehdr_start), static_cast<int32_t>(kernel_call(SYS_getpid)),
                    reinterpret_cast<uint64_t>(__ehdr_start)};
  if (way.is_by_name()) return send_with(way.over, &visit, sizeof visit, nullptr, 0);
  const long sent = send_with(way.door, &visit, sizeof visit, &way.their_end, 1);
  (void)kernel_call(SYS_close, way.their_end);
  return sent;
}

const char* ask(Way& way, int* count) noexcept {
  const long sent = ring(way);
  way.closed = way.is_by_name() && (sent == -EPIPE || sent == -ECONNRESET);
  if (sent < 0 || !comes(way.over)) return "nobody answered at its door";
  static Answer answer;
  const long came = kernel_call(SYS_recvfrom, way.over, as_arg(&answer), sizeof answer, MSG_PEEK, 0, 0);
  way.closed = came == 0 || came == -ECONNRESET;
  if (came != sizeof answer) return "its answer is damaged";
  int ticket;
  const bool refuses = answer.why[0] != '\0';
  if (receive_from_own(way, &answer, sizeof answer, &ticket, refuses ? 0 : 1) < 0) return "its answer is damaged, or another user's";
  way.elsewhere = refuses ? answer.elsewhere : 0;
  if (refuses) return answer.why;
  const bool is_read = read_ticket(ticket);
  (void)kernel_call(SYS_close, ticket);
  *count = answer.count;
  return is_read ? nullptr : "its answer is damaged";
}

// As it was, in memory that is new.
void go_on_alone() noexcept {
  CHECK(map_family());
  my_slot = &family->slots[0];
  move_own_files();
}

const char* attach_and_move(const Way& way, int count) noexcept {
  uint64_t hidden[base::kHighFdWords] = {};
  Family* own = family;
  const bool in_the_way = ticket_is_of_own_place();
  const char* why = in_the_way && !is_only_thread() ? "its memory lies in the way of theirs, and it has threads" : nullptr;
  if (why == nullptr) why = take_hidden(way, count, hidden);
  if (why == nullptr && in_the_way) {
    unmap_family();
    own = nullptr;
  }
  if (why == nullptr) why = attach_by_ticket(SlotState::forking);
  if (why != nullptr) {
    base::abandon_shared();
    close_hidden(hidden);
    family = own;
    if (own == nullptr) go_on_alone();
    return why;
  }
  service_hold_slot(my_slot);
  SlotState state = SlotState::forking;
  CHECK(my_slot->state.compare_exchange_strong(state, SlotState::live));  // nobody takes this process for dead
  service_introduce();
  measure_spinning();
  const Guard guard;
  move_own_files();
  service_forget();
  return nullptr;
}

bool has_own_stack() noexcept { return the_stack() != nullptr || kernel_only() || in_vfork_child() || base::shared_fd() >= 0; }
constexpr char kHasOwn[] = "it has a stack of its own";

const char* join_by(Way& way) noexcept {
  const char* why;
  bool is_first;
  {
    const Guard guard;  // in which the try of another thread is waited for
    is_first = !has_tried;
    has_tried = true;
    why = has_own_stack() ? kHasOwn : is_first ? list_own_files() : "it could not join before";
    if (why == nullptr) Guard::forking.store(base::thread_id(), std::memory_order_relaxed);
  }
  if (why == nullptr) {
    int count = 0;
    why = ask(way, &count);
    if (why == nullptr) why = attach_and_move(way, count);
    if (way.closed) has_tried = false;  // nothing has changed
    Guard::forking.store(0, std::memory_order_release);
    if (why == nullptr) service_start();  // the others may end while this process waits for something else than sockets
  } else if (!way.is_by_name()) {
    (void)kernel_call(SYS_close, way.their_end);
  }
  if (is_first && moved != nullptr) (void)kernel_call(SYS_munmap, as_arg(moved), kMostMoved * sizeof(Moved));
  return why;
}

}  // namespace

const char* join_family(int envelope) noexcept {
  if (has_own_stack()) return kHasOwn;
  const int door = door_of(envelope);
  int ends[2];
  if (door < 0 || kernel_call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, as_arg(ends)) != 0) {
    if (door >= 0) (void)kernel_call(SYS_close, door);
    return "there is no descriptor left";
  }
  const int on = 1;
  (void)kernel_call(SYS_setsockopt, ends[0], SOL_SOCKET, SO_PASSCRED, as_arg(&on), sizeof on);
  Way way{ends[0], door, ends[1]};
  const char* const why = join_by(way);
  for (const int fd : {door, ends[0]}) (void)kernel_call(SYS_close, fd);
  return way.elsewhere != 0 ? succeed(way.elsewhere) : why;
}

const char* join_over(int over, bool* again) noexcept {
  Way way{over, -1, -1};
  const char* const why = join_by(way);
  *again = way.closed;
  return way.closed || the_stack() != nullptr ? nullptr : why;  // another thread may have joined meanwhile
}

}  // namespace shim
