// The opener of memif wires.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/result.h"
#include "netstack/wires/opening.h"

namespace netstack {

base::Result<Wire*> open_memif(const Opening& opening) noexcept;

}  // namespace netstack
