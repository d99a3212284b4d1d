// Asks the kernel for the calling thread's credentials.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/identity.h"

#include <cstring>
#include <linux/capability.h>

#include "base/syscall.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

bool all_are(const uint32_t (&ids)[3], uint32_t id) noexcept { return ids[0] == id && ids[1] == id && ids[2] == id; }

}  // namespace

// Root without its capabilities keeps its user, and one that keeps them gets every group and user back.
bool Identity::has_lost(const Identity& other) const noexcept {
  if (permitted != other.permitted) return true;
  const bool settled = all_are(users, users[0]) && all_are(groups, groups[0]);
  return settled && users[0] != 0 && (memcmp(users, other.users, sizeof users) != 0 || memcmp(groups, other.groups, sizeof groups) != 0);
}

Identity own_identity() noexcept {
  Identity own{};
  (void)kernel_call(SYS_getresuid, as_arg(&own.users[0]), as_arg(&own.users[1]), as_arg(&own.users[2]));
  (void)kernel_call(SYS_getresgid, as_arg(&own.groups[0]), as_arg(&own.groups[1]), as_arg(&own.groups[2]));
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct halves[2] = {};
  (void)kernel_call(SYS_capget, as_arg(&header), as_arg(halves));
  own.permitted = halves[0].permitted | uint64_t{halves[1].permitted} << 32;
  return own;
}

}  // namespace shim
