// Static programs, which no loader gives a library to: this process becomes one, the engine in it.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. ld.so loads the engine into a program because of LD_PRELOAD. A static program has no ld.so.
//
// How. What is executed is zpstack-static, a program that does nothing, with the static program's arguments, and its file in ZPS_PROGRAM.
// ld.so loads libzpstack.so into that, the engine starts as ever, and then, instead of going on to main(), maps the file as the kernel
// would have, rewrites it, puts into the auxiliary vector what is its own, and jumps to its entry with the stack that the kernel made. So
// arguments, environment, process and credentials are what they would have been; ld.so and the first libc lie there and are not used any
// more, but for the variables of threads (thread_blocks.cc). Its thread pointer is its own: static_entry.S.
//
// Invariants: 1 nothing but the engine allocates from the first libc, which leaves the break alone (thread_blocks.cc); 2 fs is 0 at the
// entry, as natively.
// Known limits: /proc/PID/exe is zpstack-static for others, and for who opens /proc/self/exe; what the program reads of it
// (static_calls.cc) and executes by it (exec.cc) is its own. A processor or kernel without FSGSBASE; a fixed address where something else
// lies already.
// Sources: Linux fs/binfmt_elf.c; System V ABI for x86-64, 3.4.1.
#pragma once

#include "base/result.h"

namespace zpoline {

// Takes ZPS_PROGRAM out of the environment, before anybody else looks. Null: there is none, and static programs are left to the kernel;
// empty: this is no static program, and those that it executes are run on the stack; else the file.
[[nodiscard]] const char* take_static_program(char** environment) noexcept;
// From here on the engine knows its threads by gs. Before anything of it runs. `path`: the file, if it is still to be mapped.
base::Result<bool> prepare_static_program(const char* path) noexcept;
[[nodiscard]] bool static_program_is_go() noexcept;
// When the engine is in place. Returns only if the program cannot be mapped.
base::Error become_static_program(const char* path, char** arguments) noexcept;
// The program itself, for an exec of /proc/self/exe; null: it is not static.
[[nodiscard]] const char* static_program_path() noexcept;

}  // namespace zpoline
