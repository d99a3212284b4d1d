/* Names of system calls, from the kernel's own header (made by CMake). */
/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef APPS_HOOKS_SYSCALL_NAMES_H
#define APPS_HOOKS_SYSCALL_NAMES_H

static const char* const kSyscallNames[512] = {
#include "syscall_names.inc"
};

/* The name of call `nr`, "?" if it has none. */
static inline const char* zps_syscall_name(long nr) { return nr >= 0 && nr < 512 && kSyscallNames[nr] ? kSyscallNames[nr] : "?"; }

#endif
