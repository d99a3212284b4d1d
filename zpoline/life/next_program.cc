// Reads the first page of the file, and of its interpreter.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/next_program.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>

#include "base/syscall.h"
#include "zpoline/life/seccomp_filter.h"

namespace zpoline {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kMostInterpreters = 5;  // Linux: fs/exec.c, exec_binprm()
constexpr char kLoader[] = "/ld-linux-x86-64.so.2";
constexpr char kStatic[] = "it is a static program";
constexpr size_t kPage = 4096;

struct FirstPage {
  alignas(8) char bytes[kPage + 1];
  long length;
};

// A program that runs with other rights than its caller's: ld.so then leaves LD_PRELOAD out.
bool gives_rights(long fd) noexcept {
  struct stat file{};
  if (kernel_call(SYS_fstat, fd, as_arg(&file)) != 0 || (file.st_mode & (S_ISUID | S_ISGID)) != 0) return true;
  return kernel_call(SYS_fgetxattr, fd, as_arg("security.capability"), 0, 0) > 0;
}

const char* read_page(long fd, FirstPage& page) noexcept {
  if (fd < 0) return "its file cannot be read";
  page.length = kernel_call(SYS_pread64, fd, as_arg(page.bytes), kPage, 0);
  const bool rights = gives_rights(fd);
  (void)kernel_call(SYS_close, fd);
  if (rights) return "it has rights of its own";
  if (page.length <= 0) return "its file cannot be read";
  page.bytes[page.length] = '\0';
  return nullptr;
}

// Cuts the interpreter's path out of the first line of a script (Linux: fs/binfmt_script.c).
const char* interpreter_of(FirstPage& page) noexcept {
  char* path = page.bytes + 2;
  path += strspn(path, " \t");
  path[strcspn(path, " \t\n")] = '\0';
  return path;
}

// What is no ELF file the kernel refuses, or gives to an interpreter that somebody has named to it (binfmt_misc): the exec fails, or that
// one will have the library.
const char* look_at_elf(const FirstPage& page) noexcept {
  Elf64_Ehdr header;
  if (page.length < static_cast<long>(sizeof header)) return nullptr;
  memcpy(&header, page.bytes, sizeof header);
  if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return nullptr;
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) return "it is not of 64 bits";
  for (int i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr segment;
    const uint64_t at = header.e_phoff + static_cast<uint64_t>(i) * sizeof segment;
    if (at + sizeof segment > static_cast<uint64_t>(page.length)) break;
    memcpy(&segment, page.bytes + at, sizeof segment);
    if (segment.p_type != PT_INTERP) continue;
    const uint64_t end = segment.p_offset + segment.p_filesz;
    if (end > static_cast<uint64_t>(page.length) || segment.p_filesz < sizeof kLoader) break;
    return memcmp(page.bytes + end - sizeof kLoader, kLoader, sizeof kLoader) == 0 ? nullptr : "it has another libc";
  }
  return kStatic;
}

// The file of an execve() or execveat().
struct Target {
  explicit Target(const zps_call& call) noexcept
      : directory(call.nr == SYS_execveat ? call.arg[0] : AT_FDCWD), path(call.nr == SYS_execveat ? call.arg[1] : call.arg[0]),
        itself(call.nr == SYS_execveat && (call.arg[4] & AT_EMPTY_PATH) != 0 && *reinterpret_cast<const char*>(path) == '\0') {}

  [[nodiscard]] long open() const noexcept {
    if (itself) return kernel_call(SYS_fcntl, directory, F_DUPFD_CLOEXEC, 0);
    return kernel_call(SYS_openat, directory, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  }

  long directory, path;
  bool itself;  // the descriptor `directory`
};

// A program that has shut itself in may be killed for a look.
bool may_look() noexcept {
  constexpr int kCalls[] = {SYS_openat, SYS_fcntl, SYS_readlink, SYS_pread64, SYS_fstat, SYS_fgetxattr, SYS_close, SYS_faccessat2};
  for (const int nr : kCalls) {
    if (is_deadly(nr)) return false;
  }
  return true;
}

}  // namespace

bool names_static_program(const zps_call& call, char* path, size_t capacity) noexcept {
  if (!may_look()) return false;
  const Target target(call);
  const long opened = target.open();
  if (opened < 0) return false;
  // By its name: what is open is not open any more when it is looked for.
  char link[40];
  (void)snprintf(link, sizeof link, "/proc/self/fd/%ld", opened);
  const long length = kernel_call(SYS_readlink, as_arg(link), as_arg(path), static_cast<long>(capacity) - 1);
  FirstPage page;
  const char* const why = read_page(opened, page);
  if (why != nullptr || look_at_elf(page) != kStatic || length <= 0) return false;
  path[length] = '\0';
  constexpr long kExecutable = 1;
  return kernel_call(SYS_faccessat2, AT_FDCWD, as_arg(path), kExecutable, AT_EACCESS) == 0;
}

const char* is_out_of_reach(const zps_call& call, const char* library, bool reaches_static) noexcept {
  const Target target(call);
  long directory = target.directory, path = target.path;
  if (kernel_call(SYS_access, as_arg(library), 4) != 0) return "libzpstack.so is not to be found there";
  FirstPage page;
  for (int depth = 0; depth <= kMostInterpreters; depth++) {
    const long fd = depth == 0 ? target.open() : kernel_call(SYS_openat, directory, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (const char* why = read_page(fd, page); why != nullptr) return why;
    if (page.bytes[0] != '#' || page.bytes[1] != '!') {
      const char* const why = look_at_elf(page);
      return depth == 0 && why == kStatic && reaches_static ? nullptr : why;
    }
    path = as_arg(interpreter_of(page));
    directory = AT_FDCWD;
  }
  return "its interpreters are too many";
}

}  // namespace zpoline
