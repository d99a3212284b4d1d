// Maps a static program as the kernel does, and begins it.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/static_program.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>

#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/made_code.h"
#include "zpoline/life/thread_blocks.h"
#include "zpoline/life/thread_pointer.h"
#include "zpoline/sites/functions.h"
#include "zpoline/sites/go_functions.h"
#include "zpoline/sites/languages.h"
#include "zpoline/sites/maps.h"
#include "zpoline/sites/rewriter.h"

namespace zpoline {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr char kName[] = "ZPS_PROGRAM=";
constexpr char kHost[] = "/zpstack-static";
constexpr uint64_t kPage = 4096;
constexpr size_t kMostSegments = 64;

char real_path[4096];
bool is_go = false;

uint64_t page_begin(uint64_t address) noexcept { return address & ~(kPage - 1); }
uint64_t page_end(uint64_t address) noexcept { return (address + kPage - 1) & ~(kPage - 1); }
bool is_error(long result) noexcept { return result < 0 && result > -4096; }

// An ELF file that is being mapped.
struct Image {
  long fd = -1;
  Elf64_Ehdr header{};
  Elf64_Phdr segments[kMostSegments] = {};
  uint64_t bias = 0;
  uint64_t headers_at = 0;  // where the program finds its program headers
};

bool read_at(const Image& image, void* to, uint64_t bytes, uint64_t offset) noexcept {
  return kernel_call(SYS_pread64, image.fd, as_arg(to), static_cast<long>(bytes), static_cast<long>(offset)) == static_cast<long>(bytes);
}

const char* read_headers(Image& image) noexcept {
  Elf64_Ehdr& header = image.header;
  if (!read_at(image, &header, sizeof header, 0) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return "is no ELF file";
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) return "is not a 64-bit x86 program";
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) return "is no program";
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 || header.e_phnum > kMostSegments) return "has no program headers";
  if (!read_at(image, image.segments, header.e_phnum * sizeof(Elf64_Phdr), header.e_phoff)) return "is damaged";
  for (int i = 0; i < header.e_phnum; i++) {
    if (image.segments[i].p_type == PT_INTERP) return "is not static";
  }
  return nullptr;
}

// Where a position-independent program lies, and how large its segments may be in all.
const char* choose_place(Image& image) noexcept {
  uint64_t begin = UINT64_MAX, end = 0, alignment = kPage;
  for (int i = 0; i < image.header.e_phnum; i++) {
    const Elf64_Phdr& segment = image.segments[i];
    if (segment.p_type != PT_LOAD) continue;
    if (page_begin(segment.p_vaddr) < begin) begin = page_begin(segment.p_vaddr);
    if (page_end(segment.p_vaddr + segment.p_memsz) > end) end = page_end(segment.p_vaddr + segment.p_memsz);
    if (segment.p_align > alignment && (segment.p_align & (segment.p_align - 1)) == 0) alignment = segment.p_align;
  }
  if (begin >= end) return "has nothing to load";
  if (image.header.e_type == ET_EXEC) return nullptr;
  const auto bytes = static_cast<long>(end - begin + alignment);
  const long place = kernel_call(SYS_mmap, 0, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (is_error(place)) return "finds no room in the address space";
  (void)kernel_call(SYS_munmap, place, bytes);
  image.bias = ((static_cast<uint64_t>(place) + alignment - 1) & ~(alignment - 1)) - begin;
  return nullptr;
}

bool map(uint64_t at, uint64_t bytes, int protection, int flags, long fd, uint64_t offset) noexcept {
  if (bytes == 0) return true;
  constexpr int kFlags = MAP_PRIVATE | MAP_FIXED_NOREPLACE;
  return kernel_call(SYS_mmap, static_cast<long>(at), static_cast<long>(bytes), protection, kFlags | flags, fd,
                     static_cast<long>(offset)) == static_cast<long>(at);
}

// What comes from the file, zeros behind it up to the page's end, and pages of zeros.
bool map_segment(const Image& image, const Elf64_Phdr& segment) noexcept {
  const uint64_t at = image.bias + segment.p_vaddr, file_end = at + segment.p_filesz;
  const uint64_t begin = page_begin(at), end = page_end(at + segment.p_memsz);
  const uint64_t mapped_end = segment.p_filesz > 0 ? page_end(file_end) : begin;
  if (!map(begin, mapped_end - begin, protection_of(segment), 0, image.fd, page_begin(segment.p_offset))) return false;
  if (mapped_end > file_end && segment.p_memsz > segment.p_filesz && (segment.p_flags & PF_W))
    memset(reinterpret_cast<void*>(file_end), 0, mapped_end - file_end);
  return end <= mapped_end || map(mapped_end, end - mapped_end, protection_of(segment), MAP_ANONYMOUS, -1, 0);
}

const char* map_image(Image& image) noexcept {
  const uint64_t headers = image.header.e_phoff;
  for (int i = 0; i < image.header.e_phnum; i++) {
    const Elf64_Phdr& segment = image.segments[i];
    if (segment.p_type != PT_LOAD) continue;
    if (!map_segment(image, segment)) return "cannot be mapped where it has to lie";
    if (headers >= segment.p_offset && headers < segment.p_offset + segment.p_filesz)
      image.headers_at = image.bias + segment.p_vaddr + headers - segment.p_offset;
  }
  return nullptr;
}

// The symbols are not mapped, and nothing else may tell where functions begin (musl). Go's own table knows more: which stacks are small.
class FileSymbols {
 public:
  FileSymbols(const Image& image, const dl_phdr_info& object) noexcept {
    if (GoFunctions(object).text().begin != 0) return;
    for (int i = 0; i < image.header.e_shnum; i++) {
      Elf64_Shdr section;
      if (!read_at(image, &section, sizeof section, image.header.e_shoff + static_cast<uint64_t>(i) * sizeof section)) return;
      if (section.sh_type != SHT_SYMTAB) continue;
      const uint64_t from = page_begin(section.sh_offset);
      bytes_ = section.sh_offset + section.sh_size - from;
      memory_ = kernel_call(SYS_mmap, 0, static_cast<long>(bytes_), PROT_READ, MAP_PRIVATE, image.fd, static_cast<long>(from));
      if (!is_error(memory_))
        lend_symbols(reinterpret_cast<const ElfW(Sym)*>(memory_ + static_cast<long>(section.sh_offset - from)),
                     section.sh_size / sizeof(ElfW(Sym)));
      return;
    }
  }
  ~FileSymbols() {
    lend_symbols(nullptr, 0);
    if (bytes_ != 0 && !is_error(memory_)) (void)kernel_call(SYS_munmap, memory_, static_cast<long>(bytes_));
  }
  FileSymbols(const FileSymbols&) = delete;
  FileSymbols& operator=(const FileSymbols&) = delete;

 private:
  long memory_ = 0;
  uint64_t bytes_ = 0;
};

// Go's linker leaves a note of its own, which lies in the file's first page.
bool is_go_program(const char* path) noexcept {
  Image image;
  image.fd = kernel_call(SYS_openat, AT_FDCWD, as_arg(path), O_RDONLY | O_CLOEXEC);
  bool found = false;
  for (int i = 0; image.fd >= 0 && read_headers(image) == nullptr && i < image.header.e_phnum && !found; i++) {
    const Elf64_Phdr& segment = image.segments[i];
    alignas(8) char note[1024];
    if (segment.p_type != PT_NOTE || segment.p_filesz > sizeof note || !read_at(image, note, segment.p_filesz, segment.p_offset)) continue;
    found = has_go_note(reinterpret_cast<uint64_t>(note), reinterpret_cast<uint64_t>(note) + segment.p_filesz);
  }
  if (image.fd >= 0) (void)kernel_call(SYS_close, image.fd);
  return found;
}

void rewrite(const Image& image, const char* path) noexcept {
  dl_phdr_info object{};
  object.dlpi_addr = image.bias;
  object.dlpi_name = path;
  object.dlpi_phdr = image.segments;
  object.dlpi_phnum = image.header.e_phnum;
  const FileSymbols symbols(image, object);
  (void)rewrite_static_program(object, after_failed_rewrite);
}

// The stack that the kernel made: count, arguments, environment, auxiliary vector. What was taken out of the environment has left room
// behind it.
void write_auxiliary(const Image& image, const char* path, char** arguments) noexcept {
  auto* at = reinterpret_cast<uint64_t*>(arguments);
  while (*at != 0) at++;
  at++;
  while (*at != 0) at++;
  uint64_t* to = ++at;
  while (*at == 0) at++;
  for (;; at += 2, to += 2) {
    to[0] = at[0];
    to[1] = at[1];
    if (to[0] == AT_PHDR) to[1] = image.headers_at;
    if (to[0] == AT_PHENT) to[1] = sizeof(Elf64_Phdr);
    if (to[0] == AT_PHNUM) to[1] = image.header.e_phnum;
    if (to[0] == AT_BASE) to[1] = 0;
    if (to[0] == AT_ENTRY) to[1] = image.bias + image.header.e_entry;
    if (to[0] == AT_EXECFN) to[1] = reinterpret_cast<uint64_t>(path);
    if (to[0] == AT_NULL) return;
  }
}

// As /proc/self/comm is after an exec.
void take_name(const char* path) noexcept {
  const char* name = strrchr(path, '/');
  (void)kernel_call(SYS_prctl, PR_SET_NAME, as_arg(name != nullptr ? name + 1 : path));
}

void note_path(long fd) noexcept {
  char link[40];
  (void)snprintf(link, sizeof link, "/proc/self/fd/%ld", fd);
  const long length = kernel_call(SYS_readlink, as_arg(link), as_arg(real_path), sizeof real_path - 1);
  real_path[length > 0 ? length : 0] = '\0';
}

// The libc of the process so far has told the kernel where it keeps the processor's number.
void leave_rseq() noexcept {
  constexpr long kSignature = 0x53053053;
  constexpr long kBytes = 32;
  if (__rseq_size != 0)
    (void)kernel_call(SYS_rseq, static_cast<long>(thread_pointer()) + __rseq_offset, kBytes, RSEQ_FLAG_UNREGISTER, kSignature);
}

[[noreturn]] void begin(uint64_t entry, char** arguments) noexcept {
  asm volatile(
      "wrfsbase %2\n"
      "mov %0, %%rsp\n"
      "xor %%edx, %%edx\n"
      "xor %%ebp, %%ebp\n"
      "jmp *%1\n" ::"r"(arguments - 1),
      "r"(entry), "r"(uint64_t{0})
      : "memory");
  __builtin_unreachable();
}

}  // namespace

const char* take_static_program(char** environment) noexcept {
  while (*environment != nullptr && strncmp(*environment, kName, sizeof kName - 1) != 0) environment++;
  if (*environment == nullptr) return nullptr;
  const char* const path = *environment + sizeof kName - 1;
  for (; *environment != nullptr; environment++) environment[0] = environment[1];
  const char* const executed = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  const size_t length = executed != nullptr ? strlen(executed) : 0;
  const bool is_host = length >= sizeof kHost - 1 && strcmp(executed + length - (sizeof kHost - 1), kHost) == 0;
  return is_host ? path : "";
}

base::Result<bool> prepare_static_program(const char* path) noexcept {
  constexpr unsigned long kFsGsBase = 2;  // HWCAP2_FSGSBASE
  if (!(getauxval(AT_HWCAP2) & kFsGsBase))
    return base::make_error("static programs need a processor and a kernel with FSGSBASE (Linux 5.9)");
  is_go = path != nullptr && is_go_program(path);
  take_engine_pointer();
  set_program_pointer(thread_pointer());
  static_program = true;
  zps_clone_way_on = zps_clone_on_static;
  if (!prepare_thread_blocks()) return base::make_error("static programs: this ld.so makes no variables for threads");
  return true;
}

base::Error become_static_program(const char* path, char** arguments) noexcept {
  Image image;
  image.fd = kernel_call(SYS_openat, AT_FDCWD, as_arg(path), O_RDONLY | O_CLOEXEC);
  if (image.fd < 0) return base::make_error("%s cannot be read (error %ld)", path, -image.fd);
  const char* why = read_headers(image);
  if (why == nullptr) why = choose_place(image);
  if (why == nullptr) why = map_image(image);
  if (why != nullptr) return base::make_error("%s %s", path, why);
  note_path(image.fd);
  rewrite(image, path);
  (void)kernel_call(SYS_close, image.fd);
  write_auxiliary(image, path, arguments);
  take_name(path);
  leave_rseq();
  begin(image.bias + image.header.e_entry, arguments);
}

bool static_program_is_go() noexcept { return is_go; }

const char* static_program_path() noexcept { return static_program && real_path[0] != '\0' ? real_path : nullptr; }

}  // namespace zpoline
