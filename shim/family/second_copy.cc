// Maps, relocates and initializes the copy.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/second_copy.h"

#include <cerrno>
#include <fcntl.h>
#include <link.h>

#include "base/elf_object.h"
#include "base/syscall.h"
#include "shim/family/exec_ticket.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

uintptr_t own_base() noexcept { return reinterpret_cast<uintptr_t>(__ehdr_start); }

// What the linker has to say; addresses in it are from the object's base on.
struct Dynamic {
  uint64_t tables[2] = {}, bytes[2] = {};  // DT_RELA, DT_JMPREL
  uint64_t init = 0, init_array = 0, init_bytes = 0;
};

Dynamic read_dynamic(const base::ElfObject& object) noexcept {
  Dynamic found;
  const Elf64_Phdr* const segment = object.find(PT_DYNAMIC);
  if (segment == nullptr) return found;
  for (const auto* entry = reinterpret_cast<const Elf64_Dyn*>(object.base + segment->p_vaddr); entry->d_tag != DT_NULL; entry++) {
    switch (entry->d_tag) {
      case DT_RELA: found.tables[0] = entry->d_un.d_ptr; break;
      case DT_RELASZ: found.bytes[0] = entry->d_un.d_val; break;
      case DT_JMPREL: found.tables[1] = entry->d_un.d_ptr; break;
      case DT_PLTRELSZ: found.bytes[1] = entry->d_un.d_val; break;
      case DT_INIT: found.init = entry->d_un.d_ptr; break;
      case DT_INIT_ARRAY: found.init_array = entry->d_un.d_ptr; break;
      case DT_INIT_ARRAYSZ: found.init_bytes = entry->d_un.d_val; break;
      default: break;
    }
  }
  return found;
}

// The symbols of both are the same, so what ld.so has found for the one is right for the other, or as far from its base.
bool relocate(const base::ElfObject& object, const Elf64_Rela& row) noexcept {
  uint64_t& word = *reinterpret_cast<uint64_t*>(object.base + row.r_offset);
  const uint64_t own = *reinterpret_cast<const uint64_t*>(own_base() + row.r_offset);
  switch (ELF64_R_TYPE(row.r_info)) {
    case R_X86_64_RELATIVE: word = object.base + static_cast<uint64_t>(row.r_addend); return true;
    case R_X86_64_JUMP_SLOT: case R_X86_64_GLOB_DAT: case R_X86_64_64:
      word = own - own_base() < object.bytes() ? own - own_base() + object.base : own;
      return true;
    case R_X86_64_DTPMOD64: case R_X86_64_DTPOFF64: word = own; return true;  // this library's own __tls_get_addr() looks at the offset
    default: return false;
  }
}

bool relocate_all(const base::ElfObject& object, const Dynamic& dynamic) noexcept {
  for (int i = 0; i < 2; i++) {
    const auto* const rows = reinterpret_cast<const Elf64_Rela*>(object.base + dynamic.tables[i]);
    for (uint64_t j = 0; j < dynamic.bytes[i] / sizeof *rows; j++) {
      if (!relocate(object, rows[j])) return false;
    }
  }
  return true;
}

void construct(const base::ElfObject& object, const Dynamic& dynamic) noexcept {
  if (dynamic.init != 0) reinterpret_cast<void (*)()>(object.base + dynamic.init)();
  const auto* const functions = reinterpret_cast<void (*const*)()>(object.base + dynamic.init_array);
  for (uint64_t i = 0; i < dynamic.init_bytes / sizeof *functions; i++) functions[i]();
}

int find_own_name(dl_phdr_info* info, size_t, void* context) noexcept {
  if (info->dlpi_addr != own_base()) return 0;
  *static_cast<const char**>(context) = info->dlpi_name;
  return 1;
}

int open_own_file() noexcept {
  const char* name = nullptr;
  (void)dl_iterate_phdr(find_own_name, &name);
  return name == nullptr ? -1 : static_cast<int>(kernel_call(SYS_openat, AT_FDCWD, as_arg(name), O_RDONLY | O_CLOEXEC, 0));
}

}  // namespace

const char* map_second_copy(uintptr_t place) noexcept {
  const int fd = open_own_file();
  if (fd < 0) return "the file of its code cannot be opened any more";
  base::ElfObject object;
  const long error = base::read_elf(fd, object) ? base::map_elf(fd, object, place) : -ENOEXEC;
  (void)kernel_call(SYS_close, fd);
  if (error == -EEXIST) return "something else lies where its code has to be";
  if (error != 0) return "its code cannot be mapped a second time";
  const base::BuildId own = base::build_id_of(__ehdr_start);
  if (!own.is_known() || base::build_id_of(reinterpret_cast<const void*>(object.base)) != own) return "its code's file is of another build";
  const Dynamic dynamic = read_dynamic(object);
  if (!relocate_all(object, dynamic)) return "its code asks for more than can be done a second time";
  base::protect_relocated(object);
  construct(object, dynamic);
  return nullptr;
}

}  // namespace shim
