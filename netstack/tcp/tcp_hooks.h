// The callbacks that follow a PCB from its birth to its memory's release.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "lwip/priv/tcp_priv.h"

namespace netstack {

// Set as ext_args[0] of every PCB: `destroy` unfiles whatever the PCB was.
extern const tcp_ext_arg_callbacks kPcbCallbacks;

}  // namespace netstack
