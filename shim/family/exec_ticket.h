// What one program leaves to the next that the same process executes: the contents of the file that exec() hands on.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/build_id.h"
#include "base/shared_memory.h"
#include "netstack/make_stack.h"
#include "shim/family/address_limit.h"
#include "shim/family/family_memory.h"
#include "shim/family/keeper.h"
#include "shim/family/slots.h"
#include "zpoline/hook.h"

// The linker's: where the first segment of this library lies.
extern "C" [[gnu::visibility("hidden")]] const char __ehdr_start[];

namespace shim {

struct ExecTicket {
  zps_inheritance head;
  base::BuildId core;        // everything below is between library and library of one build
  netstack::StackCode code;
  FamilyPlace family;
  KeeperOf keeper;
  AddressLimit address_limit;
  uint32_t slot;
  int first_fd, fd_count;    // the hidden range
  int shared_fd;
  uint64_t shared_bytes;
  uintptr_t next_place;
  uint32_t part_count;
  base::SharedPart parts[base::kMostSharedParts];
};

// One that says where the code lies, and where a family may come that the program may join later (join.h).
struct PlaceTicket {
  zps_inheritance head;
  uintptr_t family;
};

// Why another program than one that was forked cannot have the stack, or nullptr; and that which this call executes.
[[nodiscard]] const char* why_not_attach() noexcept;
[[nodiscard]] const char* why_not_survive(const zps_call& call) noexcept;
void tell_lost(int sockets, const char* why) noexcept;
// Whether the next program may be passed sockets (SCM_RIGHTS) by this family: it has a Unix socket, among the lowest numbers but for
// standard input, output and error, which any command has.
[[nodiscard]] bool hands_on_unix_socket() noexcept;
// A PlaceTicket for what this call executes: a descriptor; 0: there is no reason, or no room.
[[nodiscard]] int64_t leave_place(const zps_call& call) noexcept;
// Of the thread that executes a program with that alone: its descriptor, and its end if the exec fails.
void note_place(int fd) noexcept;
void take_place_back() noexcept;
// Reads a ticket that this process is to use. False if it is none.
[[nodiscard]] bool read_ticket(int fd) noexcept;
// Whether the family that it tells of lies where this process has its own.
[[nodiscard]] bool ticket_is_of_own_place() noexcept;
// The family that it tells of, whose slot for this process is in that state: nullptr, or why it cannot be had.
[[nodiscard]] const char* attach_by_ticket(SlotState state) noexcept;
// A file with the ticket of that slot's process: a descriptor, which survives an exec, or a negative errno.
[[nodiscard]] int write_ticket(const ProcessSlot* slot) noexcept;
// Whether the kernel's half alone would not be the same: a socket that has been given to the stack, a set with such a socket. With the lock
// held.
[[nodiscard]] bool is_of_stack(const Counted* entry) noexcept;
// Those, and sockets that are bound on both sides: whoever has one may listen with it.
[[nodiscard]] bool goes_along(const Counted* entry) noexcept;

// In the child of a vfork: before_exec() there, what undoes it, and what the parent does when the child has left its memory.
[[nodiscard]] int64_t hand_on_from_vfork(const zps_call& call) noexcept;
void take_back_in_vfork() noexcept;
void forget_vfork_child() noexcept;

}  // namespace shim
