// Calls on all of a process's memory, some of which is ours.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/calls.h"
#include "shim/family/locked_memory.h"

namespace shim {

long shim_mlockall(const zps_call& call) noexcept { return lock_all_memory(call.arg[0]); }
long shim_munlockall(const zps_call&) noexcept { return unlock_all_memory(); }

}  // namespace shim
