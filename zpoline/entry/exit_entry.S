/* exit from a near jump: the one call that programs make without a stack.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A thread that has unmapped its stack, or has told another that it may be used again, ends with mov $60,%eax; syscall. So neither
 * its stub (stubs.cc: a jump instead of a call) nor this entry touches memory at rsp. The engine's part runs on a small
 * stack of the process; a lock hands it from one ending thread to the next. All signals are blocked from the start: a
 * handler would find no stack either.
 *
 * Registers at entry: edi the status; all others are free, since nothing comes back. */
#include "zpoline/layout.h"

#define ZPS_EXIT_STACK 65536

        .text
        .globl  zps_exit_near
        .hidden zps_exit_near
        .type   zps_exit_near, @function
        .p2align 6
zps_exit_near:
        .cfi_startproc
        .cfi_undefined %rip
        mov     %edi, %ebx
        mov     $2, %edi                        /* SIG_SETMASK */
        lea     all_signals(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        mov     $14, %eax                       /* rt_sigprocmask */
        syscall
        lea     zps_exit_lock(%rip), %rbp
1:      mov     $1, %eax
        xchg    %eax, (%rbp)
        test    %eax, %eax
        jz      2f
        mov     $24, %eax                       /* sched_yield */
        syscall
        jmp     1b
2:      lea     exit_stack+ZPS_EXIT_STACK(%rip), %rsp
        cld
        mov     %ebx, %edi
        call    zps_before_exit
        movl    $0, (%rbp)
        mov     %ebx, %edi
        mov     $60, %eax                       /* exit */
        syscall
        hlt
        .cfi_endproc
        .size   zps_exit_near, .-zps_exit_near

        .section .rodata
        .p2align 3
all_signals:
        .quad   -1

        .bss
        .globl  zps_exit_lock
        .hidden zps_exit_lock
zps_exit_lock:
        .skip   4
        .p2align 6
exit_stack:
        .skip   ZPS_EXIT_STACK

        .section .note.GNU-stack,"",@progbits
