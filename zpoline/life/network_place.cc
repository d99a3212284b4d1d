// Reads the place, or chooses it.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/network_place.h"

#include <cstdarg>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/network_name.h"
#include "base/syscall.h"

namespace zpoline {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kFirstPlace = 0x2800'0000'0000, kChance = 0xff'ffff'f000;

void line(char* out, size_t capacity, const char* format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  (void)base::format_line(out, capacity, format, arguments);
  va_end(arguments);
}

// Nobody else may have chosen what is in it, or read it: /dev/shm is a folder of all users'.
bool is_own(int fd, uint32_t user) noexcept {
  struct stat file{};
  return kernel_call(SYS_fstat, fd, as_arg(&file)) == 0 && S_ISREG(file.st_mode) && (file.st_mode & 077) == 0 && file.st_uid == user;
}

bool read_chance(int fd, uint64_t* chance) noexcept {
  return kernel_call(SYS_pread64, fd, as_arg(chance), sizeof *chance, 0) == sizeof *chance;
}

// Whoever comes first fills the file; others wait meanwhile.
bool choose(int fd, uint64_t* chance) noexcept {
  if (kernel_call(SYS_flock, fd, LOCK_EX) != 0) return false;
  return read_chance(fd, chance) || (kernel_call(SYS_getrandom, as_arg(chance), sizeof *chance, 0) == sizeof *chance &&
                                     kernel_call(SYS_pwrite64, fd, as_arg(chance), sizeof *chance, 0) == sizeof *chance);
}

}  // namespace

base::Result<uint64_t> place_of_network(const char* name) noexcept {
  if (name == nullptr || *name == '\0') return uint64_t{0};
  if (!base::is_network_name(name))
    return base::make_error("ZPS_NETWORK=%s is no name of a network: at most %zu letters, digits and . _ -", name, base::kMostNetworkName);
  const auto user = static_cast<uint32_t>(kernel_call(SYS_getuid));
  char path[100];
  line(path, sizeof path, "/dev/shm/zpstack-%u-%s", user, name);
  const long fd = kernel_call(SYS_open, as_arg(path), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
  if (fd < 0) return base::make_error("ZPS_NETWORK=%s needs the file %s: error %ld", name, path, -fd);
  uint64_t chance = 0;
  const bool is_safe = is_own(static_cast<int>(fd), user);
  const bool has_chance = is_safe && (read_chance(static_cast<int>(fd), &chance) || choose(static_cast<int>(fd), &chance));
  (void)kernel_call(SYS_close, fd);
  if (!is_safe) return base::make_error("ZPS_NETWORK=%s needs the file %s for user %u alone: it is somebody else's", name, path, user);
  if (!has_chance) return base::make_error("ZPS_NETWORK=%s: nothing can be written to %s", name, path);
  return kFirstPlace + (chance & kChance);
}

}  // namespace zpoline
