// Finds what was inherited, and has ld.so map a library at an address.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/inherited.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstring>

#include "base/log.h"
#include "base/syscall.h"
#include "zpoline/engine.h"

namespace zpoline {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr char kName[] = "ZPS_INHERITED=";
constexpr size_t kNameBytes = sizeof kName - 1;
constexpr long kSetDispatch = 59, kOff = 0, kAllBut = 1;  // PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, _ON
constexpr uint64_t kRestorer = 0x04000000;
constexpr uint64_t kSigsys = uint64_t{1} << (SIGSYS - 1);

int inherited = -1;
zps_inheritance left{};

// As the kernel has it.
struct Action {
  uint64_t handler, flags, restorer, mask;
};

// Which mapping is to lie where.
struct stat library{};
uint64_t wanted = 0;
volatile uint8_t selector = 0;

void line(char* out, size_t capacity, const char* format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  (void)base::format_line(out, capacity, format, arguments);
  va_end(arguments);
}

// False unless it is a memory file of a process like this one, which is this one.
bool is_ours(int fd) noexcept {
  if (kernel_call(SYS_fcntl, fd, F_GET_SEALS) < 0) return false;
  if (kernel_call(SYS_pread64, fd, as_arg(&left), sizeof left, 0) != sizeof left) return false;
  return memcmp(left.magic, ZPS_INHERITANCE, sizeof left.magic) == 0 && left.size == sizeof left &&
         left.pid == kernel_call(SYS_getpid);
}

bool is_library(long fd) noexcept {
  struct stat file{};
  return kernel_call(SYS_fstat, fd, as_arg(&file)) == 0 && file.st_dev == library.st_dev && file.st_ino == library.st_ino;
}

// ld.so maps the whole length of the library first, and then its parts over that.
long map_as_wanted(const greg_t* registers) noexcept {
  const long bytes = registers[REG_RSI], protection = registers[REG_RDX], flags = registers[REG_R10], fd = registers[REG_R8];
  if (registers[REG_RAX] != SYS_mmap || registers[REG_RDI] != 0 || wanted == 0 || fd < 0 || !is_library(fd)) return -1;
  const long at = kernel_call(SYS_mmap, static_cast<long>(wanted), bytes, protection, flags | MAP_FIXED_NOREPLACE, fd, registers[REG_R9]);
  wanted = 0;
  return at;
}

void on_call(int, siginfo_t*, void* context) noexcept {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const long at = map_as_wanted(registers);
  registers[REG_RAX] = at > 0 ? at
                              : kernel_call(registers[REG_RAX], registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                                            registers[REG_R10], registers[REG_R8], registers[REG_R9]);
}

struct Text {
  uint64_t begin, end;
};
int find_text(dl_phdr_info* object, size_t, void* context) noexcept {
  const auto inside = reinterpret_cast<uint64_t>(&on_call);
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    const uint64_t begin = object->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || inside < begin || inside >= begin + segment.p_memsz) continue;
    *static_cast<Text*>(context) = {begin, begin + segment.p_memsz};
    return 1;
  }
  return 0;
}

// For a scope: every system call comes to on_call(), but those of this library.
class Watched {
 public:
  Watched() noexcept {
    Text text{};
    (void)dl_iterate_phdr(find_text, &text);
    const Action action{reinterpret_cast<uint64_t>(&on_call), SA_SIGINFO | kRestorer, reinterpret_cast<uint64_t>(zps_restore_rt), 0};
    (void)kernel_call(SYS_rt_sigaction, SIGSYS, as_arg(&action), as_arg(&old_), sizeof old_.mask);
    (void)kernel_call(SYS_rt_sigprocmask, SIG_UNBLOCK, as_arg(&kSigsys), as_arg(&mask_), sizeof mask_);
    selector = 1;
    (void)kernel_call(SYS_prctl, kSetDispatch, kAllBut, static_cast<long>(text.begin), static_cast<long>(text.end - text.begin),
                      as_arg(&selector));
  }
  ~Watched() {
    selector = 0;
    (void)kernel_call(SYS_prctl, kSetDispatch, kOff, 0, 0, 0);
    (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&mask_), 0, sizeof mask_);
    (void)kernel_call(SYS_rt_sigaction, SIGSYS, as_arg(&old_), 0, sizeof old_.mask);
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  Action old_{};
  uint64_t mask_ = 0;
};

}  // namespace

int take_inheritance(char** environment) noexcept {
  while (*environment != nullptr && strncmp(*environment, kName, kNameBytes) != 0) environment++;
  if (*environment == nullptr) return -1;
  long number = 0;
  for (const char* digit = *environment + kNameBytes; *digit >= '0' && *digit <= '9' && number < 1 << 20; digit++)
    number = number * 10 + (*digit - '0');
  for (; *environment != nullptr; environment++) environment[0] = environment[1];
  if (!is_ours(static_cast<int>(number))) return -1;
  (void)kernel_call(SYS_fcntl, number, F_SETFD, FD_CLOEXEC);
  return inherited = static_cast<int>(number);
}

void* load_hook(const char* path, uint64_t place) noexcept {
  wanted = inherited >= 0 ? left.library_base : place;
  if (wanted == 0 || kernel_call(SYS_newfstatat, AT_FDCWD, as_arg(path), as_arg(&library), 0) != 0)
    return dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);
  const Watched watched;
  return dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);
}

void refuse_inheritance(const char* why) noexcept {
  if (inherited < 0) return;
  for (unsigned fd = 0; fd < sizeof left.descriptors * 8; fd++) {
    if ((left.descriptors[fd / 64] >> fd % 64 & 1) != 0) (void)kernel_call(SYS_close, fd);
  }
  (void)kernel_call(SYS_close, inherited);
  inherited = -1;
  base::log(base::LogLevel::warn, "the sockets of the stack that this program was given are closed: %s", why);
}

void write_inheritance(int fd, char* out, int capacity) noexcept { line(out, static_cast<size_t>(capacity), "%s%d", kName, fd); }

}  // namespace zpoline
