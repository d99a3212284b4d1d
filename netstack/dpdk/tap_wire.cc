// The tap wire.
#include "netstack/dpdk/opening.h"

namespace netstack {
base::Result<Wire*> open_tap(const Opening&) noexcept { return base::make_error("tap"); }
}  // namespace netstack
