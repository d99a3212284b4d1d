// Which side serves a socket, and the making of a stack when the first socket needs one.
// SPDX-License-Identifier: BSD-3-Clause
//
// First match wins: loopback, link-local addresses and the wildcard as a destination are the kernel's; then what a rule of the settings
// gives to the kernel (base/rules.h), and what is UDP's without a rule if `udp` says so; an address of the stack, and whatever the stack's
// networks and default route reach, is the stack's; everything else is the kernel's. A wildcard listener is on both sides.
// `zpstack config --explain` says the same with its reason (apps/zpstack/explain.cc).
// Where the stack's addresses are the kernel's as well (WireFacts::shared), what the kernel sends to itself is its own, and a listener at
// one of them is on both sides: this host's clients reach it there.
// Before there is a stack its addresses may not be known (the default wire chooses them): then an address that
// was configured, or lies in 198.18.0.0/15 or fdc6:1200::/48 and is not reached by an interface of the kernel, is reason enough to make the
// stack and ask it.
#pragma once

#include "base/config.h"
#include "netstack/stack.h"

namespace shim {

// The family's stack, made if need be. nullptr when it cannot be made and ZPS_FALLBACK=kernel says to go on without; otherwise
// the process ends with exit code 127 after one line. Without the lock; may take some tens of milliseconds.
[[nodiscard]] netstack::Stack* ensure_stack() noexcept;
// Another process is about to have this one's sockets: the stack is made if one of them may listen there, for both to have the same.
void make_stack_for_bound_sockets() noexcept;

// A program that shares its stack by name has it from its first socket on. Without the lock.
void enter_network() noexcept;

// The scope of the wire's link-local addresses (RFC 4007), with a stack.
[[nodiscard]] uint32_t wires_scope() noexcept;
// Whether this is, or would be, it. On a wire that has the kernel's addresses these are the kernel's.
[[nodiscard]] bool is_wires_scope(uint32_t scope) noexcept;

[[nodiscard]] bool is_loopback(const netstack::IpAddress& address) noexcept;

// What the rules say of a socket of this protocol with this local port (0: none yet), towards a peer (nullptr: nobody in particular).
[[nodiscard]] base::Side side_of(int protocol, uint16_t port_be, const netstack::IpAddress* peer) noexcept;
// Whether they leave any peer to the stack.
[[nodiscard]] bool may_be_stacks(int protocol, uint16_t port_be) noexcept;
// Whether any datagram socket may be the stack's.
[[nodiscard]] bool serves_datagrams() noexcept;

// For connect(): the stack if it is the way to `address` and the rules leave that to it, else nullptr. Without the lock.
[[nodiscard]] netstack::Stack* stack_towards(int protocol, uint16_t port_be, const netstack::IpAddress& address) noexcept;
// For bind(): the stack if `address` is one of its own, else nullptr, whatever the rules say. Without the lock.
[[nodiscard]] netstack::Stack* stack_at(const netstack::IpAddress& address) noexcept;

// The stack if `address` is one that it and the kernel have, else nullptr. Without the lock.
[[nodiscard]] netstack::Stack* shared_stack_at(const netstack::IpAddress& address) noexcept;

// The process is about to lose rights that a stack made later would need. Without the lock.
void rights_are_leaving() noexcept;
// It is about to have another root: no file of ours, no /proc and no /dev from then on.
void root_is_changing() noexcept;

}  // namespace shim
