// The control side of one wire, shared by the family: DPDK's interrupt callbacks, and what comes into being after a fork.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. DPDK runs control events (a memif peer connects, sends its regions, dies) on a thread of its own, which does
// not survive fork(). And what such an event creates exists in one process only: descriptors that came over a socket, mappings of the
// peer's memory. Every other member of the family must get them too, because any of them drives the queue next.
//
// Our choice.
//  - No thread. interrupts.cc takes DPDK's registrations into the table here (code and arguments have the same
//    address in every member). Whoever has service duty, and holds the stack's lock, calls run().
//  - One epoll descriptor, made before the first fork, watches the callbacks' descriptors. An epoll set belongs to its open file, not
//    to a process: what one member adds later wakes all. Entries are removed before their descriptor is closed anywhere, because an
//    entry lives as long as any member has a copy. (Rejected: poll() over the table, which makes a sleeper rebuild its set.)
//  - Numbers. Each late descriptor takes one of kSlots numbers that every member has reserved with a placeholder
//    since the open, so the number is free to be replaced in each of them. A placeholder is a copy of the epoll descriptor: what is done
//    by mistake to a late descriptor that this member never got (shutdown, when its maker died before it told) must harm nothing.
//  - Descriptors travel through a datagram socket pair that all members inherited: the member that made them drops the old message and
//    sends one with all of them (SCM_RIGHTS). The others read it with MSG_PEEK, which duplicates the descriptors and leaves the message.
//  - Mappings lie in a range reserved at the open, so their addresses are free in every member.
//  - `generation` counts the messages. Each member compares it with its own (in a private page: fork copies it) before it touches
//    the device, and catches up when it is behind.
//
// Invariants: 1 everything here runs with the stack's lock held; 2 a number in `slots` with used == false is a placeholder in every
// member that is up to date; 3 changes are published before the lock is given up; if the owner died before, `dirty` tells.
// Known limit: at most kSlots late descriptors and kRegions mappings of the range's size together; a peer that needs more is refused.
// Sources: unix(7), epoll(7), the memif protocol (version 2).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arena.h"
#include "base/result.h"

struct rte_intr_handle;

namespace netstack {

struct MemifPeer;

// Anonymous, as eventfd's files are: to write to what a peer calls an event never ends in a signal, as to a pipe that nobody reads.
[[nodiscard]] bool is_event(int fd) noexcept;
// Such an event is one open file for both ends: whatever flags it was given, the peer may have taken them away again, or filled its count.
// Neither call waits for that. Known limit: a peer that does both in the moment between the look at the flags and the write can.
void take_event_away(int fd) noexcept;
void wake_by_event(int fd) noexcept;

class Control {
 public:
  using Callback = void (*)(void*);
  using AfterUnregister = void (*)(rte_intr_handle*, void*);

  // Makes the control side in `arena`, with `range_bytes` of addresses for what is mapped late (they count against RLIMIT_AS): less where
  // there are not so many.
  static base::Result<Control*> create(base::Arena* arena, size_t range_bytes = kLeastRangeBytes) noexcept;

  // The control side that this thread works for: set while a wire is opened and while run() is active.
  static Control* current() noexcept;
  // Makes it current for a scope.
  class Scope {
   public:
    explicit Scope(Control* control) noexcept;
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Control* before_;
  };

  // DPDK's registrations. Results as rte_intr_callback_*: 0 or a count, -EAGAIN for a callback that is running, -ENOENT.
  // `counts`: what is read of `fd` is a count of its events, and nobody else reads it.
  [[nodiscard]] int add_callback(rte_intr_handle* handle, int fd, Callback callback, void* argument, bool counts = false) noexcept;
  [[nodiscard]] int remove_callback(rte_intr_handle* handle, Callback callback, void* argument) noexcept;
  [[nodiscard]] int remove_callback_later(rte_intr_handle* handle, Callback callback, void* argument, AfterUnregister after) noexcept;
  [[nodiscard]] int callbacks() const noexcept { return callback_count_; }

  // Readable when run() has something to do.
  [[nodiscard]] int fd() const noexcept { return epoll_fd_; }
  // Runs the callbacks that are due: how many, and whether the retry timer was among the events. The caller calls publish() afterwards.
  struct Ran {
    int callbacks;
    bool timer;
  };
  [[nodiscard]] Ran run() noexcept;
  // Asks for fd() to be readable every `milliseconds`; 0: never.
  void set_retry_ms(int milliseconds) noexcept;

  // Late descriptors: gives `fd` a reserved number and returns that, or -ENFILE (fd is closed).
  [[nodiscard]] int adopt_fd(int fd) noexcept;
  // Closes an adopted descriptor in this member now, in the others when they catch up; false if it is not one.
  [[nodiscard]] bool drop_fd(int fd) noexcept;
  // The same with its callbacks, and tells the others: its last copy goes with theirs.
  void end_fd(int fd) noexcept;
  // Maps `bytes` of an adopted descriptor at the same address in every member; nullptr if it does not fit, or if the file is
  // shorter or could be made so (it lacks F_SEAL_SHRINK, or has huge pages) and is not `trusted` to stay, or if `bytes` are not whole huge
  // pages of one that has them. No more seals can be put on it afterwards.
  [[nodiscard]] void* map_region(int fd, size_t bytes, bool trusted = false) noexcept;
  [[nodiscard]] bool unmap_region(void* address) noexcept;
  // Where an adopted descriptor is mapped; nullptr if it is not.
  [[nodiscard]] void* region_of(int fd) const noexcept;
  [[nodiscard]] size_t region_bytes(int fd) const noexcept;

  // Hands what changed to the other members.
  void publish() noexcept;
  // Takes what other members changed. The fast path is one comparison.
  void catch_up() noexcept {
    if (*private_generation_ != generation_) [[unlikely]] take_changes();
  }
  // True if a member died between a change and publish(): nobody can have what it made.
  [[nodiscard]] bool torn() const noexcept { return dirty_; }

  base::Arena* const arena;
  MemifPeer* memif = nullptr;  // the driver behind this wire, if it is memif

 private:
  static constexpr int kCallbacks = 16;
  static constexpr int kSlots = 16;
  static constexpr int kRegions = 8;
  static constexpr size_t kLeastRangeBytes = size_t{48} << 20;

  struct Entry {
    rte_intr_handle* handle;
    int fd;
    bool used, counts, running, remove;
    Callback callback;
    AfterUnregister after;
    void* argument;
  };
  struct Slot {
    int number;
    bool used;
  };
  // `serial` tells one mapping at a place from the next.
  struct Region {
    uint64_t serial;
    size_t bytes;  // 0: nothing mapped
    size_t offset;
    int fd;
  };
  struct Message {
    uint64_t generation;
    int count;
    int numbers[kSlots];
  };
  // What this member has; in a MAP_PRIVATE page.
  struct Mine {
    uint64_t generation;
    bool slot_used[kSlots];
    Region regions[kRegions];
  };

  Control(base::Arena* shared, size_t range_bytes) noexcept : arena(shared), range_bytes_(range_bytes) {}
  [[nodiscard]] bool reserve() noexcept;
  void run_entry(Entry& entry) noexcept;
  void forget(Entry& entry) noexcept;
  [[nodiscard]] Entry* find(const rte_intr_handle* handle, Callback callback, const void* argument) noexcept;
  // What follows is nobody's until publish(): a member may die in the middle of it.
  void begin_change() noexcept;
  void put_placeholder(int number) noexcept;
  void take_changes() noexcept;
  void take_descriptors() noexcept;
  void take_regions() noexcept;
  [[nodiscard]] size_t free_place(size_t bytes) const noexcept;

  uint64_t generation_ = 0;
  uint64_t* private_generation_ = nullptr;  // &mine_->generation
  Mine* mine_ = nullptr;
  char* range_ = nullptr;
  size_t range_bytes_;
  int epoll_fd_ = -1;
  int timer_fd_ = -1;
  int store_in_ = -1, store_out_ = -1;
  int callback_count_ = 0;
  uint64_t next_serial_ = 1;
  bool dirty_ = false;
  Entry entries_[kCallbacks] = {};
  Slot slots_[kSlots] = {};
  Region regions_[kRegions] = {};
};

}  // namespace netstack
