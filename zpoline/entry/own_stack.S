/* Calls from small stacks: the entry that leaves the program's stack alone.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The problem. A goroutine's stack has a few hundred bytes left where a system call stands, often fewer: Go's linker counts what the
 * functions on the way there use, and promises no more. A hook that ran there would write into the next object of Go's heap. Go's signal
 * handlers have stacks of their own, of 32 KB.
 *
 * How. Each thread that makes such a call has a stack of the engine's (own_stack.cc). The stub puts nothing on the program's stack, and
 * neither does this entry: it exchanges rsp, opens the frame of a near jump there (entry.S), and goes on in the middle of the entry that
 * the number takes. A handler that interrupts the hook while it sleeps may come here again: it begins below.
 *
 * A stub of such a site (stubs.cc) has a word for this entry, the return address, and behind it the place where the program goes on. There
 * the stub puts rsp back, makes the compare that its jump has taken, and jumps behind the site.
 *
 * Registers at zps_own_stack: rax the number, r11 where the stub goes on, rcx free; all else as at a system call, rsp the program's.
 * At zps_own_stack_trapped: rsp on the thread's stack already, what lies there is written, rcx the return address, r11 free.
 *
 * What lies at rsp then (layout.h), and where entry.S finds it once rbp is pushed and is the frame's:
 *     rsp+16   rbp+24   program's rsp
 *     rsp+8    rbp+16   return address
 *     rsp      rbp+8    where the program goes on
 *
 * Signals: from the exchange on a handler sees rsp on the thread's stack, and before it nothing is written. Handlers are shown the
 * program as it stands behind its system call (own_stack.cc): Go's profiler and its preemption look the program counter up.
 *
 * Rejected: the program's stack and less of it (a hook's own frames are out of our hands); Go's g0, whose place in the runtime's
 * structures changes from version to version; one stack for the process, since a hook may sleep on it. */
#include "zpoline/entry/frame.h"

        .text
        ARRIVED_BY own_stack

        .globl  zps_own_stack, zps_own_stack_switched, zps_own_stack_trapped, zps_own_stack_missing
        .hidden zps_own_stack, zps_own_stack_switched, zps_own_stack_trapped, zps_own_stack_missing
        .type   zps_own_stack, @function
        .p2align 6
zps_own_stack:
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_escape 0x10, 16, 2, 0x7b, 0x78             /* rip: at r11-8 */
        mov     zps_thread_state@gottpoff(%rip), %rcx
        mov     %fs:ZPS_OWN_STACK(%rcx), %rcx
        jrcxz   zps_own_stack_missing
        xchg    %rcx, %rsp
zps_own_stack_switched:
        .cfi_def_cfa_register %rcx
        mov     %rcx, ZPS_OWN_RSP(%rsp)
        .cfi_escape 0x0f, 3, 0x77, ZPS_OWN_RSP, 6
        mov     %r11, ZPS_OWN_ON(%rsp)
        mov     -8(%r11), %rcx
        mov     %rcx, ZPS_OWN_RETURN(%rsp)
zps_own_stack_trapped:
        .cfi_escape 0x10, 16, 2, 0x77, ZPS_OWN_RETURN
        OPEN_FRAME own_stack
        mov     %eax, %ecx              /* all that the kernel looks at */
        cmp     $512, %ecx
        jae     zps_pass_own_stack
        mov     %ecx, %eax
        lea     zps_own_stack_ways(%rip), %r11
        jmp     *(%r11,%rax,8)
        ODD_OPEN own_stack
        .cfi_endproc
        .size   zps_own_stack, .-zps_own_stack

/* Faults: the handler gives the thread a stack and lets it begin anew, or go on below, with the return address in rcx. */
        .type   zps_own_stack_missing, @function
zps_own_stack_missing:
        hlt
        .size   zps_own_stack_missing, .-zps_own_stack_missing

/* Calls that are none of the hook's, and numbers that nobody claimed. */
        .globl  zps_nested_own_stack, zps_pass_own_stack
        .hidden zps_nested_own_stack, zps_pass_own_stack
        .type   zps_nested_own_stack, @function
        .p2align 4
zps_nested_own_stack:
        .cfi_startproc
        CFI_OF_FRAME
        KEEP_TRAPS
zps_pass_own_stack:
        CLOSE_FRAME pass_own_stack
        syscall
        mov     ZPS_OWN_RETURN(%rsp), %rcx
        GO_BACK
        CFI_OF_FRAME
        ODD_RESTORE pass_own_stack
        .cfi_endproc
        .size   zps_nested_own_stack, .-zps_nested_own_stack

/* The same for a call that asks where rsp is (sigaltstack), and for threads that can have no stack: what the way back takes lies on the
 * program's. */
        .globl  zps_pass_small_stack, zps_pass_without_stack
        .hidden zps_pass_small_stack, zps_pass_without_stack
        .type   zps_pass_small_stack, @function
        .p2align 4
zps_pass_small_stack:
        .cfi_startproc
        CFI_OF_FRAME
        CLOSE_FRAME pass_small_stack
        mov     ZPS_OWN_RSP(%rsp), %r11
        mov     ZPS_OWN_PROGRAM_ON(%rsp), %rcx
        mov     %rcx, ZPS_OWN_PROGRAM_ON-ZPS_OWN_HEAD_BYTES(%r11)
        mov     ZPS_OWN_RETURN(%rsp), %rcx
        mov     ZPS_OWN_ON(%rsp), %r11
        mov     ZPS_OWN_RSP(%rsp), %rsp
zps_pass_without_stack:
        .cfi_def_cfa %rsp, 0
        .cfi_register %rip, %rcx
        lea     -ZPS_OWN_HEAD_BYTES(%rsp), %rsp
        .cfi_adjust_cfa_offset ZPS_OWN_HEAD_BYTES
        mov     %r11, ZPS_OWN_ON(%rsp)
        mov     %rcx, ZPS_OWN_RETURN(%rsp)
        .cfi_offset %rip, ZPS_OWN_RETURN-ZPS_OWN_HEAD_BYTES
        lea     ZPS_OWN_HEAD_BYTES(%rsp), %rcx
        mov     %rcx, ZPS_OWN_RSP(%rsp)
        syscall
        mov     ZPS_OWN_RETURN(%rsp), %rcx
        jmp     *ZPS_OWN_ON(%rsp)
        CFI_OF_FRAME
        ODD_RESTORE pass_small_stack
        .cfi_endproc
        .size   zps_pass_small_stack, .-zps_pass_small_stack

/* rt_sigreturn finds its frame by rsp. */
        .globl  zps_sigreturn_own_stack
        .hidden zps_sigreturn_own_stack
        .type   zps_sigreturn_own_stack, @function
zps_sigreturn_own_stack:
        mov     8+ZPS_OWN_RSP(%rbp), %rsp
        syscall
        hlt
        .size   zps_sigreturn_own_stack, .-zps_sigreturn_own_stack

/* Where a call that trapped goes on. */
        .globl  zps_own_stack_trapped_on
        .hidden zps_own_stack_trapped_on
        .type   zps_own_stack_trapped_on, @function
zps_own_stack_trapped_on:
        .cfi_startproc
        .cfi_escape 0x0f, 3, 0x77, ZPS_OWN_RSP, 6
        .cfi_register %rip, %rcx
        mov     ZPS_OWN_RSP(%rsp), %rsp
        .cfi_def_cfa %rsp, 0
        jmp     *%rcx
        .cfi_endproc
        .size   zps_own_stack_trapped_on, .-zps_own_stack_trapped_on

        .section .note.GNU-stack,"",@progbits
