// RLIMIT_NOFILE of a process that has a stack: the hard limit stays where our own descriptors need it, the program sees what it has set.
// SPDX-License-Identifier: BSD-3-Clause
//
// Descriptors come to a member at any time (what a peer over shared memory sends), and their numbers lie beyond the program's limit
// (base/high_fd.h): the kernel hands such a number out while the soft limit is raised, which the hard limit bounds. A server that lowers
// that, and gives up its right to raise it, could take no peer any more. So what a program takes off the hard limit is kept here, the
// kernel is told the soft one, which is the one it enforces, and a program that is executed finds the limits that were set.
//
// Known limits: who looks from outside (/proc/PID/limits, prlimit of another process) sees the hard limit as it was before; when exec()
// fails at last, our range is out of reach from then on.
#pragma once

#include <sys/resource.h>

#include <cstdint>

namespace shim {

// As prlimit64(0, RLIMIT_NOFILE, wanted, old): 0 or a negative errno. Either may be nullptr.
[[nodiscard]] long change_file_limit(const rlimit* wanted, rlimit* old) noexcept;
// Whether the kernel's differs from the program's; then it is told that one before a program is executed, in the child of a vfork as well.
[[nodiscard]] bool file_limit_is_kept() noexcept;
void hand_file_limit_on() noexcept;
// CAP_SYS_RESOURCE.
[[nodiscard]] bool may_raise_limits() noexcept;

}  // namespace shim
