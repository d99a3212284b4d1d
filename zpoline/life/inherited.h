// What a program that was executed has from the one before: a descriptor, and a hook library that lies where it lay.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Memory that the hook library shares with other processes holds addresses of its code. Who attaches to that memory after an
// exec has to have the same code at the same addresses, but ld.so loads a library where the kernel has room.
//
// How. The number of a descriptor comes in a variable of the environment, which goes before anything of the program sees it. What the
// descriptor refers to is believed only if it is a file of memory that names this process. It says where the library lay; so while ld.so
// loads it, each system call traps (Syscall User Dispatch), and the one that maps the library's file is made with that address. If
// something else lies there already, the library goes where there is room, and has to refuse what it inherits.
//
// Rejected: to load the library at one fixed address (an attacker's gift); to fill the address space so that only that place is left
// (it counts against RLIMIT_AS); a loader of our own (the library has a libc, with its thread-local variables).
#pragma once

#include <cstdint>

#include "zpoline/hook.h"

namespace zpoline {

// At the start of a program, in its only thread: takes the variable out of the environment. The descriptor, or -1.
[[nodiscard]] int take_inheritance(char** environment) noexcept;
// dlmopen() of the hook library into a namespace of its own: where the one before lay if something was inherited, else at `place` if that
// is not 0.
[[nodiscard]] void* load_hook(const char* path, uint64_t place) noexcept;
// There will be no library to take it: everything that was left is closed. `why` is for a person.
void refuse_inheritance(const char* why) noexcept;
// "NAME=number" for the next program's environment.
void write_inheritance(int fd, char* out, int capacity) noexcept;

}  // namespace zpoline
