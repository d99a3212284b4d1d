// exec in the child of a vfork: which of its descriptors are sockets of the stack, and a place in the family for the next program.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. posix_spawn(), system(), shells and Python's subprocess execute programs from such a child. It has descriptors of its own,
// on its parent's memory: what it does to them (dup2, close) is the kernel's business alone, so the parent's table does not tell what they
// are.
//
// How. A placeholder is a socket of the kernel's, with a number of its own (st_ino). What the child would hand on is compared with what the
// parent has open (/proc/PID/fd), which costs nothing where there is no socket among it: the usual case. The child gets a slot, as after a
// fork, in which these sockets are counted once more, and holds its byte itself; a record lock belongs to the table of descriptors, and
// survives the exec. It takes the lock under its own thread id, since its parent's thread would look alive if it died.
//
// Known limits: epoll sets, which the kernel tells apart by nothing, and numbers that are neither below kLow nor sockets of the parent's
// are not handed on; where the parent's descriptors may not be looked at, a socket has to have the number that it has there.
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>

#include "base/high_fd.h"
#include "base/robust_lock.h"
#include "base/syscall.h"
#include "base/thread_variables.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/process.h"
#include "shim/family/service.h"
#include "shim/files/file.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kLow = 64;
constexpr int kMost = 128;
constexpr uint32_t kUnknown = UINT32_MAX;

// Of the child of this thread, which shares it: what it has prepared. A ticket without a slot says where the code lies, and may be the
// thread's own.
ZPS_THREAD_VARIABLE(ProcessSlot*, spawned_slot)
ZPS_THREAD_VARIABLE(int, spawned_ticket)
// And the thread's own id, while the child takes locks as who it is: it may die there, and leave its name to the thread.
ZPS_THREAD_VARIABLE(uint32_t, own_id)

struct Survivor {
  int fd;
  uint64_t inode;
  Counted* file;
};

struct Survivors {
  Survivor list[kMost];
  int count = 0;
};

void take_own_name_back() noexcept {
  if (own_id() == 0) return;
  base::know_thread_id(own_id() != kUnknown ? own_id() : 0);
  own_id() = 0;
}

// The child takes locks as who it is, for a scope.
class OwnName {
 public:
  OwnName() noexcept {
    own_id() = base::cached_thread_id() != 0 ? base::cached_thread_id() : kUnknown;
    base::know_thread_id(static_cast<uint32_t>(kernel_call(SYS_gettid)));
  }
  ~OwnName() { take_own_name_back(); }
  OwnName(const OwnName&) = delete;
  OwnName& operator=(const OwnName&) = delete;
};

// Adds `fd` if it is a socket that survives.
void look_at(int fd, Survivors& out) noexcept {
  struct stat status{};
  const long flags = kernel_call(SYS_fcntl, fd, F_GETFD);
  if (flags < 0 || (flags & FD_CLOEXEC) != 0 || out.count == kMost || base::is_high_fd(fd)) return;
  if (kernel_call(SYS_fstat, fd, as_arg(&status)) == 0 && S_ISSOCK(status.st_mode)) out.list[out.count++] = {fd, status.st_ino, nullptr};
}

// The number of what the parent has under `fd`; 0 if that may not be known.
uint64_t inode_of_parent(int fd) noexcept {
  char path[64];
  struct stat status{};
  (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", my_slot->pid, fd);
  return kernel_call(SYS_newfstatat, AT_FDCWD, as_arg(path), as_arg(&status), 0) == 0 ? status.st_ino : 0;
}

// With the lock held, as what follows.
void find_sockets(Survivors& out) noexcept {
  for (int fd = 0; fd < kLow; fd++) look_at(fd, out);
  for_each_entry(my_slot, [&](int fd, Counted*) {
    if (fd >= kLow) look_at(fd, out);
  });
}

// Which of them are the parent's files. How many.
int identify(Survivors& survivors) noexcept {
  int left = survivors.count, found = 0;
  for_each_entry(my_slot, [&](int fd, Counted* entry) {
    if (left == 0 || static_cast<File*>(entry)->kind == FileKind::epoll || !goes_along(entry)) return;
    const uint64_t inode = inode_of_parent(fd);
    for (int i = 0; i < survivors.count; i++) {
      Survivor& survivor = survivors.list[i];
      if (survivor.file != nullptr || (inode != 0 ? survivor.inode != inode : survivor.fd != fd)) continue;
      survivor.file = entry;
      left--;
      found++;
    }
  });
  return found;
}

bool put(ProcessSlot* slot, const Survivor& survivor) noexcept {
  FdChunk* chunk = chunk_for(slot, static_cast<uint32_t>(survivor.fd) / kChunkEntries);
  if (chunk == nullptr) return false;
  add_reference(survivor.file);
  chunk->entry[static_cast<uint32_t>(survivor.fd) % kChunkEntries].store(survivor.file, std::memory_order_relaxed);
  return true;
}

int count_of_stack(const Survivors& survivors) noexcept {
  int count = 0;
  for (int i = 0; i < survivors.count; i++) {
    if (survivors.list[i].file != nullptr && is_of_stack(survivors.list[i].file)) count++;
  }
  return count;
}

// A slot that holds them, or nullptr.
ProcessSlot* make_slot(const Survivors& survivors) noexcept {
  ProcessSlot* slot = slot_acquire();
  if (slot == nullptr) return nullptr;
  slot->pid = static_cast<int32_t>(kernel_call(SYS_getpid));
  service_hold_slot(slot);
  slot->state.store(SlotState::live);
  for (int i = 0; i < survivors.count; i++) {
    if (survivors.list[i].file == nullptr || put(slot, survivors.list[i])) continue;
    slot_release(slot);
    return nullptr;
  }
  return slot;
}

const char* prepare(const Survivors& survivors) noexcept {
  ProcessSlot* const slot = make_slot(survivors);
  if (slot == nullptr) return "the family has no place for another process";
  const int ticket = write_ticket(slot);
  if (ticket <= 0) {
    slot_release(slot);
    return "no memory file can be made for them";
  }
  spawned_slot() = slot;
  spawned_ticket() = ticket;
  return nullptr;
}

}  // namespace

int64_t hand_on_from_vfork(const zps_call& call) noexcept {
  if (kernel_only() || the_stack() == nullptr) return 0;
  const bool may_be_passed_some = hands_on_unix_socket();
  if (my_slot->chunks == 0 && !may_be_passed_some) return 0;
  Survivors survivors;
  const OwnName own_name;
  const char* why;
  int of_stack;
  {
    Guard guard;
    find_sockets(survivors);
    const int found = survivors.count == 0 ? 0 : identify(survivors);
    if (found == 0 && !may_be_passed_some) return 0;
    of_stack = count_of_stack(survivors);
    why = why_not_survive(call);
    while (why == nullptr && guard.stack()->lock.favour_allowed()) {
      guard.drop();
      the_stack()->lock.forbid_favour();
      guard.take();
    }
    if (why == nullptr) why = prepare(survivors);
  }
  if (why == nullptr) {
    base::keep_across_exec(true);
    return spawned_ticket();
  }
  tell_lost(of_stack, why);
  return 0;
}

void note_place(int fd) noexcept { spawned_ticket() = fd; }

void take_place_back() noexcept {
  if (spawned_slot() != nullptr || spawned_ticket() <= 0) return;
  (void)kernel_call(SYS_close, spawned_ticket());
  spawned_ticket() = 0;
}

void take_back_in_vfork() noexcept {
  if (spawned_slot() == nullptr) return;
  const OwnName own_name;
  base::keep_across_exec(false);
  (void)kernel_call(SYS_close, spawned_ticket());
  spawned_ticket() = 0;
  {
    const Guard guard;
    service_leave_slot(spawned_slot());
    slot_release(spawned_slot());
    guard.stack()->flush();
  }
  spawned_slot() = nullptr;
}

void forget_vfork_child() noexcept {
  spawned_ticket() = 0;
  take_own_name_back();
  if (spawned_slot() != nullptr) spawned_slot() = nullptr;
}

}  // namespace shim
