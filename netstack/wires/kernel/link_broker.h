// A process that keeps the right to make a wire's links, for a program that gives up its own before it listens.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Daemons start as root, become another user and then listen; a privileged port needs no more. To make the links takes
// CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN, on a shared interface CAP_BPF as well, at the first listen() or connect(), when they are
// gone. And whoever gives up its rights may as well be su, a shell's helper, a job of cron: most never use the network, and must not pay
// for it.
//
// How. As in privilege separation (Provos et al., USENIX Security 2003) and sandboxes: just before the rights go, a copy of the process is
// left behind (fork) with no descriptors but one end of a socket pair, no capabilities but these, and one thing to do, once: when it is
// asked it makes the links that were configured and hands over their descriptors. Nothing it is sent changes what it makes. It ends when it
// has answered, or when nobody is left who could ask: with the last process that has the other end, which execve() closes. It sends no
// SIGCHLD and is not found by wait() without __WALL.
//
// Rejected: making the links at once (0.8 ms, but closing packet sockets that nobody used waits for two RCU grace periods, 16 ms and more,
// in exec or exit); a thread that keeps its credentials (they are per thread, but whoever takes over the program writes to its stack);
// PR_SET_KEEPCAPS (the program would keep what it gave up). docs/decisions/kept-rights.md has the figures.
//
// Known limits: the broker's memory is the program's as it was, shared until one of them writes. The first of a family that asks gets the
// links.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "netstack/wires/kernel/veth_links.h"

namespace netstack {

// Puts into effect, in this thread, what the process has for the taking: its effective user id alone is another for a while.
void take_link_rights() noexcept;
// Whether this thread may make links.
[[nodiscard]] bool has_link_rights() noexcept;
// Starts it, for what `make` makes, if this process has the rights and has not started one. Any number of threads may call it.
using MakeLinks = base::Result<VethLinks> (*)(const Opening& opening) noexcept;
void start_link_broker(const StackConfig& config, MakeLinks make) noexcept;
[[nodiscard]] bool has_link_broker() noexcept;
// What it has made there.
base::Result<VethLinks> ask_link_broker(WireAddress* out) noexcept;
// Lets it go before this process becomes another program, which should find no child that it does not know.
void end_link_broker() noexcept;

}  // namespace netstack
