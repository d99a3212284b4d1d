// Networks: programs that know nothing of each other, and have one stack because they name it (ZPS_NETWORK).
// SPDX-License-Identifier: BSD-3-Clause
//
// What Linux does. All programs of a host have one stack: its addresses, its ports. EADDRINUSE is between programs, and they reach each
// other at the host's own addresses.
//
// How. The second program of a name becomes a member of the first one's family, as a worker that is passed a socket does (join.h). Its code
// lies at the same place, because the engine has loaded it there (zpoline/life/network_place.h). The family's name is an abstract
// Unix socket that it listens at; whoever may bind it makes the stack, whoever finds it taken connects, and whoever is on duty answers.
// The name belongs to the network namespace, as the stack does. It ends with the last member.
//
// When. With the first socket that the stack might serve, before it is bound to anything, and before rights are given up: it need not be
// moved then. A program that has none of both pays for the place of its code.
//
// Who gets nothing: another user's process, or one with fewer rights, or of another namespace of users or processes, since it would get
// the descriptors of the wire (door.cc); another build, or code at another place; and everybody over a wire that does not survive an exec.
// It is the same to the program as if no stack could be made: the line says why, and it ends with status 127 or goes on with the kernel
// (ZPS_FALLBACK).
//
// Known limits: a program that has threads and waits in one of them before its first socket is not let in; what one program asks of the
// stack (ZPS_MEMORY_MB, ZPS_IP ...) is settled by the first, and one line says what the second wanted otherwise; it waits for who is on
// duty for up to a tenth of a second, and 10 s if that is stopped.
#pragma once

#include "shim/family/family.h"

namespace shim {

// The name comes from the environment alone: a program whose code was loaded without it cannot be a member.
void leave_network_of_file() noexcept;

[[nodiscard]] inline bool has_network() noexcept { return config.network[0] != '\0'; }

// With the lock held, before there is a stack: the name, as a hidden descriptor. -EADDRINUSE: it is taken; or another negative errno.
[[nodiscard]] int take_network_name() noexcept;
// With the lock held: it is the new stack's (negative: there is none).
void name_family(int fd) noexcept;
// Nobody who comes from now on is let in by this process.
void leave_network_name() noexcept;

// Without the lock. nullptr: this process is a member now, or nobody has the name any more. Or why it cannot be had.
[[nodiscard]] const char* join_network() noexcept;

}  // namespace shim
