// RLIMIT_NOFILE and RLIMIT_AS, which our own descriptors and memory need as well; all other limits, and other processes, are the kernel's.
// SPDX-License-Identifier: BSD-3-Clause
//
// In the child of vfork it is the kernel's too: what is kept is the parent's.
#include <sys/resource.h>

#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/family/address_limit.h"
#include "shim/family/family.h"
#include "shim/family/file_limit.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

bool is_kept(int64_t resource) noexcept {
  const auto number = static_cast<unsigned>(resource);
  return (number == RLIMIT_NOFILE || number == RLIMIT_AS) && engine->thread()->vfork_child == 0;
}

bool is_own(int64_t pid) noexcept {
  return static_cast<int>(pid) == 0 || static_cast<int>(pid) == base::kernel_call(SYS_getpid);
}

long change(int64_t resource, int64_t wanted_at, int64_t old_at) noexcept {
  rlimit wanted{}, old{};
  if (wanted_at != 0 && copy_in(&wanted, reinterpret_cast<void*>(wanted_at), sizeof wanted) != 0) return -EFAULT;
  const auto change_limit = static_cast<unsigned>(resource) == RLIMIT_AS ? change_address_limit : change_file_limit;
  const long result = change_limit(wanted_at != 0 ? &wanted : nullptr, &old);
  return result == 0 && old_at != 0 ? copy_out(reinterpret_cast<void*>(old_at), &old, sizeof old) : result;
}

}  // namespace

long shim_prlimit64(const zps_call& call) noexcept {
  return is_own(call.arg[0]) && is_kept(call.arg[1]) ? change(call.arg[1], call.arg[2], call.arg[3]) : kPass;
}
// NULL is no "none" to these two: the kernel's answer to it is passed on.
long shim_setrlimit(const zps_call& call) noexcept {
  return is_kept(call.arg[0]) && call.arg[1] != 0 ? change(call.arg[0], call.arg[1], 0) : kPass;
}
long shim_getrlimit(const zps_call& call) noexcept {
  return is_kept(call.arg[0]) && call.arg[1] != 0 ? change(call.arg[0], 0, call.arg[1]) : kPass;
}

}  // namespace shim
