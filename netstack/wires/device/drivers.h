// The library of DPDK's drivers for PCI devices.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/result.h"

namespace netstack {

// Loads it from beside this one; with ld.so, which allocates with the program's malloc(): at the start of a program, before that runs.
base::Result<bool> load_device_drivers() noexcept;
[[nodiscard]] bool has_device_drivers() noexcept;

}  // namespace netstack
