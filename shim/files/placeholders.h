// Placeholders of accepted connections: kernel sockets that stand for one connection after another.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. A kernel socket takes 4.7 us from socket() to close(), and its listener's options, which it has to show, half a microsecond
// each. A server with a connection for each request pays that every time: 5 of 26 us (nginx), 10 of 53 us (varnish, eight options).
//
// Our choice. When a connection is closed whose placeholder nobody has touched, a hidden descriptor (base/high_fd.h) keeps the kernel's
// socket open, and the next accept() from a listener with the same options has a copy of that, under a number that the kernel chooses as
// for any descriptor: two calls of 0.15 us. While the connection lives it differs in nothing from one that has just been made.
// Rejected: one kernel socket under the numbers of all connections, cut loose when it matters (fstat(), options, dup(), fork(), exec() and
// whatever else looks at it would have to say so); another kind of file, which is no socket to fstat(), takes no options and cannot become
// a connection of the kernel's.
//
// Invariants
//  1 What is kept is as socket() and inherit_options() have made it: whatever else the program does to the number (an option, an owner, a
//    registration in the kernel, a name of its own by dup()) spoils it, and it ends with its connection.
//  2 Nobody else has it: a child of any kind of fork may hold on to the number, so with each fork all that there is grows too old.
//  3 All here is the process's own, guarded by the family's lock. A hidden descriptor belongs to a place from its making to its close.
//
// Known limits: flock(), fchown(), fchmod() and extended attributes on a connection, and what another process does to a number that it has
// taken by pidfd_getfd(), stay with the kernel's socket.
#pragma once

#include "shim/files/file.h"

namespace shim {

// What accept() makes before it takes a connection.
class Placeholder {
 public:
  // For a connection of this listener. With the lock held.
  void choose(const Socket& listening) noexcept;
  // The number that it has now, or a negative errno. `flags` are those of accept4().
  [[nodiscard]] long make(int flags) const noexcept;
  // There is a connection for it, whose listener may be another one meanwhile; true if it has that one's options. With the lock held.
  [[nodiscard]] bool give_to(Socket* socket, int number, const Socket& listening) noexcept;
  // There is none, or no number. With the lock held.
  void put_back() noexcept;

 private:
  uint8_t domain_ = 0;
  int place_ = -1;
  uint32_t options_ = 0;
  uint32_t age_ = 0;
};

// That of a connection whose number is being closed.
class LeavingPlaceholder {
 public:
  explicit LeavingPlaceholder(int number) noexcept : number_(number) {}
  // Before the number is cleared, with the lock held: one that has a place is there for the next connection from now on.
  void leave(File* file) noexcept;
  // Before the kernel closes the number, without the lock: one that is worth it gets a place.
  void keep() noexcept;

 private:
  const int number_;
  bool worth_keeping_ = false;
  bool nonblocking_ = false;
  uint8_t domain_ = 0;
  uint32_t options_ = 0;
  uint32_t age_ = 0;
};

// `number` leaves the table for any other reason. With the lock held.
void abandon_placeholder(Socket* socket, int number) noexcept;
// Something is done to the placeholder that a new one would not show. With the lock held.
inline void spoil_placeholder(Socket* socket) noexcept { socket->placeholder_age = 0; }
// The process becomes another program, which has nothing of what is kept here, and whose connections' kernel sockets are not to be kept.
// With the lock held.
void forget_placeholders() noexcept;
// A fork, of whatever kind: what there is may be another's as well. At any time; and once more when the child is there, because of what
// was made meanwhile.
void age_placeholders() noexcept;

}  // namespace shim
