// RLIMIT_AS of a process that has a stack: what a program sets is for the program, and what is ours comes on top.
// SPDX-License-Identifier: BSD-3-Clause
//
// A server that is made of several programs bounds each of them (Dovecot: 256 MB, or 64), by RLIMIT_AS before it executes the next one.
// The stack's memory, mapped whole and touched where it is used, is as much as that: the next program could not have its sockets, or could
// map nothing else. So the kernel is told a limit that is higher by what is ours; the program sees what it has set; and a program that is
// executed with sockets of the stack is told of both (ExecTicket). One that has none finds what was set.
//
// Known limits: who looks from outside (/proc/PID/limits, prlimit of another process) sees the kernel's; without CAP_SYS_RESOURCE the hard
// limit bounds it as before; the child of a vfork sets the kernel's; a limit that was there before the stack is the stack's as well
// (family_memory.h).
#pragma once

#include <sys/resource.h>

#include <cstdint>

namespace shim {

// What the program has set, and what the kernel was told. Valid as zeros: nothing.
struct AddressLimit {
  uint32_t kept;
  rlimit told, real;
};

// As prlimit64(0, RLIMIT_AS, wanted, old): 0 or a negative errno. Either may be nullptr.
[[nodiscard]] long change_address_limit(const rlimit* wanted, rlimit* old) noexcept;
// What the next program is to know, and what it takes over.
[[nodiscard]] AddressLimit address_limit() noexcept;
void adopt_address_limit(const AddressLimit& limit) noexcept;
// Before a program is executed that has no part in the stack, and if there is none after all.
void lower_address_limit() noexcept;
void raise_address_limit() noexcept;

}  // namespace shim
