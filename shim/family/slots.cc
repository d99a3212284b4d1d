// Slots, their chunks and their copies.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/slots.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/robust_lock.h"
#include "shim/family/family.h"

namespace shim {

ProcessSlot* my_slot = nullptr;

namespace {

void free_chunks(ProcessSlot* slot) noexcept {
  for (uint32_t i = 0; i < slot->chunks; i++) {
    FdChunk* chunk = slot->directory[i].exchange(nullptr, std::memory_order_relaxed);
    if (chunk != nullptr) family->chunks.release(chunk);
  }
  slot->chunks = 0;
}

}  // namespace

uint32_t tag_of(const ProcessSlot* slot) noexcept { return 1 + static_cast<uint32_t>(slot - family->slots); }

void drop_reference(Counted* object) noexcept {
  CHECK(object->refs > 0);
  if (--object->refs == 0) object->end();
}

FdChunk* chunk_for(ProcessSlot* slot, uint32_t index) noexcept {
  FdChunk* chunk = slot->directory[index].load(std::memory_order_relaxed);
  if (chunk != nullptr) return chunk;
  chunk = family->chunks.allocate(slot, index);
  if (chunk == nullptr) return nullptr;
  slot->directory[index].store(chunk, std::memory_order_release);
  if (index >= slot->chunks) slot->chunks = index + 1;
  return chunk;
}

ProcessSlot* slot_acquire() noexcept {
  if (map_more_of_family() == 0) return nullptr;
  for (ProcessSlot& slot : all_slots()) {
    if (!is_free(slot)) continue;
    slot.pid = -static_cast<int32_t>(base::thread_id());
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
      for_each_entry(to, [](int, Counted* entry) { drop_reference(entry); });
      free_chunks(to);
      return false;
    }
    for (uint32_t j = 0; j < kChunkEntries; j++) {
      Counted* entry = source->entry[j].load(std::memory_order_relaxed);
      if (entry == nullptr) continue;
      add_reference(entry);
      copy->entry[j].store(entry, std::memory_order_relaxed);
    }
  }
  return true;
}

void slot_release(ProcessSlot* slot) noexcept {
  for (uint32_t i = 0; i < slot->chunks; i++) {
    FdChunk* chunk = slot->directory[i].load(std::memory_order_relaxed);
    if (chunk == nullptr) continue;
    for (std::atomic<Counted*>& entry : chunk->entry) {
      Counted* held = entry.exchange(nullptr, std::memory_order_relaxed);
      if (held != nullptr) drop_reference(held);
    }
  }
  free_chunks(slot);
  slot->state.store(SlotState::free, std::memory_order_release);
  family->processes.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace shim
