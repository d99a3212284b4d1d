// Calls by which a process gives up rights, or the sight of files: what the stack needs them for is seen to before, or the first listen()
// would come too late; and when the call returns no thread of ours has them either.
// SPDX-License-Identifier: BSD-3-Clause
//
// All of them are the kernel's, and each thread's own (libc makes them in every thread). A call that gives up nothing, or that is refused,
// may be taken for one that does: that costs a fork. Rights that the process may take back (an effective user id alone, an effective set)
// are not lost, and whoever opens the wire takes them back for itself.
#include <linux/capability.h>

#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/family/service.h"
#include "shim/files/placeholders.h"
#include "shim/files/routing.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint32_t kUnchanged = ~uint32_t{0};

struct UserIds {
  uint32_t real, effective, saved;

  [[nodiscard]] bool holds_root() const noexcept { return real == 0 || effective == 0 || saved == 0; }
};

UserIds own_ids() noexcept {
  UserIds ids{};
  (void)kernel_call(SYS_getresuid, as_arg(&ids.real), as_arg(&ids.effective), as_arg(&ids.saved));
  return ids;
}

uint32_t id_after(uint32_t now, int64_t wanted) noexcept {
  const auto id = static_cast<uint32_t>(wanted);
  return id == kUnchanged ? now : id;
}

long change(const zps_call& call) noexcept {
  const long result = kernel_call(call.nr, call.arg[0], call.arg[1], call.arg[2]);
  if (result != 0) return result;
  age_placeholders();  // new ones are somebody else's
  service_follow();
  return result;
}

long change_user(const zps_call& call, const UserIds& after) noexcept {
  if (!after.holds_root() && own_ids().holds_root()) rights_are_leaving();
  return change(call);
}

}  // namespace

long shim_setuid(const zps_call& call) noexcept {
  const auto id = static_cast<uint32_t>(call.arg[0]);
  return change_user(call, {id, id, id});
}

// The saved id follows the effective one: kernel/sys.c, __sys_setreuid().
long shim_setreuid(const zps_call& call) noexcept {
  const UserIds now = own_ids();
  const uint32_t effective = id_after(now.effective, call.arg[1]);
  return change_user(call, {id_after(now.real, call.arg[0]), effective, effective});
}

long shim_setresuid(const zps_call& call) noexcept {
  const UserIds now = own_ids();
  return change_user(call, {id_after(now.real, call.arg[0]), id_after(now.effective, call.arg[1]), id_after(now.saved, call.arg[2])});
}

// Of the permitted set, which no process can enlarge.
long shim_capset(const zps_call& call) noexcept {
  constexpr uint32_t kNeeded = uint32_t{1} << CAP_NET_ADMIN | uint32_t{1} << CAP_NET_RAW;
  __user_cap_data_struct wanted;
  const bool readable = copy_in(&wanted, reinterpret_cast<void*>(call.arg[1]), sizeof wanted) == 0;
  if (readable && (wanted.permitted & kNeeded) != kNeeded) rights_are_leaving();
  return change(call);
}

long shim_setgid(const zps_call& call) noexcept { return change(call); }
long shim_setregid(const zps_call& call) noexcept { return change(call); }
long shim_setresgid(const zps_call& call) noexcept { return change(call); }

// Whose new sockets are (sock_alloc(): current_fsuid()), and nothing else that concerns us. The result is the id before.
long shim_setfsuid(const zps_call& call) noexcept {
  const long before = kernel_call(call.nr, call.arg[0]);
  age_placeholders();
  return before;
}

long shim_chroot(const zps_call&) noexcept {
  root_is_changing();
  return kPass;
}

}  // namespace shim
