// Raw Linux system calls: the one place of the project that holds a `syscall` instruction in C++.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/syscall.h>

namespace base {

// Makes system call `nr`; the result is a value >= 0 or a negative errno. Never touches errno, never
// cancels, and is async-signal-safe.
inline long kernel_call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) noexcept {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

template <class T>
long as_arg(T* pointer) noexcept {
  return reinterpret_cast<long>(pointer);
}

}  // namespace base
