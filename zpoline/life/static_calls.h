// System calls in which the engine has a part in static programs only: what natively needs no engine's help.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "zpoline/hook.h"

namespace zpoline {

// arch_prctl: fs is the engine's at this moment, and gs always.
[[nodiscard]] int64_t program_arch_prctl(zps_call* call) noexcept;
// readlink and readlinkat: /proc/self/exe is the program.
[[nodiscard]] int64_t program_readlink(zps_call* call) noexcept;

}  // namespace zpoline
