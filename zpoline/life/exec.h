// execve and execveat: the hook's say, and an environment that keeps the next program under the engine.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "zpoline/hook.h"

namespace zpoline {

// Remembers LD_PRELOAD and ZPS_* as this program was started with; `library` is libzpstack.so's path. False: no memory.
[[nodiscard]] bool remember_environment(const char* const* environment, const char* library) noexcept;

// From now on static programs that this one executes are run as zpstack-static beside `library` (static_program.h), if that is there.
void run_static_programs(const char* library) noexcept;

// As zps_engine has it.
[[nodiscard]] const char* leaves_hook(const zps_call* call) noexcept;

// Serves the call (entry.S comes here with `inside` set and everything saved).
[[nodiscard]] int64_t program_exec(zps_call* call) noexcept;

}  // namespace zpoline
