// Which side serves a socket, and the making of a stack when the first socket needs one.
// SPDX-License-Identifier: BSD-3-Clause
//
// Rules, first match wins: loopback, link-local addresses and the wildcard as a destination are the kernel's; an address of the stack, and
// whatever the stack's networks and default route reach, is the stack's; everything else is the kernel's. A wildcard listener is on both
// sides.
// Before there is a stack its addresses may not be known (the default wire chooses them): then an address that
// was configured, or lies in 198.18.0.0/15 or fdc6:1200::/48 and is not reached by an interface of the kernel, is reason enough to make the
// stack and ask it.
#pragma once

#include "netstack/stack.h"

namespace shim {

// The family's stack, made if need be. nullptr when it cannot be made and ZPS_FALLBACK=kernel says to go on without; otherwise
// the process ends with exit code 127 after one line. Without the lock; may take some tens of milliseconds.
[[nodiscard]] netstack::Stack* ensure_stack() noexcept;

[[nodiscard]] bool is_loopback(const netstack::IpAddress& address) noexcept;

// For connect(): the stack if it is the way to `address`, else nullptr. Without the lock.
[[nodiscard]] netstack::Stack* stack_towards(const netstack::IpAddress& address) noexcept;
// For bind(): the stack if `address` is one of its own, else nullptr. Without the lock.
[[nodiscard]] netstack::Stack* stack_at(const netstack::IpAddress& address) noexcept;

// The process is about to lose rights that a stack made later would need. Without the lock.
void rights_are_leaving() noexcept;
// It is about to have another root: no file of ours, no /proc and no /dev from then on.
void root_is_changing() noexcept;

}  // namespace shim
