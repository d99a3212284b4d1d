// A library that tests load late: a constructor, an IRELATIVE resolver and functions that make system calls of their own.
//
// Built several times with another LATE_ANSWER and another shape, so that one object replaces another at the same address.
#include "tests/zpoline/late_library.h"

#include <sys/syscall.h>

#include "tests/zpoline/probe_calls.h"

extern "C" {
[[gnu::visibility("hidden")]] long late_chosen();
[[gnu::visibility("hidden")]] long late_site_0();
[[gnu::visibility("hidden")]] long late_site_1();
[[gnu::visibility("hidden")]] long late_site_2();
[[gnu::visibility("hidden")]] long late_site_3();
}

namespace {

[[gnu::always_inline]] inline long raw(long nr, long a) {
  long result;
  asm volatile("nop\n syscall" : "=a"(result) : "a"(nr), "D"(a) : "rcx", "r11", "memory");
  return result;
}

long in_constructor = 0;
[[gnu::constructor]] void construct() { in_constructor = raw(kProbeGeneral, 41); }

long chosen() { return raw(SYS_getpid, 0); }

}  // namespace

extern "C" {

[[gnu::visibility("default")]] LateAnswers late_answers() {
  return {LATE_ANSWER, in_constructor, raw(kProbeGeneral, LATE_ANSWER), raw(kProbeFull, LATE_ANSWER), late_chosen()};
}

#if LATE_PADDING
[[gnu::visibility("default")]] void late_padding() { asm volatile(".skip %c0, 0x90\n" : : "i"(LATE_PADDING)); }
#endif

// Another thread runs one of these while their object is being loaded: the address leaves the resolver below before the engine has seen it.
#define LATE_SITE(number, alignment, code)                                                                        \
  asm(".pushsection .text\n.p2align 6\n.type late_site_" #number ", @function\n"                                   \
      "late_site_" #number ": .cfi_startproc\n.skip " #alignment ", 0x90\n" code "\ncmp $-4095, %rax\nret\n.cfi_endproc\n" \
      ".size late_site_" #number ", .-late_site_" #number "\n.popsection\n")
LATE_SITE(0, 0, "mov $39, %eax\nnop\nsyscall");   // in one cache line
LATE_SITE(1, 57, "mov $39, %eax\nnop\nsyscall");  // its two bytes in two cache lines
LATE_SITE(2, 0, "mov $39, %eax\nsyscall");        // with its number, all in eight bytes
LATE_SITE(3, 60, "mov $39, %eax\nsyscall");       // with its number, in two cache lines

// Runs while ld.so relocates this library: nothing of it may be used but code and fixed addresses.
static long (*resolve())() {
  auto* meeting = reinterpret_cast<LateMeeting*>(kLateMeeting);
  if (meeting->wanted == 1) {
    const int which = meeting->which;
    meeting->site = which == 0 ? late_site_0 : which == 1 ? late_site_1 : which == 2 ? late_site_2 : late_site_3;
    __atomic_store_n(&meeting->wanted, 2, __ATOMIC_RELEASE);
    while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) == 2) raw(SYS_sched_yield, 0);
  }
  return raw(SYS_getuid, 0) >= 0 ? chosen : nullptr;
}
[[gnu::visibility("hidden")]] long late_chosen() __attribute__((ifunc("resolve")));
}
