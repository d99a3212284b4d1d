// Reads an object's headers and maps its segments.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/elf_object.h"

#include <cstring>
#include <sys/mman.h>

#include "base/shared_memory.h"
#include "base/syscall.h"

namespace base {
namespace {

constexpr uintptr_t kPage = 4096;

constexpr uintptr_t page_of(uintptr_t address) noexcept { return address & ~(kPage - 1); }
constexpr uintptr_t up_to_page(uintptr_t address) noexcept { return page_of(address + kPage - 1); }

bool is_error(long result) noexcept { return result < 0 && result > -4096; }

bool read_all(int fd, void* to, size_t bytes, uint64_t offset) noexcept {
  return kernel_call(SYS_pread64, fd, as_arg(to), static_cast<long>(bytes), static_cast<long>(offset)) == static_cast<long>(bytes);
}

// What the file does not fill is zero: the rest of its last page, and whole pages after that.
long map_segment(int fd, uintptr_t base, const Elf64_Phdr& segment) noexcept {
  const int protection = ((segment.p_flags & PF_R) != 0 ? PROT_READ : 0) | ((segment.p_flags & PF_W) != 0 ? PROT_WRITE : 0) |
                         ((segment.p_flags & PF_X) != 0 ? PROT_EXEC : 0);
  const uintptr_t from = page_of(base + segment.p_vaddr), file_end = base + segment.p_vaddr + segment.p_filesz;
  const uintptr_t to = up_to_page(base + segment.p_vaddr + segment.p_memsz);
  long result = kernel_call(SYS_mmap, static_cast<long>(from), static_cast<long>(file_end - from), protection, MAP_PRIVATE | MAP_FIXED,
                            fd, static_cast<long>(page_of(segment.p_offset)));
  if (is_error(result)) return result;
  if (segment.p_memsz == segment.p_filesz) return 0;
  memset(reinterpret_cast<void*>(file_end), 0, up_to_page(file_end) - file_end);
  if (up_to_page(file_end) == to) return 0;
  result = kernel_call(SYS_mmap, static_cast<long>(up_to_page(file_end)), static_cast<long>(to - up_to_page(file_end)), protection,
                       MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
  return is_error(result) ? result : 0;
}

long reserve(uintptr_t at, uintptr_t bytes, int flags) noexcept {
  return kernel_call(SYS_mmap, static_cast<long>(at), static_cast<long>(bytes), PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

}  // namespace

const Elf64_Phdr* ElfObject::find(uint32_t type) const noexcept {
  for (int i = 0; i < header.e_phnum; i++) {
    if (segments[i].p_type == type) return &segments[i];
  }
  return nullptr;
}

uintptr_t ElfObject::bytes() const noexcept {
  uintptr_t end = 0;
  for (int i = 0; i < header.e_phnum; i++) {
    const Elf64_Phdr& segment = segments[i];
    if (segment.p_type == PT_LOAD) end = up_to_page(segment.p_vaddr + segment.p_memsz);
  }
  return end;
}

bool read_elf(int fd, ElfObject& object) noexcept {
  Elf64_Ehdr& header = object.header;
  if (!read_all(fd, &header, sizeof header, 0) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
  if (header.e_machine != EM_X86_64 || header.e_type != ET_DYN) return false;
  if (header.e_phnum > kMostSegments || header.e_phentsize != sizeof(Elf64_Phdr)) return false;
  return read_all(fd, object.segments, header.e_phnum * sizeof(Elf64_Phdr), header.e_phoff);
}

long map_elf(int fd, ElfObject& object, uintptr_t wanted) noexcept {
  const uintptr_t bytes = object.bytes();
  long place = reserve(wanted != 0 ? wanted : shared_place(bytes), bytes, MAP_FIXED_NOREPLACE);
  if (is_error(place) && wanted == 0) place = reserve(0, bytes, 0);
  if (is_error(place)) return place;
  object.base = static_cast<uintptr_t>(place);
  for (int i = 0; i < object.header.e_phnum; i++) {
    if (object.segments[i].p_type != PT_LOAD) continue;
    if (const long result = map_segment(fd, object.base, object.segments[i]); result != 0) return result;
  }
  return 0;
}

Span protect_relocated(const ElfObject& object) noexcept {
  Span range{0, 0};
  for (int i = 0; i < object.header.e_phnum; i++) {
    const Elf64_Phdr& segment = object.segments[i];
    const uintptr_t from = object.base + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_W) != 0) range = {page_of(from), up_to_page(from + segment.p_memsz)};
  }
  const Elf64_Phdr* relro = object.find(PT_GNU_RELRO);
  if (relro == nullptr) return range;
  const uintptr_t from = page_of(object.base + relro->p_vaddr), to = page_of(object.base + relro->p_vaddr + relro->p_memsz);
  if (to > from) (void)kernel_call(SYS_mprotect, static_cast<long>(from), static_cast<long>(to - from), PROT_READ);
  if (to > range.from) range.from = to;
  return range;
}

}  // namespace base
