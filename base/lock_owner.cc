// Asking the kernel about the owner of a lock.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/lock_owner.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>

#include "base/permitted.h"
#include "base/robust_lock.h"
#include "base/syscall.h"

namespace base {
namespace {

IsProcessGone process_check = nullptr;

constexpr size_t kFileBytes = 1024;

uint32_t tag_of(uint64_t owner) noexcept { return static_cast<uint32_t>(owner >> 32); }

// The beginning of a file as a string; `path` may lie in `text`.
bool read_file(const char* path, char (&text)[kFileBytes]) noexcept {
  if (!may_call(SYS_openat) || !may_call(SYS_read) || !may_call(SYS_close)) return false;
  const long file = kernel_call(SYS_openat, AT_FDCWD, as_arg(path), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const long bytes = kernel_call(SYS_read, file, as_arg(text), sizeof text - 1);
  (void)kernel_call(SYS_close, file);
  text[bytes > 0 ? bytes : 0] = '\0';
  return bytes > 0;
}

// A frozen thread looks as if it slept; its group says so, where that can be seen.
bool is_frozen(uint32_t tid) noexcept {
  char groups[kFileBytes], text[kFileBytes];
  (void)snprintf(text, sizeof text, "/proc/%u/cgroup", tid);
  if (!read_file(text, groups)) return false;
  char* path = strstr(groups, "0::/");
  if (path == nullptr) return false;
  path += strlen("0::");
  path[strcspn(path, "\n")] = '\0';
  for (const char* mounted : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    const int length = snprintf(text, sizeof text, "%s%s/cgroup.events", mounted, path);
    if (length > 0 && static_cast<size_t>(length) < sizeof text && read_file(text, text)) return strstr(text, "frozen 1") != nullptr;
  }
  return false;
}

}  // namespace

void set_process_check(IsProcessGone check) noexcept { process_check = check; }

bool owner_is_gone(uint64_t owner) noexcept {
  if (!may_call(SYS_futex)) return false;
  uint32_t probe = static_cast<uint32_t>(owner);
  if (kernel_call(SYS_futex, as_arg(&probe), FUTEX_TRYLOCK_PI, 0, 0) == -ESRCH) return true;
  const uint32_t tag = tag_of(owner);
  return tag != 0 && tag != process_tag() && process_check != nullptr && may_call(SYS_fcntl) && process_check(tag);
}

OwnerState state_of_owner(uint64_t owner) noexcept {
  const auto tid = static_cast<uint32_t>(owner);
  char text[kFileBytes];
  (void)snprintf(text, sizeof text, "/proc/%u/stat", tid);
  if (!read_file(text, text)) return OwnerState::unknown;
  const char* name_end = strrchr(text, ')');  // the name may hold parentheses itself
  if (name_end == nullptr || name_end[1] != ' ') return OwnerState::unknown;
  switch (name_end[2]) {
    case 'T': return OwnerState::stopped;
    case 't': return OwnerState::traced;
    case 'S': return is_frozen(tid) ? OwnerState::frozen : OwnerState::runs;
    default: return OwnerState::runs;
  }
}

}  // namespace base
