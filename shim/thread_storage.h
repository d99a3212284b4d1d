// Where the thread-local variables of this library are: in storage that the engine has for it in every thread.
// SPDX-License-Identifier: BSD-3-Clause
//
// What ld.so does. A library that is loaded by dlopen() has its thread-local variables in one of two places. At a fixed distance from
// fs:0 (initial-exec), out of a reserve of some 1.7 KB, which is all that every late library of the program and the second libc can have
// together; or wherever __tls_get_addr() puts them at a thread's first use, with malloc() of the program's namespace. What we take of the
// first is missing to a library that the program loads, and nothing of ours may call the program's allocator.
//
// Our choice. libzpstack.so is there from the start: its own thread-local variables are counted before main() and cost nothing of the
// reserve. So it keeps some for the hook library (zps_engine::thread_storage). Every object of this library, DPDK's and the C++ runtime's
// too, asks __tls_get_addr() where its variables are (global-dynamic, local-dynamic), and the linker finds ours before ld.so's. ld.so knows
// that there are such variables, and never makes them.
//
// The variables that every call reads are reached without a call: the linker knows where in the storage each lies
// (base/thread_variables.h). Of a program that the same objects are linked into it knows all the distances, and no call is left.
//
// Rejected: storage of our own behind one word. Who frees it when a thread ends that the kernel has killed, or that a raw clone() has made?
//
// Invariants: 1 a variable that is reached without a call begins as zero, as the storage does: the first values of the others come with
// the thread's first __tls_get_addr(); 2 no handler of the program runs in between (hook.h).
// Sources: ELF Handling For Thread-Local Storage; x86-64 psABI, TLS (code sequences, transitions).
#pragma once

#include "zpoline/hook.h"

namespace shim {

// Once, before anything else of this library runs but its constructors. False, with a line, if the variables do not fit.
[[nodiscard]] bool take_thread_storage(const zps_engine& engine) noexcept;

}  // namespace shim
