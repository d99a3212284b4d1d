// Which ports this network namespace lets be chosen.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "netstack/stack.h"

namespace shim {

// As /proc says it now. What cannot be read stays as it was: the last that was read, or Linux' default. Without the lock or with the
// family's own.
const netstack::LocalPorts& read_local_ports() noexcept;

}  // namespace shim
