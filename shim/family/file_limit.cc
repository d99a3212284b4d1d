// What a program's limit of open files is to it, and to the kernel; see file_limit.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/file_limit.h"

#include <linux/capability.h>

#include <atomic>
#include <cerrno>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/kept_limit.h"
#include "shim/family/process.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// The hard limit that the program has set, while the kernel's is higher. A child of a fork inherits both.
std::atomic<uint64_t> hard_limit{RLIM_INFINITY};

rlimit kernels_limit() noexcept {
  rlimit now{};
  (void)kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, as_arg(&now));
  return now;
}

rlimit programs_limit() noexcept {
  rlimit now = kernels_limit();
  const uint64_t hard = hard_limit.load(std::memory_order_relaxed);
  if (now.rlim_max > hard) now.rlim_max = hard;
  if (now.rlim_cur > now.rlim_max) now.rlim_cur = now.rlim_max;
  return now;
}

bool needs_more(uint64_t hard) noexcept {
  if (the_stack() == nullptr || kernel_only()) return false;  // to ask for the range would fix it
  return hard < static_cast<uint64_t>(base::fd_floor() + base::high_fd_count());
}

long set(const rlimit& wanted, const rlimit& old) noexcept {
  if (wanted.rlim_cur > wanted.rlim_max) return -EINVAL;
  if (wanted.rlim_max > old.rlim_max && !may_raise_limits()) return -EPERM;
  const rlimit now = kernels_limit();
  const bool keep = needs_more(wanted.rlim_max) && now.rlim_max > wanted.rlim_max;
  const rlimit told{wanted.rlim_cur, keep ? now.rlim_max : wanted.rlim_max};
  const long result = kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, as_arg(&told), 0);
  if (result == 0) hard_limit.store(keep ? wanted.rlim_max : RLIM_INFINITY, std::memory_order_relaxed);
  return result;
}

}  // namespace

bool may_raise_limits() noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2]{};
  return kernel_call(SYS_capget, as_arg(&header), as_arg(sets)) == 0 && (sets[0].effective >> CAP_SYS_RESOURCE & 1) != 0;
}

long change_file_limit(const rlimit* wanted, rlimit* old) noexcept { return change_kept_limit(wanted, old, programs_limit, set); }

bool file_limit_is_kept() noexcept { return hard_limit.load(std::memory_order_relaxed) != RLIM_INFINITY; }

void hand_file_limit_on() noexcept {
  const rlimit real = programs_limit();
  (void)kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, as_arg(&real), 0);
}

}  // namespace shim
