// A library that tests load late: a constructor, an IRELATIVE resolver and functions that make system calls of their own.
// SPDX-License-Identifier: BSD-3-Clause
//
// Built several times with another LATE_ANSWER, another LATE_PADDING and other LATE_ROWS, so that one object replaces another at the same
// address.
#include "tests/zpoline/late_library.h"

#include <sys/syscall.h>

#include "tests/zpoline/probe_calls.h"

extern "C" {
[[gnu::visibility("hidden")]] long late_chosen();
extern const char late_sites[];
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

// Other threads run these while their object is being loaded: their address leaves the resolver below before the engine has seen them. Rows
// of four shapes (kLateShapes), at multiples of kLateSiteBytes: load and system call with something between them, the system call in one
// cache line and in two; both together, in one aligned 16 bytes and in two cache lines.
#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)
#define LATE_SITE(nops, between)                                                       \
  ".p2align 7\n .cfi_startproc\n .fill " #nops ", 1, 0x90\n mov $500, %eax\n" between \
  "syscall\n cmp $-4095, %rax\n ret\n .cfi_endproc\n"
static_assert(kProbeGeneral == 500);
asm(".pushsection .text\n .p2align 7\n .hidden late_sites\n late_sites: .rept " TEXT(LATE_ROWS) "\n"
    LATE_SITE(0, "nop\n") LATE_SITE(57, "nop\n") LATE_SITE(0, "") LATE_SITE(60, "")
    ".endr\n .popsection\n");

// Runs while ld.so relocates this library: nothing of it may be used but code and fixed addresses.
static long (*resolve())() {
  auto* meeting = reinterpret_cast<LateMeeting*>(kLateMeeting);
  if (meeting->wanted == 1) {
    meeting->sites = reinterpret_cast<uint64_t>(late_sites);
    meeting->rows = LATE_ROWS;
    __atomic_store_n(&meeting->wanted, 2, __ATOMIC_RELEASE);
    while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) == 2) raw(SYS_sched_yield, 0);
  }
  return raw(SYS_getuid, 0) >= 0 ? chosen : nullptr;
}
[[gnu::visibility("hidden")]] long late_chosen() __attribute__((ifunc("resolve")));
}
