// What a program's limit of addresses is to it, and to the kernel; see address_limit.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/address_limit.h"

#include <cerrno>

#include "base/shared_memory.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/file_limit.h"
#include "shim/family/kept_limit.h"
#include "shim/family/own_memory.h"
#include "shim/family/process.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kOther = 16 << 20;  // the wire's rings, DPDK's memory, the code of the stack, threads of ours

AddressLimit limit{};  // with the lock held; a child of a fork inherits it

rlimit kernels_limit() noexcept {
  rlimit now{};
  (void)kernel_call(SYS_prlimit64, 0, RLIMIT_AS, 0, as_arg(&now));
  return now;
}

bool tell_kernel(const rlimit& wanted) noexcept { return kernel_call(SYS_prlimit64, 0, RLIMIT_AS, as_arg(&wanted), 0) == 0; }

bool same(const rlimit& a, const rlimit& b) noexcept { return a.rlim_cur == b.rlim_cur && a.rlim_max == b.rlim_max; }

rlimit lowered() noexcept { return {limit.told.rlim_cur, limit.real.rlim_max}; }

// Somebody outside may have set another one meanwhile, or the child of a vfork, whose memory this is too: that holds then.
bool is_kept(const rlimit& now) noexcept { return limit.kept != 0 && (same(now, limit.real) || same(now, lowered())); }

rlimit programs_limit() noexcept {
  const rlimit now = kernels_limit();
  return is_kept(now) ? limit.told : now;
}

uint64_t own_bytes() noexcept {
  uint64_t bytes = kOther;
  for (const Range& range : own_memory()) bytes += range.end - range.begin;
  for (const base::SharedPart& part : base::shared_parts()) bytes += part.over ? 0 : part.bytes;
  return bytes;
}

uint64_t with(uint64_t bytes, uint64_t more) noexcept { return bytes < RLIM_INFINITY - more ? bytes + more : RLIM_INFINITY; }

long set(const rlimit& wanted, const rlimit& old) noexcept {
  if (wanted.rlim_cur > wanted.rlim_max) return -EINVAL;
  const bool may_raise = may_raise_limits();
  if (wanted.rlim_max > old.rlim_max && !may_raise) return -EPERM;
  const uint64_t hard = kernels_limit().rlim_max;
  const uint64_t own = the_stack() != nullptr && !kernel_only() ? own_bytes() : 0;
  AddressLimit next{own != 0 && wanted.rlim_cur != RLIM_INFINITY, wanted, {with(wanted.rlim_cur, own), with(wanted.rlim_max, own)}};
  if (!may_raise && next.real.rlim_max > hard) next.real.rlim_max = hard;
  if (next.real.rlim_cur > next.real.rlim_max) next.real.rlim_cur = next.real.rlim_max;
  const rlimit& real = next.kept != 0 ? next.real : next.told;
  const long result = kernel_call(SYS_prlimit64, 0, RLIMIT_AS, as_arg(&real), 0);
  if (result == 0) limit = next;
  return result;
}

}  // namespace

long change_address_limit(const rlimit* wanted, rlimit* old) noexcept {
  return change_kept_limit(wanted, old, programs_limit, set);
}

AddressLimit address_limit() noexcept {
  return is_kept(kernels_limit()) ? limit : AddressLimit{};
}

void adopt_address_limit(const AddressLimit& inherited) noexcept { limit = inherited; }

// The soft one is what the kernel enforces; the hard one stays, so that the way back is free.
void lower_address_limit() noexcept {
  if (address_limit().kept == 0) return;
  (void)tell_kernel(lowered());
}

void raise_address_limit() noexcept {
  if (limit.kept != 0 && same(kernels_limit(), lowered())) (void)tell_kernel(limit.real);
}

}  // namespace shim
