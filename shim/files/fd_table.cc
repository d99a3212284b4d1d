// Entries of this process's table.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/fd_table.h"

#include "shim/family/family.h"
#include "shim/files/placeholders.h"

namespace shim {
namespace {

void drop_entry(int fd, Counted* old) noexcept {
  auto* const file = static_cast<File*>(old);
  if (file->kind == FileKind::socket) abandon_placeholder(static_cast<Socket*>(file), fd);
  drop_reference(old);
}

}  // namespace

long table_set(int fd, File* file) noexcept {
  const uint32_t number = static_cast<uint32_t>(fd);
  if (number >= kMaxFd) return -ENFILE;
  FdChunk* chunk = chunk_for(my_slot, number / kChunkEntries);
  if (chunk == nullptr) return -ENFILE;
  add_reference(file);
  Counted* old = chunk->entry[number % kChunkEntries].exchange(file, std::memory_order_acq_rel);
  if (old != nullptr) drop_entry(fd, old);
  return 0;
}

void table_clear(int fd) noexcept {
  if (peek(fd) == nullptr) return;
  const uint32_t number = static_cast<uint32_t>(fd);
  FdChunk* chunk = my_slot->directory[number / kChunkEntries].load(std::memory_order_relaxed);
  Counted* old = chunk->entry[number % kChunkEntries].exchange(nullptr, std::memory_order_acq_rel);
  if (old != nullptr) drop_entry(fd, old);
}

}  // namespace shim
