/* The kernel call during which the program's handlers run, and the engine's own way out of a handler. */
/* SPDX-License-Identifier: BSD-3-Clause */
#include "zpoline/layout.h"

        .text

/* int64_t zps_sleep(nr, a, b, c, d, e, f): a kernel call during which the program's handlers run.
 * Between zps_sleep_begin and zps_sleep_end a handler sends the interrupted code to zps_sleep_interrupted (signals.cc), so none can
 * slip in between the look at `pending` and the kernel entry. */
        .globl  zps_sleep
        .hidden zps_sleep
        .type   zps_sleep, @function
        .p2align 6
zps_sleep:
        .cfi_startproc
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
        mov     zps_thread_state@gottpoff(%rip), %rcx
        .globl  zps_sleep_begin, zps_sleep_end
        .hidden zps_sleep_begin, zps_sleep_end
zps_sleep_begin:
        movl    $ZPS_WORD_OUTSIDE, %fs:ZPS_INSIDE(%rcx)
        cmpl    $0, %fs:ZPS_PENDING(%rcx)
        jne     1f
        syscall
zps_sleep_end:
        mov     zps_thread_state@gottpoff(%rip), %rcx
        movl    $ZPS_WORD_INSIDE, %fs:ZPS_INSIDE(%rcx)
        ret
        .globl  zps_sleep_interrupted
        .hidden zps_sleep_interrupted
zps_sleep_interrupted:
1:      sub     $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    zps_leave
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        mov     $-4, %rax               /* -EINTR */
        jmp     zps_sleep_end
        .cfi_endproc
        .size   zps_sleep, .-zps_sleep

/* DWARF register `number` lies at rsp+offset, in the ucontext that the kernel put there. */
.macro SAVED_AT number, offset
        .cfi_escape 0x10, \number, 3, 0x77, (\offset & 0x7f) | 0x80, \offset >> 7
.endm

/* The way back from the engine's own handlers, byte for byte what debuggers know as a signal trampoline. */
        .globl  zps_restore_rt
        .hidden zps_restore_rt
        .type   zps_restore_rt, @function
        .cfi_startproc simple
        .cfi_signal_frame
        .cfi_escape 0x0f, 4, 0x77, 0xa0, 1, 6           /* CFA: the word at rsp+160, the interrupted code's rsp */
        .irp    saved, "0,144", "1,136", "2,152", "3,128", "4,112", "5,104", "6,120", "8,40", "9,48", "10,56", "11,64", "12,72", "13,80", \
                "14,88", "15,96", "16,168"
        SAVED_AT \saved
        .endr
        nop                                             /* unwinders look up the byte before the address they return to */
zps_restore_rt:
        mov     $15, %rax
        syscall
        .cfi_endproc
        .size   zps_restore_rt, .-zps_restore_rt

        .section .note.GNU-stack,"",@progbits
