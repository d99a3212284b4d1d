// Which words of the program's objects point to libc's functions, and what they point to in mode symbols.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. This mode is the common way to do without a hook: functions of the same names as libc's, in a library that is preloaded. It
// is here to be measured against. But one library serves all modes, and a libzpstack.so that exports `read` would cost every other mode an
// indirect jump, and every program its cancellation points.
//
// How. Nothing is exported. At start the relocations of each object are read once more, and those that name a function of the table get
// the engine's in its place: what ld.so would have written there. Only names whose call somebody wants are exchanged.
// The functions (symbol_entry.S, symbol_calls.cc) go through the same entries as near jumps, so that frames, claims and signals are the
// same.
//
// Known limits, all of them those of interposition: calls inside libc are not seen (stdio, getaddrinfo, posix_spawn, system), nor
// raw system calls, dlsym(), constructors of libraries that dlopen() brings, static programs; exchanged functions are no cancellation
// points; vfork() is fork(); execv() and execve() tell the hook, the others of their family do not; libraries that dlopen() finds by its
// caller's RUNPATH are not found.
//
// Sources: System V ABI for x86-64, 4.4 and 5.2.
#include "zpoline/life/symbols.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/symbol_calls.h"
#include "zpoline/sites/maps.h"

extern "C" {
extern const zpoline::Symbol zps_symbols[], zps_symbols_end[];
const void* zps_symbol_entries[ZPS_NR_COUNT] __attribute__((visibility("hidden")));
}

namespace zpoline {
namespace {

constexpr uint64_t kPageMask = 4095;

const void* function_of(const char* name) noexcept {
  for (const Symbol* symbol = zps_symbols; symbol != zps_symbols_end; symbol++) {
    if (symbol->name[0] == name[0] && strcmp(symbol->name, name) == 0)
      return symbol->nr < 0 || is_wanted(symbol->nr) ? symbol->function : nullptr;
  }
  for (const Symbol* symbol = symbol_calls(); symbol->name != nullptr; symbol++) {
    if (symbol->name[0] == name[0] && strcmp(symbol->name, name) == 0) return symbol->function;
  }
  return nullptr;
}

class Relocations {
 public:
  explicit Relocations(const dl_phdr_info& object) noexcept : base_(object.dlpi_addr) {
    for (int i = 0; i < object.dlpi_phnum; i++) {
      const ElfW(Phdr)& segment = object.dlpi_phdr[i];
      if (segment.p_type == PT_DYNAMIC) read_dynamic(reinterpret_cast<const ElfW(Dyn)*>(base_ + segment.p_vaddr));
      if (segment.p_type != PT_GNU_RELRO) continue;
      relro_begin_ = (base_ + segment.p_vaddr) & ~kPageMask;
      relro_end_ = (base_ + segment.p_vaddr + segment.p_memsz) & ~kPageMask;
    }
  }

  void exchange() const noexcept {
    if (symbols_ == nullptr || strings_ == nullptr || is_being_relocated()) return;
    if (relro_end_ > relro_begin_ && protect(PROT_READ | PROT_WRITE) < 0) return;
    exchange_in(all_, all_bytes_);
    exchange_in(jumps_, jump_bytes_);
    if (relro_end_ > relro_begin_) (void)protect(PROT_READ);
  }

 private:
  // An object that another thread's dlopen() is not done with: its RELRO is still writable, and must stay so. That thread will come here
  // too.
  bool is_being_relocated() const noexcept {
    constexpr long kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which changes nothing; an error where memory is read-only
    return relro_end_ > relro_begin_ && base::kernel_call(SYS_madvise, static_cast<long>(relro_begin_), kPageMask + 1, kPopulateWrite) == 0;
  }

  void read_dynamic(const ElfW(Dyn) * entry) noexcept {
    for (; entry->d_tag != DT_NULL; entry++) {
      const uint64_t at = entry->d_un.d_ptr < base_ ? base_ + entry->d_un.d_ptr : entry->d_un.d_ptr;  // ld.so has made most absolute
      switch (entry->d_tag) {
        case DT_SYMTAB: symbols_ = reinterpret_cast<const ElfW(Sym)*>(at); break;
        case DT_STRTAB: strings_ = reinterpret_cast<const char*>(at); break;
        case DT_RELA: all_ = reinterpret_cast<const ElfW(Rela)*>(at); break;
        case DT_RELASZ: all_bytes_ = entry->d_un.d_val; break;
        case DT_JMPREL: jumps_ = reinterpret_cast<const ElfW(Rela)*>(at); break;
        case DT_PLTRELSZ: jump_bytes_ = entry->d_un.d_val; break;
        default: break;
      }
    }
  }

  long protect(int protection) const noexcept {
    return base::kernel_call(SYS_mprotect, static_cast<long>(relro_begin_), static_cast<long>(relro_end_ - relro_begin_), protection);
  }

  void exchange_in(const ElfW(Rela) * first, uint64_t bytes) const noexcept {
    for (const ElfW(Rela)* one = first; one < first + bytes / sizeof *first; one++) {
      const uint64_t type = ELF64_R_TYPE(one->r_info);
      if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && (type != R_X86_64_64 || one->r_addend != 0)) continue;
      const ElfW(Sym)& symbol = symbols_[ELF64_R_SYM(one->r_info)];
      if (symbol.st_shndx != SHN_UNDEF) continue;  // a function of its own
      const void* function = function_of(strings_ + symbol.st_name);
      if (function != nullptr) __atomic_store_n(reinterpret_cast<const void**>(base_ + one->r_offset), function, __ATOMIC_RELAXED);
    }
  }

  uint64_t base_;
  const ElfW(Sym) * symbols_ = nullptr;
  const char* strings_ = nullptr;
  const ElfW(Rela) * all_ = nullptr;
  const ElfW(Rela) * jumps_ = nullptr;
  uint64_t all_bytes_ = 0;
  uint64_t jump_bytes_ = 0;
  uint64_t relro_begin_ = 0;
  uint64_t relro_end_ = 0;
};

int exchange_in_one(dl_phdr_info* object, size_t, void*) noexcept {
  const bool is_libc = holds(*object, reinterpret_cast<uint64_t>(&__errno_location));
  if (is_loader(*object) || is_libc || holds(*object, reinterpret_cast<uint64_t>(zps_symbols)) ||
      strncmp(object->dlpi_name, "linux-vdso", 10) == 0)
    return 0;
  counts.objects++;
  Relocations(*object).exchange();
  return 0;
}

}  // namespace

void exchange_symbols() noexcept {
  for (int64_t nr = 0; nr < ZPS_NR_COUNT; nr++) {
    const bool ends = nr == SYS_exit;  // a thread's end is told by symbol_calls.cc
    zps_symbol_entries[nr] = is_wanted(nr) && !ends ? near_entry(nr) : nullptr;
  }
  (void)dl_iterate_phdr(exchange_in_one, nullptr);
}

}  // namespace zpoline
