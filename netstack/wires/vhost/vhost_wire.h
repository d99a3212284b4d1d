// The openers of vhost-user wires: as the device, and as the driver.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/result.h"
#include "netstack/wires/opening.h"

namespace netstack {

base::Result<Wire*> open_vhost(const Opening& opening) noexcept;
base::Result<Wire*> open_virtio_user(const Opening& opening) noexcept;

}  // namespace netstack
