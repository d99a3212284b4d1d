// Who stays when the last member of a family is killed: a process that tells the peers.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Linux sends what is left of a process's connections, and their FIN or RST, however the process ends. A stack ends with the
// last process that has it. Whoever exits says goodbye itself (process.h); whoever is ended by a signal cannot, and its peers would wait
// for ever.
//
// How. With the stack a process is forked that sleeps until no member is left. Each of them has one end of a pipe, inherited by fork and
// closed by exec and by death, and the keeper reads the other. Then it frees what the dead still had, as the service does for one member
// among others, stays until that is sent and acknowledged, and ends.
//
// It has none of the program's descriptors, no capability, a session of its own, and blocks all signals; to wait() it is nobody's child
// (found with __WALL only). Nothing of it runs while a member lives.
//
// Invariants: 1 it touches nothing that is shared before the pipe has no writer left; 2 a failure to make it is no failure of the stack.
// Known limits: its memory is the program's as it was when the stack was made, so a page that the program writes to later is there twice;
// a member that is killed inside the lock takes the family's connections with it, as ever; who kills both tells nobody;
// one that is killed is not replaced, since forked members have no end of another pipe.
#pragma once

namespace shim {

// In the process that makes the stack, with the lock held.
void start_keeper() noexcept;
// By the last member that exits, who has done the rest: the keeper ends, and is no zombie for somebody else to reap.
void end_keeper() noexcept;

// By whoever is on duty: says once if somebody has killed it.
void look_after_keeper() noexcept;

// What a program that this process executes needs to go on with the same keeper, and there: has it.
struct KeeperOf {
  long pid;
  int pipe;
};
[[nodiscard]] KeeperOf keeper() noexcept;
void adopt_keeper(const KeeperOf& of) noexcept;

}  // namespace shim
