// Asking the kernel about the owner of a lock.
#include "base/lock_owner.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>

#include "base/robust_lock.h"
#include "base/syscall.h"

namespace base {
namespace {

IsProcessGone process_check = nullptr;

uint32_t tag_of(uint64_t owner) noexcept { return static_cast<uint32_t>(owner >> 32); }

}  // namespace

void set_process_check(IsProcessGone check) noexcept { process_check = check; }

bool owner_is_gone(uint64_t owner) noexcept {
  uint32_t probe = static_cast<uint32_t>(owner);
  if (kernel_call(SYS_futex, as_arg(&probe), FUTEX_TRYLOCK_PI, 0, 0) == -ESRCH) return true;
  const uint32_t tag = tag_of(owner);
  return tag != 0 && tag != process_tag() && process_check != nullptr && process_check(tag);
}

// The letter behind the name in parentheses, which may hold parentheses itself.
OwnerState state_of_owner(uint64_t owner) noexcept {
  char text[256];
  (void)snprintf(text, sizeof text, "/proc/%u/stat", static_cast<uint32_t>(owner));
  const long file = kernel_call(SYS_openat, AT_FDCWD, as_arg(text), O_RDONLY | O_CLOEXEC);
  if (file < 0) return OwnerState::unknown;
  const long bytes = kernel_call(SYS_read, file, as_arg(text), sizeof text - 1);
  (void)kernel_call(SYS_close, file);
  if (bytes <= 0) return OwnerState::unknown;
  text[bytes] = '\0';
  const char* name_end = strrchr(text, ')');
  switch (name_end != nullptr && name_end[1] == ' ' ? name_end[2] : '?') {
    case 'T': return OwnerState::stopped;
    case 't': return OwnerState::traced;
    case 'S': return OwnerState::sleeps;
    case '?': return OwnerState::unknown;
    default: return OwnerState::runs;
  }
}

}  // namespace base
