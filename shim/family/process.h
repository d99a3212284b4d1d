// What fork and exit do to the family: the engine's callbacks.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "netstack/stack.h"
#include "zpoline/hook.h"

namespace shim {

void before_fork(uint64_t flags) noexcept;
void after_fork_parent(uint64_t flags, int64_t pid) noexcept;
void after_fork_child(uint64_t flags) noexcept;
void before_exit(int64_t status) noexcept;

// In a process that was forked for it: what the last member does when it exits, in place of members that are all dead. For the keeper.
void settle_for_the_dead() noexcept;

// Stays until what closed connections have left is sent, two seconds at most, and as long as it takes to acknowledge how the peers close.
inline constexpr uint64_t kFarewellNs = 100'000'000;  // who would else repeat their FINs for minutes
void linger(netstack::Stack* stack, uint64_t farewell_ns) noexcept;
// On the memory of its parent, in the child of a vfork.
[[nodiscard]] bool in_vfork_child() noexcept;

// True in the child of a fork for which there was no place in the family: everything is the kernel's there.
[[nodiscard]] bool kernel_only() noexcept;
// Whether this process has no other thread than this one; false if /proc does not tell.
[[nodiscard]] bool is_only_thread() noexcept;

}  // namespace shim
