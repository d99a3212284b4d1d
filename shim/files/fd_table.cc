// Entries, slots and their copies.
#include "shim/files/fd_table.h"

#include "base/clock.h"
#include "shim/family/family.h"

namespace shim {

ProcessSlot* my_slot = nullptr;

namespace {

FdChunk* chunk_for(ProcessSlot* slot, uint32_t index) noexcept {
  FdChunk* chunk = slot->directory[index].load(std::memory_order_relaxed);
  if (chunk != nullptr) return chunk;
  chunk = family->chunks.allocate();
  if (chunk == nullptr) return nullptr;
  for (std::atomic<File*>& entry : chunk->entry) entry.store(nullptr, std::memory_order_relaxed);
  slot->directory[index].store(chunk, std::memory_order_release);
  if (index >= slot->chunks) slot->chunks = index + 1;
  return chunk;
}

void free_chunks(ProcessSlot* slot) noexcept {
  for (uint32_t i = 0; i < slot->chunks; i++) {
    FdChunk* chunk = slot->directory[i].exchange(nullptr, std::memory_order_relaxed);
    if (chunk != nullptr) family->chunks.release(chunk);
  }
  slot->chunks = 0;
}

}  // namespace

long table_set(int fd, File* file) noexcept {
  const uint32_t number = static_cast<uint32_t>(fd);
  if (number >= kMaxFd) return -ENFILE;
  FdChunk* chunk = chunk_for(my_slot, number / kChunkEntries);
  if (chunk == nullptr) return -ENFILE;
  file_ref(file);
  File* old = chunk->entry[number % kChunkEntries].exchange(file, std::memory_order_acq_rel);
  if (old != nullptr) file_unref(old);
  return 0;
}

void table_clear(int fd) noexcept {
  if (peek(fd) == nullptr) return;
  const uint32_t number = static_cast<uint32_t>(fd);
  FdChunk* chunk = my_slot->directory[number / kChunkEntries].load(std::memory_order_relaxed);
  File* old = chunk->entry[number % kChunkEntries].exchange(nullptr, std::memory_order_acq_rel);
  if (old != nullptr) file_unref(old);
}

ProcessSlot* slot_acquire() noexcept {
  for (ProcessSlot& slot : family->slots) {
    if (slot.state.load(std::memory_order_relaxed) != SlotState::free) continue;
    slot.pid = 0;
    slot.since_ns = base::monotonic_ns();
    slot.state.store(SlotState::forking, std::memory_order_release);
    family->processes.fetch_add(1, std::memory_order_relaxed);
    return &slot;
  }
  return nullptr;
}

bool slot_copy(ProcessSlot* from, ProcessSlot* to) noexcept {
  for (uint32_t i = 0; i < from->chunks; i++) {
    const FdChunk* source = from->directory[i].load(std::memory_order_relaxed);
    if (source == nullptr) continue;
    FdChunk* copy = chunk_for(to, i);
    if (copy == nullptr) {
      for_each_entry(to, [](int, File* file) { file_unref(file); });
      free_chunks(to);
      return false;
    }
    for (uint32_t j = 0; j < kChunkEntries; j++) {
      File* file = source->entry[j].load(std::memory_order_relaxed);
      if (file == nullptr) continue;
      file_ref(file);
      copy->entry[j].store(file, std::memory_order_relaxed);
    }
  }
  return true;
}

void slot_release(ProcessSlot* slot) noexcept {
  for (uint32_t i = 0; i < slot->chunks; i++) {
    FdChunk* chunk = slot->directory[i].load(std::memory_order_relaxed);
    if (chunk == nullptr) continue;
    for (std::atomic<File*>& entry : chunk->entry) {
      File* file = entry.exchange(nullptr, std::memory_order_relaxed);
      if (file != nullptr) file_unref(file);
    }
  }
  free_chunks(slot);
  slot->state.store(SlotState::free, std::memory_order_release);
  family->processes.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace shim
