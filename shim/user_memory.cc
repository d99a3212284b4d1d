// Copies between the shim and the program that report bad pointers.
#include "shim/user_memory.h"

#include <cerrno>

#include "base/user_copy.h"

namespace shim {

long copy_in(void* to, const void* user, size_t bytes) noexcept {
  if (bytes == 0) return 0;
  if (!plausible(user, bytes)) return -EFAULT;
  return zps_user_copy(to, user, bytes);
}

long copy_out(void* user, const void* from, size_t bytes) noexcept {
  if (bytes == 0) return 0;
  if (!plausible(user, bytes)) return -EFAULT;
  return zps_user_copy(user, from, bytes);
}

}  // namespace shim
