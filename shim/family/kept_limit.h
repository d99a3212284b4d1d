// A resource limit that is another one to the program than to the kernel (file_limit.h, address_limit.h).
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/resource.h>

#include "shim/family/family.h"

namespace shim {

// As prlimit64(0, ..., wanted, old): 0 or a negative errno; either may be nullptr. `programs_limit()` is what it is to the program,
// `set(wanted, now)` makes it another one. With the lock held: whoever raises a limit for a moment does that too.
template <class Limit, class Set>
[[nodiscard]] long change_kept_limit(const rlimit* wanted, rlimit* old, Limit programs_limit, Set set) noexcept {
  const Guard guard;
  const rlimit now = programs_limit();
  if (wanted != nullptr) {
    if (const long result = set(*wanted, now); result != 0) return result;
  }
  if (old != nullptr) *old = now;
  return 0;
}

}  // namespace shim
