/* From a rewritten system call into the hook and back: the entry assembly.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The problem. Where the program had `syscall` it now has `call *%rax`, which lands in page 0 at the address that is the call's
 * number, slides down to an exit and from there through the dispatch table to one of the entries below; or it has a near jump to a stub,
 * which knows the number and comes straight to the entry's second form (name_near). The program still believes in the kernel's contract: only rax, rcx and r11 change, rcx is
 * the address of the next instruction, r11 the flags; every other register, all vector state, the flags and the 128 bytes below
 * its stack pointer stay as they are.
 *
 * What the CPU makes expensive, and the choice made here:
 *   - popfq is microcoded (20 cycles and more), so flags are put back with `sahf` and one compare that recreates OF;
 *     only a program that runs with DF, AC, NT or an IOPL set pays for popfq.
 *   - xsavec + xrstor cost more than a system call. A hook says per number what it may touch: nothing (general), xmm0-15
 *     in legacy encoding (sse), or everything (full).
 *   - A number that nobody claimed goes straight to the kernel. The way there uses no stack and no flag: the test is done with
 *     lea and jrcxz, so that the kernel sees, and saves, the program's own state.
 *
 * Registers at every entry:
 *     rax  call number, 0..511 (or a number of the landing zone, which the dispatch table sends to the kernel)
 *     rdi rsi rdx r10 r8 r9  the arguments
 *     rcx r11  free: the kernel destroys them
 *     (rsp)  return address, pushed by the call; program's rsp = rsp + 8
 *   and at a _near entry:
 *     rcx    return address: the instruction after the system call
 *     (rsp)  where the stub goes on; program's rsp = rsp + 144; 8(rsp) is free, the 128 bytes above it are the program's
 *   An _own_stack entry (own_stack.S) begins in the middle of this: with the frame of a _near one, on another stack than the program's.
 *
 * Registers when the program goes on:
 *     rax  result;  rcx  return address;  r11  flags;  the rest untouched
 *
 * Is it a system call at all? A call through a NULL pointer lands here too. The return address is looked up in
 * a table of all rewritten sites (of a call; who comes through a stub is a site), indexed by 16 bits made of it (three tries, see rewriter.cc); the entries are
 * negated, so that one addition compares. If it is not found, zps_null_call faults on purpose and the SIGSEGV handler of
 * the engine reports the call as the program's own fault.
 *
 * The frame of a hooked call (all of it below the red zone of the program); on the right, where it differs, that of a _near entry:
 *
 *     rbp+144  program's rsp; CFA                       rbp+152  program's rsp; CFA
 *     rbp+136  return address
 *     rbp+8    128 bytes that belong to the program     rbp+24   128 bytes that belong to the program
 *                                                       rbp+16   return address
 *                                                       rbp+8    into the stub
 *     rbp      program's rbp
 *     rbp-8    flags (r11)
 *     rbp-16   (unused)
 *     rbp-24   rdi,  -32 rsi, -40 rdx, -48 r10, -56 r8, -64 r9
 *     rbp-72   program's rbx while a clone is under way
 *     ...      vector state, aligned (sse: 256 bytes; full: zps_xsave_bytes)
 *     rsp      struct zps_call, 16-byte aligned
 *
 * Signals: `inside` is 1 from before the hook runs until after it; handlers are put off meanwhile (signals.cc). A handler that
 * was put off is run by zps_leave. Before and after, every instruction here may be interrupted and even left by
 * siglongjmp: what it needs is in registers and on its own stack.
 *
 * Unwinding: each place from which C code is called has CFI; the caller's frame is found at every instruction.
 *
 * Known limits: a hooked call needs stack (about 300 bytes and the hook's own, sse 600, full 3 KB); a passed one 8 bytes.
 *
 * Sources: Intel SDM volumes 1 (flags, xsave) and 2; System V ABI for x86-64, 3.2.2; the zpoline paper (USENIX ATC 2023). */
#include "zpoline/entry/frame.h"

        .text

/* One kind of hooked call: what is kept besides general registers, and whom to ask. From own_stack.S the program comes with its frame
 * open. */
.macro HOOKED_BY way, name, save, recall, target
        ARRIVED_BY \way
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 6
\name:
        .cfi_startproc
        .if ON_OWN_STACK
        CFI_OF_FRAME
        .else
        CFI_AT_ENTRY
        OPEN_FRAME \name
        .endif
        .if !BY_JUMP
        CHECK_SITE
        .endif
        mov     zps_thread_state@gottpoff(%rip), %rcx
        cmpb    $0, %fs:ZPS_INSIDE(%rcx)
        GO_NESTED jne
        cmpl    $0, %fs:ZPS_SHARED(%rcx)
        jne     .Lshared_\name
.Lowner_\name:
        movl    $ZPS_WORD_INSIDE, %fs:ZPS_INSIDE(%rcx)
        \save
        STORE_CALL
        mov     %rsp, %rdi
        call    *\target(%rip)
        cmp     $1, %rax                /* overflows for ZPS_PASS only */
        jo      5f
        mov     zps_thread_state@gottpoff(%rip), %rcx
        movl    $ZPS_WORD_OUTSIDE, %fs:ZPS_INSIDE(%rcx)
        cmpl    $0, %fs:ZPS_PENDING(%rcx)
        jne     4f
3:      \recall
        CLOSE_FRAME \name
        GO_BACK
        CFI_OF_FRAME
4:      mov     %rax, ZPS_CALL_NR(%rsp)
        call    zps_leave
        mov     ZPS_CALL_NR(%rsp), %rax
        jmp     3b
5:      call    zps_leave               /* the hook let it pass: the kernel does it, with the numbers as the hook left them */
        mov     ZPS_CALL_NR(%rsp), %rax
        mov     ZPS_CALL_ARGS(%rsp), %rdi
        mov     ZPS_CALL_ARGS+8(%rsp), %rsi
        mov     ZPS_CALL_ARGS+16(%rsp), %rdx
        mov     ZPS_CALL_ARGS+24(%rsp), %r10
        mov     ZPS_CALL_ARGS+32(%rsp), %r8
        mov     ZPS_CALL_ARGS+40(%rsp), %r9
        syscall
        jmp     3b
        LET_OWNER_IN \name
        .if !ON_OWN_STACK
        ODD_OPEN \name
        .endif
        ODD_RESTORE \name
        .if !BY_JUMP
        CHECK_SITE_AGAIN
        .endif
        .cfi_endproc
        .size   \name, .-\name
.endm
.macro HOOKED name, save, recall, target
        HOOKED_BY call, \name, \save, \recall, \target
        HOOKED_BY jump, \name\()_near, \save, \recall, \target
        HOOKED_BY own_stack, \name\()_own_stack, \save, \recall, \target
.endm

/* Numbers that nobody claimed. The kernel leaves the flags in r11 and keeps everything else. */
        .globl  zps_pass
        .hidden zps_pass
        .type   zps_pass, @function
        .p2align 6
zps_pass:
        .cfi_startproc
        CHECK_SITE_KEEPING_FLAGS
zps_pass_checked:
        syscall
        mov     (%rsp), %rcx
        ret
        .cfi_endproc
        .size   zps_pass, .-zps_pass

/* A system call of a guest, or from within the hook's own work, through code that both namespaces share (ld.so): the kernel's. */
        ARRIVED_BY call
        .globl  zps_nested
        .hidden zps_nested
        .type   zps_nested, @function
zps_nested:
        .cfi_startproc
        CFI_OF_FRAME
        KEEP_TRAPS
        CLOSE_FRAME nested
        jmp     zps_pass_checked
        CFI_OF_FRAME
        ODD_RESTORE nested
        .cfi_endproc
        .size   zps_nested, .-zps_nested

        ARRIVED_BY jump
        .globl  zps_nested_near
        .hidden zps_nested_near
        .type   zps_nested_near, @function
zps_nested_near:
        .cfi_startproc
        CFI_OF_FRAME
        KEEP_TRAPS
        CLOSE_FRAME nested_near
        .cfi_offset %rip, RETURN-FRAME
        syscall
        mov     RETURN-8(%rsp), %rcx
        ret
        CFI_OF_FRAME
        ODD_RESTORE nested_near
        .cfi_endproc
        .size   zps_nested_near, .-zps_nested_near

        ARRIVED_BY call
/* A call or jump through a NULL pointer: back to the state in which it arrived, then a fault. */
        .globl  zps_not_a_site
        .hidden zps_not_a_site
        .type   zps_not_a_site, @function
zps_not_a_site:
        .cfi_startproc
        CFI_OF_FRAME
        CLOSE_FRAME not_a_site
        .globl  zps_null_call
        .hidden zps_null_call
zps_null_call:
        hlt
        CFI_OF_FRAME
        ODD_RESTORE not_a_site
        .cfi_endproc
        .size   zps_not_a_site, .-zps_not_a_site

/* rt_sigreturn finds its frame by rsp, so the pushed return address has to go. */
        .globl  zps_sigreturn
        .hidden zps_sigreturn
        .type   zps_sigreturn, @function
zps_sigreturn:
        CHECK_SITE_KEEPING_FLAGS
        lea     8(%rsp), %rsp
        syscall
        hlt
        .size   zps_sigreturn, .-zps_sigreturn

/* A signal handler sent the program here, from a system call that trapped (trap.cc). rcx is the return address, rsp the program's own,
 * r11 a _near entry: this is the stub of all sites that have none. */
        .globl  zps_trapped
        .hidden zps_trapped
        .type   zps_trapped, @function
        .p2align 4
zps_trapped:
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_register %rip, %rcx
        lea     -136(%rsp), %rsp
        .cfi_adjust_cfa_offset 136
        call    *%r11
        lea     136(%rsp), %rsp
        .cfi_adjust_cfa_offset -136
        jmp     *%rcx
        .cfi_endproc
        .size   zps_trapped, .-zps_trapped

/* The same for numbers that nobody claimed, and for rt_sigreturn, which finds its frame by rsp. */
        .globl  zps_pass_trapped
        .hidden zps_pass_trapped
        .type   zps_pass_trapped, @function
zps_pass_trapped:
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_register %rip, %rcx
        lea     -136(%rsp), %rsp
        .cfi_adjust_cfa_offset 136
        mov     %rcx, (%rsp)
        .cfi_offset %rip, -136
        syscall
        mov     (%rsp), %rcx
        .cfi_register %rip, %rcx
        lea     136(%rsp), %rsp
        .cfi_adjust_cfa_offset -136
        jmp     *%rcx
        .cfi_endproc
        .size   zps_pass_trapped, .-zps_pass_trapped

        .globl  zps_sigreturn_trapped
        .hidden zps_sigreturn_trapped
        .type   zps_sigreturn_trapped, @function
zps_sigreturn_trapped:
        syscall
        hlt
        .size   zps_sigreturn_trapped, .-zps_sigreturn_trapped

HOOKED zps_hooked_general, SAVE_NOTHING, RECALL_NOTHING, zps_on_syscall
HOOKED zps_hooked_sse, SAVE_SSE, RECALL_SSE, zps_on_syscall
HOOKED zps_hooked_full, SAVE_FULL, RECALL_FULL, zps_on_syscall
/* Calls in which the engine itself has a part; zps_on_engine_call() asks the hook first if it claimed the number. */
HOOKED zps_engine_general, SAVE_NOTHING, RECALL_NOTHING, zps_on_engine_call_pointer
HOOKED zps_engine_sse, SAVE_SSE, RECALL_SSE, zps_on_engine_call_pointer
HOOKED zps_engine_full, SAVE_FULL, RECALL_FULL, zps_on_engine_call_pointer

        .section .note.GNU-stack,"",@progbits
