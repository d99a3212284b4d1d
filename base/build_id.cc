// Finds the note among an object's segments.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/build_id.h"

#include <cstring>
#include <elf.h>

namespace base {
namespace {

// Name and contents are filled up to words.
constexpr uint32_t in_words(uint32_t bytes) noexcept { return (bytes + 3) & ~3U; }

bool find_id(const char* note, const char* end, BuildId* out) noexcept {
  while (note + sizeof(Elf64_Nhdr) <= end) {
    const auto* header = reinterpret_cast<const Elf64_Nhdr*>(note);
    const char* const name = note + sizeof *header;
    const char* const contents = name + in_words(header->n_namesz);
    const bool is_gnu = header->n_namesz == sizeof ELF_NOTE_GNU && memcmp(name, ELF_NOTE_GNU, sizeof ELF_NOTE_GNU) == 0;
    if (is_gnu && header->n_type == NT_GNU_BUILD_ID && header->n_descsz <= sizeof out->bytes) {
      memcpy(out->bytes, contents, header->n_descsz);
      return true;
    }
    note = contents + in_words(header->n_descsz);
  }
  return false;
}

}  // namespace

BuildId build_id_of(const void* header) noexcept {
  const char* const begin = static_cast<const char*>(header);
  const auto* elf = static_cast<const Elf64_Ehdr*>(header);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(begin + elf->e_phoff);
  BuildId id;
  for (int i = 0; i < elf->e_phnum; i++) {
    if (segments[i].p_type != PT_NOTE) continue;
    const char* const notes = begin + segments[i].p_vaddr;
    if (find_id(notes, notes + segments[i].p_memsz, &id)) break;
  }
  return id;
}

}  // namespace base
