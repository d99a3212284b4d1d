// Memory that the processes of a family share, in a file that a program can be given that one of them executes.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. fork() hands shared memory on, execve() does not: what comes after it has to map the memory anew, at the same addresses,
// because pointers lie in it. Memory without a file (MAP_ANONYMOUS) can be mapped by nobody else.
//
// How. All of it lies in one memory file (memfd_create) with a hidden number, and a list tells what of it, and of other files (the ring of
// a packet socket), lies where. Places are chosen where the kernel puts nothing by itself, with as much chance in them as its own choice
// has: in the next program nothing else is there.
//
// Where there can be no such file (RLIMIT_FSIZE counts for it, a filter refuses it) the memory has none, and is_whole() says that the list
// is of no use.
//
// With one thread at a time, as a stack is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace base {

inline constexpr size_t kMostSharedParts = 24;

struct SharedPart {
  uintptr_t address;
  uint64_t bytes, offset;  // of the file
  int32_t fd;
  bool writable;
  bool over;  // it lies over something that is mapped before it
};

// `bytes` zero bytes, page-aligned, backed when they are touched; nullptr if the kernel refuses.
[[nodiscard]] void* map_shared(size_t bytes) noexcept;
void unmap_shared(void* memory, size_t bytes) noexcept;
// Moves what map_shared() gave over something else that is mapped. False if the kernel refuses.
[[nodiscard]] bool move_shared(void* memory, size_t bytes, void* over) noexcept;
// Nobody writes to it from now on.
void seal_shared(void* memory, size_t bytes) noexcept;
// The beginning of another file, whose descriptor stays open; nullptr if the kernel refuses.
[[nodiscard]] void* map_shared_file(int fd, size_t bytes) noexcept;
void unmap_shared_file(void* memory, size_t bytes) noexcept;
// What somebody else has mapped.
void note_shared_part(const SharedPart& part) noexcept;

// Room in the file: its offset, or -1. Who takes it maps it.
[[nodiscard]] long reserve_shared(size_t bytes) noexcept;
// The file, or -1.
[[nodiscard]] int shared_fd() noexcept;
// A place for `bytes` where the kernel puts nothing by itself, given out once.
[[nodiscard]] uintptr_t shared_place(size_t bytes) noexcept;

// Whether all that was mapped has a file and is in the list.
[[nodiscard]] bool is_whole() noexcept;
[[nodiscard]] std::span<const SharedPart> shared_parts() noexcept;
// In the next program: maps all parts, where nothing else may be, and has them as its own. False, and nothing is mapped, if one cannot be.
[[nodiscard]] bool adopt_shared(std::span<const SharedPart> parts, int fd, uint64_t file_bytes, uintptr_t next_place) noexcept;
// It will not have them after all: as before anything was mapped or adopted.
void abandon_shared() noexcept;
[[nodiscard]] uint64_t shared_file_bytes() noexcept;

}  // namespace base
