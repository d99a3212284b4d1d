// The file, its list, and what lies in it.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/shared_memory.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>

#include "base/arena.h"
#include "base/heap.h"
#include "base/high_fd.h"
#include "base/syscall.h"

namespace base {
namespace {

constexpr size_t kPage = 4096;
constexpr uintptr_t kFirstPlace = 0x2400'0000'0000, kChance = 0xff'ffff'f000;

SharedPart parts[kMostSharedParts];
size_t count = 0;
bool whole = true;
int file = -1;
long owner = 0;  // the process that the file grows for: a forked one would put the same offsets to another use
uint64_t file_bytes = 0;
uintptr_t place = 0;

bool is_error(long result) noexcept { return result < 0 && result > -4096; }
size_t in_pages(size_t bytes) noexcept { return (bytes + kPage - 1) & ~(kPage - 1); }

void make_file() noexcept {
  owner = kernel_call(SYS_getpid);
  file = move_fd_high(static_cast<int>(kernel_call(SYS_memfd_create, as_arg("zpstack"), MFD_CLOEXEC)));
}

// Past the limit the kernel sends a signal instead of an error.
bool may_grow_to(uint64_t bytes) noexcept {
  rlimit limit{};
  return kernel_call(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, as_arg(&limit)) == 0 && bytes <= limit.rlim_cur;
}

long map_at(uintptr_t address, size_t bytes, int flags, int fd, uint64_t offset) noexcept {
  return kernel_call(SYS_mmap, static_cast<long>(address), static_cast<long>(bytes), PROT_READ | PROT_WRITE, flags, fd,
                     static_cast<long>(offset));
}

// At a place of ours, or wherever there is room.
void* map_somewhere(size_t bytes, int flags, int fd, uint64_t offset) noexcept {
  long at = map_at(shared_place(bytes), bytes, flags | MAP_FIXED_NOREPLACE, fd, offset);
  if (is_error(at)) at = map_at(0, bytes, flags, fd, offset);
  return is_error(at) ? nullptr : reinterpret_cast<void*>(at);
}

SharedPart* part_of(const void* memory) noexcept {
  for (size_t i = 0; i < count; i++) {
    if (parts[i].address == reinterpret_cast<uintptr_t>(memory)) return &parts[i];
  }
  return nullptr;
}

bool adopt(const SharedPart& part) noexcept {
  const int flags = MAP_SHARED | (part.over ? MAP_FIXED : MAP_FIXED_NOREPLACE);
  if (map_at(part.address, part.bytes, flags, part.fd, part.offset) != static_cast<long>(part.address)) return false;
  if (!part.writable) (void)kernel_call(SYS_mprotect, static_cast<long>(part.address), static_cast<long>(part.bytes), PROT_READ);
  return true;
}

}  // namespace

uintptr_t shared_place(size_t bytes) noexcept {
  const char here = 0;
  if (place == 0) place = kFirstPlace + (reinterpret_cast<uintptr_t>(&here) & kChance);
  const uintptr_t chosen = place;
  place += in_pages(bytes) + kPage;
  return chosen;
}

long reserve_shared(size_t bytes) noexcept {
  if (owner == 0) make_file();
  if (file < 0 || owner != kernel_call(SYS_getpid)) return -1;
  const uint64_t offset = file_bytes, end = offset + in_pages(bytes);
  if (!may_grow_to(end) || kernel_call(SYS_ftruncate, file, static_cast<long>(end)) != 0) return -1;
  file_bytes = end;
  return static_cast<long>(offset);
}

void* map_shared(size_t bytes) noexcept {
  const long offset = reserve_shared(bytes);
  if (offset < 0) {
    whole = false;
    return map_somewhere(bytes, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  void* const memory = map_somewhere(bytes, MAP_SHARED | MAP_NORESERVE, file, static_cast<uint64_t>(offset));
  if (memory != nullptr)
    note_shared_part({reinterpret_cast<uintptr_t>(memory), in_pages(bytes), static_cast<uint64_t>(offset), file, true, false});
  return memory;
}

// Its room in the file is given back, not its place there.
void unmap_shared(void* memory, size_t bytes) noexcept {
  (void)kernel_call(SYS_madvise, as_arg(memory), static_cast<long>(bytes), MADV_REMOVE);
  unmap_shared_file(memory, bytes);
}

void unmap_shared_file(void* memory, size_t bytes) noexcept {
  // In their order, which says what lies over what.
  if (SharedPart* part = part_of(memory); part != nullptr) std::copy(part + 1, parts + count--, part);
  (void)kernel_call(SYS_munmap, as_arg(memory), static_cast<long>(bytes));
}

bool move_shared(void* memory, size_t bytes, void* over) noexcept {
  const long moved = kernel_call(SYS_mremap, as_arg(memory), static_cast<long>(bytes), static_cast<long>(bytes),
                                 MREMAP_MAYMOVE | MREMAP_FIXED, as_arg(over));
  if (moved != as_arg(over)) return false;
  if (SharedPart* part = part_of(memory); part != nullptr) {
    part->address = reinterpret_cast<uintptr_t>(over);
    part->over = true;
  }
  return true;
}

void seal_shared(void* memory, size_t bytes) noexcept {
  (void)kernel_call(SYS_mprotect, as_arg(memory), static_cast<long>(bytes), PROT_READ);
  if (SharedPart* part = part_of(memory); part != nullptr) part->writable = false;
}

void* map_shared_file(int fd, size_t bytes) noexcept {
  void* const memory = map_somewhere(bytes, MAP_SHARED, fd, 0);
  if (memory != nullptr) note_shared_part({reinterpret_cast<uintptr_t>(memory), in_pages(bytes), 0, fd, true, false});
  return memory;
}

void note_shared_part(const SharedPart& part) noexcept {
  if (count < kMostSharedParts && part.fd >= 0) {
    parts[count++] = part;
  } else {
    whole = false;
  }
}

int shared_fd() noexcept { return file; }
uint64_t shared_file_bytes() noexcept { return file_bytes; }
bool is_whole() noexcept { return whole && file >= 0; }
std::span<const SharedPart> shared_parts() noexcept { return {parts, count}; }

bool adopt_shared(std::span<const SharedPart> of, int fd, uint64_t bytes, uintptr_t next_place) noexcept {
  if (of.size() > kMostSharedParts) return false;
  for (size_t i = 0; i < of.size(); i++) {
    if (adopt(of[i])) {
      parts[count++] = of[i];
      continue;
    }
    while (i-- > 0) {
      if (!of[i].over) (void)kernel_call(SYS_munmap, static_cast<long>(of[i].address), static_cast<long>(of[i].bytes));
    }
    count = 0;
    return false;
  }
  owner = kernel_call(SYS_getpid);
  file = fd;
  file_bytes = bytes;
  place = next_place;
  return true;
}

void abandon_shared() noexcept {
  for (size_t i = 0; i < count; i++) {
    if (!parts[i].over) (void)kernel_call(SYS_munmap, static_cast<long>(parts[i].address), static_cast<long>(parts[i].bytes));
  }
  count = 0;
  whole = true;
  file = -1;
  owner = 0;
  file_bytes = 0;
  place = 0;
}

Arena* Arena::map_shared(size_t bytes) noexcept {
  void* const memory = base::map_shared(bytes);
  return memory == nullptr ? nullptr : create(memory, bytes);
}
void Arena::unmap_shared(Arena* arena) noexcept { base::unmap_shared(arena, arena->capacity_); }

// Here, because the stack image has the heap and no files.
Heap* Heap::map_shared(size_t bytes) noexcept {
  void* const memory = base::map_shared(bytes);
  return memory == nullptr ? nullptr : create(memory, bytes);
}
void Heap::unmap_shared(Heap* heap) noexcept { base::unmap_shared(heap, heap->capacity_); }

}  // namespace base
