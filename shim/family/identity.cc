// Asks the kernel for the calling thread's credentials.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/identity.h"

#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/capability.h>

#include "base/syscall.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// A process's table of user ids (user_namespaces(7)). How long it is; -1: it cannot be read, or is longer.
constexpr size_t kMostTable = 1024;
long read_table(int proc_fd, int32_t pid, char (&table)[kMostTable]) noexcept {
  char path[32];
  (void)snprintf(path, sizeof path, "%d/uid_map", pid);
  const long fd = kernel_call(SYS_openat, proc_fd, as_arg(path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const long bytes = kernel_call(SYS_read, fd, as_arg(table), sizeof table);
  (void)kernel_call(SYS_close, fd);
  return bytes > 0 && bytes < static_cast<long>(sizeof table) ? bytes : -1;
}

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
  own.permitted = permitted_of(0);
  return own;
}

uint64_t permitted_of(int32_t pid) noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, pid};
  __user_cap_data_struct halves[2] = {};
  if (kernel_call(SYS_capget, as_arg(&header), as_arg(halves)) != 0) return 0;
  return halves[0].permitted | uint64_t{halves[1].permitted} << 32;
}

bool is_in_own_user_namespace(int proc_fd, int32_t pid) noexcept {
  char own[kMostTable], theirs[kMostTable];
  const long bytes = read_table(proc_fd, static_cast<int32_t>(kernel_call(SYS_getpid)), own);
  return bytes > 0 && read_table(proc_fd, pid, theirs) == bytes && memcmp(own, theirs, static_cast<size_t>(bytes)) == 0;
}

}  // namespace shim
