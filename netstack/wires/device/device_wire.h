// The wire "device:0000:00:05.0": a network card, or a virtual function of one, that this program alone drives.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/result.h"
#include "netstack/wires/opening.h"

namespace netstack {

base::Result<Wire*> open_device(const Opening& opening) noexcept;

}  // namespace netstack
