// Programs that leave their null checks to the fault of a read near NULL.
//
// A machine that compiles a managed language does not compare each reference with NULL: it lets the access fault and makes an exception
// or a panic out of the SIGSEGV. Where page 0 is mapped for the sled and can be read (without protection keys executable memory can be),
// such a read gives bytes of the sled, and the program goes on with them. For these programs the automatic choice is a mode
// without page 0.
//
// They are known by what they are made of, at their start: the Java launcher is linked with libjli, an embedding program with libjvm; the Go
// linker leaves a note of its own in the executable.
//
// Known limit: a program that loads such a machine later, by dlopen, is not known here; ZPS_HOOK=nopage0 helps.
#include "zpoline/sites/null_checks.h"

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

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

const char* relies_on_null_faults() noexcept {
  const char* language = nullptr;
  (void)dl_iterate_phdr(look, &language);
  return language;
}

}  // namespace zpoline
