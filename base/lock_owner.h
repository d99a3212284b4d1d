// What has become of the owner of a lock: dead, stopped, or on its way.
// SPDX-License-Identifier: BSD-3-Clause
//
// Death is certain knowledge, or nothing is done. The kernel knows the threads there are: FUTEX_TRYLOCK_PI on a word of our own that names
// the thread says ESRCH if it is gone, be it a zombie. An id that is in use again would hide a death; so the process behind the owner's tag
// is asked for as well, by whoever knows (a family: its record lock, which the kernel drops with the process).
#pragma once

#include <cstdint>

namespace base {

enum class OwnerState {
  unknown,
  runs,     // or waits for a processor, or for the kernel's own work
  stopped,  // by a signal
  traced,   // in a stop of its debugger
  frozen,   // with its control group, of version 2
};

// `owner` is a RobustLock's: thread id and tag.
[[nodiscard]] bool owner_is_gone(uint64_t owner) noexcept;
[[nodiscard]] OwnerState state_of_owner(uint64_t owner) noexcept;

// Who can tell that the process of a tag is gone. Never asked about this process's own.
using IsProcessGone = bool (*)(uint32_t tag) noexcept;
void set_process_check(IsProcessGone check) noexcept;

}  // namespace base
