// A library that calls libc's syscall(), for mode symbols.
#include <unistd.h>

long late_syscall(long nr, long argument) { return syscall(nr, argument); }
