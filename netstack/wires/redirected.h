// What the redirected calls of DPDK's archives share, and what they remember for the wires.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace netstack {

// The descriptor that the latest socket() or open() of a driver returned in this process: drivers do not tell, and a sleeper needs it.
[[nodiscard]] int last_dpdk_fd() noexcept;

// EAL may look for VFIO from now on.
void let_vfio_in() noexcept;

// A kernel result in libc's shape: -1 and errno for an error.
[[nodiscard]] long to_libc(long result) noexcept;
// A descriptor of the kernel's, or its error, moved away from the program's numbers, in libc's shape.
[[nodiscard]] int moved_high(long fd) noexcept;

}  // namespace netstack
