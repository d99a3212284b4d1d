// Segments of loaded objects, and ld.so's text.
#include "zpoline/sites/maps.h"

namespace zpoline {
namespace {

Range loader;

}  // namespace

bool holds(const dl_phdr_info& object, uint64_t address) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && address >= begin && address < begin + segment.p_memsz) return true;
  }
  return false;
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

}  // namespace zpoline
