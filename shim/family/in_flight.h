// Files in flight: passed on in a message of a Unix socket (SCM_RIGHTS), and nobody's descriptor yet.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Who passes a descriptor on may close it, exit or be killed before it is received, and the description lives on in the
// message: received later, by whichever process, once or (MSG_PEEK) several times, or thrown away with the socket, by read(), or where the
// receiver has no room for it. The kernel counts that for its own sockets. Of a socket of the stack it knows the placeholder alone, and
// says to nobody when the last reference to one is gone.
//
// How. What travels is an envelope: one end of a pair of Unix sockets, whose other end is closed. In its queue lies one message, with a
// label that says what it is, and descriptors: the placeholder, the family's door (join.h), and an open file description of a memory file
// that the family shares. That one holds an OFD lock on a byte, the record's, which the kernel drops with the last reference to the
// envelope, wherever it is: as long as the byte is locked the family holds the file. The receiver looks into the envelope (MSG_PEEK, since
// others may have it too) and puts the placeholder in its place.
//
// To a process that cannot open it an envelope is a socket that is of no use: it gives the label, then the end, and takes nothing (EPIPE).
//
// Rejected: the placeholder itself as what travels, known by its inode, with the second descriptor beside it: the receiver's control buffer
// has no room for one more, and a kernel socket that listens on half of the addresses looks to a stranger as if it were all; asking whether
// the sender's queue is empty (SIOCOUTQ): who has read a message need not have received what was in it.
//
// Invariants: 1 a record without a file is free if its byte can be locked; 2 a record's file is counted once, whatever the number of its
// envelope's descriptors; 3 a descriptor of an envelope that is about to be sent, or closed, is registered, so that the child of a fork
// closes it; 4 a label counts with the description that has the lock of its record: who is passed an envelope can open it, and write
// another label.
// Known limits: kInFlight at a time in a family (ETOOMANYREFS); an envelope counts as four descriptors of what a user may have in flight.
#pragma once

#include <cstdint>

#include "shim/family/slots.h"

namespace shim {

inline constexpr uint32_t kInFlight = 1024;

struct InFlight {
  Counted* file;
  uint32_t received;  // by a member, be it once only
};

// Makes the memory file, with the lock held, while the stack is being made. Without it nothing can be passed on.
void prepare_flights() noexcept;

// With the lock held, from here on.

// An envelope with `file`, whose placeholder this process has under `number`: a descriptor, registered, or a negative errno.
[[nodiscard]] long make_envelope(Counted* file, int number) noexcept;
// This process has sent it or could not. No effect on any other number.
void discard_envelope(int fd, bool is_sent) noexcept;
// What a handler that jumped out of a send of this thread's has left.
void discard_left_envelopes() noexcept;

struct Opened {
  Counted* file;
  int placeholder;  // a new descriptor, close-on-exec
  uint32_t record;
};
// Looks into an envelope of this family: 0, or why it cannot be had (a negative errno; ESTALE: it is of another family).
[[nodiscard]] long open_envelope(int fd, Opened* out) noexcept;
// A copy of an envelope that was opened, out of the program's sight, for close_envelope(); or a negative errno.
[[nodiscard]] int keep_envelope(int fd, uint32_t record) noexcept;

// No member is left that could receive anything.
void end_flights() noexcept;
// After a member died in the lock: forgets what `known` does not know, and counts a reference to what it does.
void recount_flights(bool (*known)(Counted*)) noexcept;

// Without the lock.

// The receiver has taken it out: if nobody else has the envelope the file is no longer in flight. With its last descriptor goes whatever
// lies in the queue, which is who has passed it on to choose and may wait (SO_LINGER).
void close_envelope(int kept) noexcept;
// Whether `fd`, which has just been received, is an envelope, of whatever family.
[[nodiscard]] bool is_envelope(int fd) noexcept;
// The family's door, which goes with each envelope, of whatever family: a descriptor, or a negative errno.
[[nodiscard]] int door_of(int envelope) noexcept;
// Drops what nobody can receive any more. Costs a load if nothing is in flight.
void sweep_flights() noexcept;
// In the child of a fork: what its parent was about to send.
void forget_envelopes() noexcept;

}  // namespace shim
