// Programs whose language does what not every mode can live with: null checks by faults, and threads without libc.
// SPDX-License-Identifier: BSD-3-Clause
//
// Null checks. A machine that compiles a managed language does not compare each reference with NULL: it lets the access fault and makes an
// exception or a panic out of the SIGSEGV. Where page 0 is mapped for the sled and can be read (without protection keys executable memory
// can be), such a read gives bytes of the sled, and the program goes on with them. For these programs the automatic choice is a mode
// without page 0.
//
// They are known by what they are made of, at their start: the Java launcher is linked with libjli, an embedding program with libjvm; the
// Go linker leaves a note of its own in the executable.
//
// Threads. A Go program without cgo is static as a rule, and no loader hears of LD_PRELOAD. Built as a position-independent executable it
// does have this loader, but needs no library, and its runtime goes on as in a static one: it points fs at words of its own and makes
// threads by clone(). What the engine and its hook keep for each thread is found as in a static program (static_entry.S).
//
// Known limit: a program that loads such a machine later, by dlopen, is not known here; ZPS_HOOK=nopage0 helps.
#include "zpoline/sites/languages.h"

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "zpoline/sites/go_functions.h"

namespace zpoline {
namespace {

struct Library {
  const char* name;
  const char* language;
};
constexpr Library kLibraries[] = {{"libjli.so", "Java"}, {"libjvm.so", "Java"}};

const char* file_name(const char* path) noexcept {
  const char* name = path;
  for (; *path != '\0'; path++) {
    if (*path == '/') name = path + 1;
  }
  return name;
}

uint64_t padded(uint64_t bytes) noexcept { return (bytes + 3) & ~uint64_t{3}; }

bool needs_library(const dl_phdr_info& object) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    if (object.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; entry++) {
      if (entry->d_tag == DT_NEEDED) return true;
    }
  }
  return false;
}

int look(dl_phdr_info* object, size_t, void* found) noexcept {
  const auto language = static_cast<const char**>(found);
  for (const Library& library : kLibraries) {
    if (strncmp(file_name(object->dlpi_name), library.name, strlen(library.name)) == 0) *language = library.language;
  }
  const bool is_program = object->dlpi_name[0] == '\0';
  for (int i = 0; is_program && i < object->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const uint64_t begin = object->dlpi_addr + segment.p_vaddr;
    if (has_go_note(begin, begin + segment.p_filesz)) *language = "Go";
  }
  return *language != nullptr;
}

}  // namespace

bool has_go_note(uint64_t at, uint64_t end) noexcept {
  constexpr uint32_t kBuildId = 4;
  while (at + sizeof(ElfW(Nhdr)) <= end) {
    const auto* note = reinterpret_cast<const ElfW(Nhdr)*>(at);
    const auto* name = reinterpret_cast<const char*>(note + 1);
    const uint64_t next = at + sizeof *note + padded(note->n_namesz) + padded(note->n_descsz);
    if (next > end) return false;
    if (note->n_type == kBuildId && note->n_namesz == 4 && memcmp(name, "Go\0", 4) == 0) return true;
    at = next;
  }
  return false;
}

bool leaves_thread_pointer() noexcept {
  bool leaves = false;
  (void)dl_iterate_phdr(
      [](dl_phdr_info* program, size_t, void* result) {
        *static_cast<bool*>(result) = !needs_library(*program) && GoFunctions(*program).text().begin != 0;
        return 1;  // the first is the program
      },
      &leaves);
  return leaves;
}

const char* relies_on_null_faults() noexcept {
  const char* language = nullptr;
  (void)dl_iterate_phdr(look, &language);
  return language;
}

}  // namespace zpoline
