// What fork, exec and exit do to the family: the engine's callbacks.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "zpoline/hook.h"

namespace shim {

void before_fork(uint64_t flags) noexcept;
void after_fork_parent(uint64_t flags, int64_t pid) noexcept;
void after_fork_child(uint64_t flags) noexcept;
int64_t before_exec(zps_call* call) noexcept;
void after_failed_exec() noexcept;
void before_exit(int64_t status) noexcept;

// In a process that was forked for it: what the last member does when it exits, in place of members that are all dead. For the keeper.
void settle_for_the_dead() noexcept;

// True in the child of a fork for which there was no place in the family: everything is the kernel's there.
[[nodiscard]] bool kernel_only() noexcept;

}  // namespace shim
