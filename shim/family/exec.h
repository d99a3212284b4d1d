// exec: the sockets of the stack that the next program has as well, and how it comes by them.
// SPDX-License-Identifier: BSD-3-Clause
//
// What Linux does. execve() closes the descriptors that are marked so and leaves the others: connections, listeners and epoll sets go on,
// and the process keeps its number, its children and its record locks.
//
// How. Everything that a family shares lies in files (base/shared_memory.h), so the next program maps the same memory at the same addresses
// and goes on as the same member: in the same slot, with the table that is there, less what exec() has closed. Addresses of code lie in
// that memory too, so the core and the stack image have to lie where they lay, and to be the same build (zpoline/life/inherited.h).
// The hidden descriptors survive with their numbers. What else the next one has to know is in a file of its own, the ticket.
//
// The kernel ends the other threads of the process wherever they are. So they are kept out of the lock first, as before an exit, and go on
// if the exec fails.
//
// Who gets nothing: a program that will not have the core (static, with rights of its own, with the environment of ZPS_INHERIT=no), or
// over a wire that lives in its process (memif, tap), or where the memory has no file. One line says how many sockets are closed, and why.
//
// Invariants: 1 until the kernel has made the exec everything can be called off; 2 from the moment the hidden descriptors survive to the
// moment the next program has them, the slot's byte stays locked by this process: for the others the member lives.
// Known limits: those of a vfork's child (exec_vfork.cc); another thread that forks while an exec is about to fail has children whose
// hidden descriptors survive their exec; a siglongjmp() out of execve() is noticed after a second.
#pragma once

#include "zpoline/hook.h"

namespace shim {

// As zps_hook has them.
int64_t before_exec(zps_call* call) noexcept;
void after_failed_exec() noexcept;

// At the start of a program that was executed with a family, in place of making one. False, and all of it is closed, if it cannot be had:
// one line has said why.
[[nodiscard]] bool inherit_family() noexcept;
// When the core is ready: takes its place there.
void settle_after_exec() noexcept;

}  // namespace shim
