// The processes of a family, and what each one's descriptor table refers to.
// SPDX-License-Identifier: BSD-3-Clause
//
// A slot is a process: a directory of chunks of 512 entries, each a reference to something that is counted (an open file description, whose
// kinds are known to files/ alone). It lies in shared memory so that what a killed member held can be given back by the others, and so that
// fork copies and counts it as the kernel does with its own table.
#pragma once

#include <atomic>
#include <cstdint>

namespace shim {

inline constexpr uint32_t kChunkEntries = 512;
inline constexpr uint32_t kDirectoryEntries = 2048;
inline constexpr uint32_t kMaxFd = kChunkEntries * kDirectoryEntries;

// What table entries and sleeping threads refer to. `refs` counts the entries of all members and the waits; the last drop ends it. With the
// lock held.
class Counted {
 public:
  uint32_t refs = 0;
  // Gives everything back: nobody refers to it any more.
  virtual void end() noexcept = 0;

 protected:
  ~Counted() = default;
};

inline void add_reference(Counted* object) noexcept { object->refs++; }
void drop_reference(Counted* object) noexcept;

struct ProcessSlot;

struct FdChunk {
  FdChunk(ProcessSlot* of, uint32_t at) noexcept : slot(of), index(at) {}
  std::atomic<Counted*> entry[kChunkEntries] = {};
  ProcessSlot* slot;  // whose directory has it, and where
  uint32_t index;
};

enum class SlotState : uint32_t { free, forking, live, leaving };

// One process of the family.
struct ProcessSlot {
  std::atomic<SlotState> state;
  int32_t pid;  // while it is not known yet, minus the id of the thread that forks
  uint64_t since_ns;
  uint32_t chunks;  // directory entries in use, an upper bound
  std::atomic<FdChunk*> directory[kDirectoryEntries];
};

// This process's own slot.
extern ProcessSlot* my_slot;

[[nodiscard]] inline bool is_free(const ProcessSlot& slot) noexcept {
  return slot.state.load(std::memory_order_relaxed) == SlotState::free;
}

// The chunk `index` of `slot`, made if need be; nullptr if memory ran out. With the lock held, as everything from here on.
[[nodiscard]] FdChunk* chunk_for(ProcessSlot* slot, uint32_t index) noexcept;

// What this process's threads own locks under (base/robust_lock.h).
[[nodiscard]] uint32_t tag_of(const ProcessSlot* slot) noexcept;

// Calls visit(fd, entry) for each entry of `slot`.
template <class F>
void for_each_entry(ProcessSlot* slot, F visit) noexcept {
  for (uint32_t i = 0; i < slot->chunks; i++) {
    FdChunk* chunk = slot->directory[i].load(std::memory_order_relaxed);
    if (chunk == nullptr) continue;
    for (uint32_t j = 0; j < kChunkEntries; j++) {
      Counted* entry = chunk->entry[j].load(std::memory_order_relaxed);
      if (entry != nullptr) visit(static_cast<int>(i * kChunkEntries + j), entry);
    }
  }
}

// A free slot for a process that this thread is about to fork, marked `forking`; nullptr if there are too many processes.
[[nodiscard]] ProcessSlot* slot_acquire() noexcept;
// Fills `to` with what `from` holds, counting each entry once more. False (and `to` is empty again) if memory ran out.
[[nodiscard]] bool slot_copy(ProcessSlot* from, ProcessSlot* to) noexcept;
// Drops everything `slot` holds and frees it.
void slot_release(ProcessSlot* slot) noexcept;

}  // namespace shim
