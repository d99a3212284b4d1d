/* Numbers that the entry assembly and the C++ code share: offsets of fields and frame slots. C++ checks them (engine.h). */
/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ZPOLINE_LAYOUT_H
#define ZPOLINE_LAYOUT_H

/* ThreadState */
#define ZPS_INSIDE 0            /* and the selector behind it: both are written as one word */
#define ZPS_WORD_INSIDE 0x0001
#define ZPS_WORD_OUTSIDE 0x0100
#define ZPS_PENDING 4
#define ZPS_SHARED 48
#define ZPS_OWNER 52
#define ZPS_OWN_STACK 56

/* zps_call */
#define ZPS_CALL_NR 0
#define ZPS_CALL_ARGS 8
#define ZPS_CALL_RETURN 56
#define ZPS_CALL_BYTES 64

/* What lies where a thread's own stack begins (own_stack.S): where the program goes on, the return address, its rsp. */
#define ZPS_OWN_ON 0
#define ZPS_OWN_RETURN 8
#define ZPS_OWN_RSP 16
#define ZPS_OWN_PROGRAM_ON 24   /* of a static program: then ZPS_OWN_ON leads to static_entry.S */
#define ZPS_OWN_HEAD_BYTES 32
/* A stub that leads there: where it goes on, from its begin. */
#define ZPS_OWN_STUB_ON 26

/* CloneFrame */
#define ZPS_CLONE_RBX 0
#define ZPS_CLONE_RETURN 8
#define ZPS_CLONE_NR 16
#define ZPS_CLONE_STACK 24
#define ZPS_CLONE_CHILD_STACK 32
#define ZPS_CLONE_ON 40
#define ZPS_CLONE_SAME_STACK 48
#define ZPS_CLONE_RDI 56
#define ZPS_CLONE_R8 64
#define ZPS_CLONE_PROGRAM_ON 72

/* Words of libc's thread control block that nothing uses (once for the processor's number). Of a static program's thread: its fs, and what
 * signals.cc keeps. */
#define ZPS_PROGRAM_FS 56
#define ZPS_INTERRUPTED 64

/* How many numbers the dispatch table answers: the sled's 512 and the landing zone behind it. */
#define ZPS_DISPATCH_SLOTS 1024

#endif
