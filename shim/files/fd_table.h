// Which descriptors are ours: a table per process, in memory the family shares.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Every read and write of the program asks "is this number ours?", most often to learn that it is not; it is asked
// in signal handlers, by all threads at once, and must cost a few loads. The answer must survive fork exactly as descriptors do, and when
// a member is killed without warning someone else must find out what it held.
//
// What Linux does. A table per process (or per CLONE_FILES group) maps numbers to counted open file descriptions; fork copies it
// and counts; exec closes what is marked; exit closes all.
//
// Our choice. Each process has a slot in the family's shared memory with a directory of chunks of 512 entries (family/slots.h); an entry is
// a pointer to a File, also in shared memory. A look without the lock (peek) is two loads and only tells "not ours" for certain; who finds
// something takes the lock and looks again. Every number in the table also is a real kernel descriptor, a placeholder, so numbers
// are handed out by the kernel, in its order, and O_CLOEXEC, fstat and /proc are true by themselves.
// Rejected: an index kept by number in process-private memory (nobody could clean up after kill -9); asking the kernel (a call per call).
//
// Invariants
//  1 An entry is only written with the family's lock held; it is read by anybody at any time.
//  2 An entry is set after the kernel made the number and cleared before the kernel frees it: a number that the kernel gave to
//    something else never is in the table.
//  3 File cells are type-stable (pool.h): a stale pointer that peek returned may be compared and its `kind` read.
//  4 `refs` of a file equals its entries in all slots plus its pins, whenever the lock is free.
//
// Known limits: numbers of 2^20 and more are the kernel's; CLONE_FILES without CLONE_VM is treated like fork; descriptors
// that io_uring closes stay in the table until their number is closed again.
#pragma once

#include <atomic>
#include <cstdint>

#include "shim/family/slots.h"
#include "shim/files/file.h"

namespace shim {

// What the table holds for `fd`, without the lock: nullptr is certain, anything else is a hint.
[[nodiscard]] inline File* peek(int64_t fd) noexcept {
  const uint32_t number = static_cast<uint32_t>(fd);
  if (number >= kMaxFd) [[unlikely]] return nullptr;
  const FdChunk* chunk = my_slot->directory[number / kChunkEntries].load(std::memory_order_acquire);
  if (chunk == nullptr) return nullptr;
  return static_cast<File*>(chunk->entry[number % kChunkEntries].load(std::memory_order_acquire));
}

// With the lock held, from here on.

// Puts `file` under `fd` with a reference of its own, dropping what was there. 0, or -ENFILE if the table cannot grow.
[[nodiscard]] long table_set(int fd, File* file) noexcept;
// Clears `fd` and drops its reference; no effect on a number that is not ours.
void table_clear(int fd) noexcept;

// The file under `fd` if the shim serves it; entries whose socket went to the kernel are cleared on the way.
[[nodiscard]] inline File* file_at(int64_t fd) noexcept {
  File* file = peek(fd);
  if (file == nullptr || file->kind != FileKind::socket) return file;
  if (static_cast<Socket*>(file)->state != SocketState::kernel) [[likely]] return file;
  table_clear(static_cast<int>(fd));
  return nullptr;
}
[[nodiscard]] inline Socket* socket_at(int64_t fd) noexcept {
  File* file = file_at(fd);
  return file != nullptr && file->kind == FileKind::socket ? static_cast<Socket*>(file) : nullptr;
}

}  // namespace shim
