// The descriptor that a DPDK driver made last: drivers do not tell, and a sleeper needs it.
#pragma once

namespace netstack {

// What the latest socket() or open() of a driver returned in this process.
[[nodiscard]] int last_dpdk_fd() noexcept;

}  // namespace netstack
