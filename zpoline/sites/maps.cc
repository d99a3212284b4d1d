// Segments of loaded objects, ld.so's text, and code that runs on small stacks.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/maps.h"

#include <sys/mman.h>

#include <atomic>

namespace zpoline {
namespace {

Range loader;
Range small[64];
std::atomic<size_t> small_count{0};

}  // namespace

bool holds(const dl_phdr_info& object, uint64_t address) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && address >= begin && address < begin + segment.p_memsz) return true;
  }
  return false;
}

int protection_of(const ElfW(Phdr) & segment) noexcept {
  return (segment.p_flags & PF_R ? PROT_READ : 0) | (segment.p_flags & PF_W ? PROT_WRITE : 0) | (segment.p_flags & PF_X ? PROT_EXEC : 0);
}

Range text_of(const dl_phdr_info& object) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X)) return {begin, begin + segment.p_filesz};
  }
  return {};
}

bool is_loader(const dl_phdr_info& object) noexcept { return object.dlpi_addr == _r_debug.r_ldbase; }

void note_loader(const dl_phdr_info& object) noexcept { loader = text_of(object); }

bool is_in_loader(uint64_t address) noexcept { return loader.holds(address); }

void note_small_stacks(Range text) noexcept {
  const size_t count = small_count.load(std::memory_order_relaxed);
  if (text.begin == text.end || has_small_stack(text.begin) || count == sizeof small / sizeof small[0]) return;
  small[count] = text;
  small_count.store(count + 1, std::memory_order_release);
}

bool has_small_stack(uint64_t address) noexcept {
  const size_t count = small_count.load(std::memory_order_acquire);
  for (size_t i = 0; i < count; i++) {
    if (small[i].holds(address)) return true;
  }
  return false;
}

}  // namespace zpoline
