// A process that has no stack joins the family of a socket that it has been passed.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Workers are often older than what they will work on: Node's cluster executes them, and listens when they ask for it. They
// are passed sockets of a stack that was not there when they were forked or executed.
//
// How. Whoever executes a program, and leaves it a Unix socket by which it may be passed something, tells it where the core lies (a ticket
// that has no more than that). So the two have the same code at the same place, and the program can attach to a stack that either makes
// later as one does that was executed with it (exec.h). What it needs of descriptors it asks for: each envelope has the end of a family's
// *door*, and whoever is on duty answers there, with a ticket and all that is hidden. What the program has open itself moves: its table
// lies in private memory until then. A child that was forked before there was a stack has that memory where the family's is: it has to go
// first, which only a process of one thread can let happen.
//
// Who gets nothing: another user's process, or one that another user's would answer (what it maps it believes); one that has a stack of its
// own, or other code, or the code at another place where that cannot be helped (succession.h); one of whose sockets is bound or watched,
// or whose other threads wait; and everybody over a wire that does not survive an exec. One line says why.
//
// Invariants: 1 while it joins its other threads stay out of the lock, as during a fork; 2 it has its byte before its slot lives.
// Known limits: it waits for who is on duty, 10 s at most; one that has failed does not try again, and if it was given a slot, has it until
// it ends.
#pragma once

namespace shim {

// The family's side: answers whoever has come to the door. Costs two loads if nothing is in flight and the family has no name. Without the
// lock.
void answer_door() noexcept;
// In the process that has received `envelope`, which is of another family: nullptr if it is a member now, or a copy of this library that
// could be one has taken over (succession.h), which is to look at the envelope. Or why not.
[[nodiscard]] const char* join_family(int envelope) noexcept;
// The same over a connection to the name of its network. *again: whoever is there has closed it without a word.
[[nodiscard]] const char* join_over(int over, bool* again) noexcept;

}  // namespace shim
