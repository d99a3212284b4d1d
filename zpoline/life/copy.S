/* The copy behind copy.h: rdi to, rsi from, rdx bytes; 0 or -EFAULT in rax. Uses no stack, so that a fault can return at once. */
/* SPDX-License-Identifier: BSD-3-Clause */
        .text
        .globl  zps_engine_copy, zps_engine_copy_begin, zps_engine_copy_end, zps_engine_copy_fault
        .hidden zps_engine_copy, zps_engine_copy_begin, zps_engine_copy_end, zps_engine_copy_fault
        .type   zps_engine_copy, @function
zps_engine_copy:
        .cfi_startproc
        mov     %rdx, %rcx
zps_engine_copy_begin:
        rep movsb
zps_engine_copy_end:
        xor     %eax, %eax
        ret
zps_engine_copy_fault:
        mov     $-14, %rax              /* -EFAULT */
        ret
        .cfi_endproc
        .size   zps_engine_copy, .-zps_engine_copy
        .section .note.GNU-stack,"",@progbits
