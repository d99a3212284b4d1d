// Notes the spans of loaded objects, and knows the family's.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/own_memory.h"

#include <link.h>
#include <sys/auxv.h>

#include <iterator>

#include "shim/family/family.h"
#include "shim/family/family_memory.h"

namespace shim {
namespace {

constexpr uintptr_t kPage = 4096;

Range ranges[8];
size_t count = 0;

void add(uintptr_t begin, uintptr_t end) noexcept {
  if (count < std::size(ranges)) ranges[count++] = {begin & ~(kPage - 1), (end + kPage - 1) & ~(kPage - 1)};
}

// In this link namespace; ld.so is in every one, and the program's.
int add_object(dl_phdr_info* info, size_t, void*) noexcept {
  if (info->dlpi_addr == getauxval(AT_BASE)) return 0;
  uintptr_t end = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    const uintptr_t segment_end = info->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    if (segment.p_type == PT_LOAD && segment_end > end) end = segment_end;
  }
  add(info->dlpi_addr, end);
  return 0;
}

}  // namespace

void note_own_memory() noexcept {
  add(reinterpret_cast<uintptr_t>(engine->image_begin), reinterpret_cast<uintptr_t>(engine->image_end));
  (void)dl_iterate_phdr(add_object, nullptr);
  add(reinterpret_cast<uintptr_t>(family), reinterpret_cast<uintptr_t>(family) + shared_bytes);
}

void adopt_own_memory(std::span<const Range> of_other, Range copy) noexcept {
  for (const Range& range : of_other) add(range.begin, range.end);
  add(copy.begin, copy.end);
}

std::span<const Range> own_memory() noexcept { return {ranges, count}; }

}  // namespace shim
