// Starts DPDK's environment once per process, and ports on it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/result.h"
#include "netstack/wires/frame_pool.h"

namespace netstack {

// Starts the environment if this process has not yet; an error in a child that inherited one. Leaves
// low descriptors open for a moment: call it on a thread of its own. With `device`, a PCI address, it takes that one with such interrupts
// ("msix", "msi"; the drivers are loaded, a Control is current), and is there for nothing else.
base::Result<bool> start_eal(const char* device = nullptr, const char* interrupts = "msix") noexcept;

// Makes the virtual device `name` ("net_memif0") with DPDK's arguments and starts it with one queue each way.
base::Result<uint16_t> start_port(const char* name, const char* arguments, FramePool* pool, uint16_t depth, uint32_t mtu) noexcept;

}  // namespace netstack
