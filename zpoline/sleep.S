/* The kernel call during which the program's handlers run, and the engine's own way out of a handler. */
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
        movl    $0, %fs:ZPS_INSIDE(%rcx)
        cmpl    $0, %fs:ZPS_PENDING(%rcx)
        jne     1f
        syscall
zps_sleep_end:
        mov     zps_thread_state@gottpoff(%rip), %rcx
        movl    $1, %fs:ZPS_INSIDE(%rcx)
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

/* The way back from the engine's own handlers, byte for byte what debuggers know as a signal trampoline. */
        .globl  zps_restore_rt
        .hidden zps_restore_rt
        .type   zps_restore_rt, @function
        nop
zps_restore_rt:
        mov     $15, %rax
        syscall
        .size   zps_restore_rt, .-zps_restore_rt

        .section .note.GNU-stack,"",@progbits
