// A library that calls libc's syscall(), for mode symbols.
// SPDX-License-Identifier: BSD-3-Clause
#include <unistd.h>

#ifdef MANY_RELOCATIONS
#define TEN(x) x, x, x, x, x, x, x, x, x, x
// Read-only once ld.so is done with it, which takes a while.
static const char late_byte;
const void* const late_table[] = {TEN(TEN(TEN(TEN(TEN(&late_byte)))))};
#endif

long late_syscall(long nr, long argument) { return syscall(nr, argument); }
