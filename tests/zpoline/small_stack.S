/* void call_on(long stack_end, const void* function, SmallCall* call): calls the function with rsp at stack_end-8 when it begins and
 * registers as *call says, and puts into *call how they are afterwards. */
/* SPDX-License-Identifier: BSD-3-Clause */
        .text
        .globl  call_on
        .type   call_on, @function
call_on:
        .cfi_startproc
        .irp    kept, rbx, rbp, r12, r13, r14, r15
        push    %\kept
        .endr
        mov     %rdx, %rbx
        mov     %rsp, %rbp
        mov     %rdi, %rsp
        mov     %rsi, %r13
        mov     $0x1414, %r14
        mov     $0x1515, %r15
        mov     (%rbx), %rax
        mov     8(%rbx), %rdi
        mov     16(%rbx), %rsi
        mov     24(%rbx), %rdx
        mov     32(%rbx), %r10
        mov     40(%rbx), %r8
        mov     48(%rbx), %r9
        call    *%r13
        mov     %rbp, %rsp
        mov     %rax, (%rbx)
        mov     %rdi, 8(%rbx)
        mov     %rsi, 16(%rbx)
        mov     %rdx, 24(%rbx)
        mov     %r10, 32(%rbx)
        mov     %r8, 40(%rbx)
        mov     %r9, 48(%rbx)
        mov     %rcx, 56(%rbx)
        mov     %r14, 64(%rbx)
        mov     %r15, 72(%rbx)
        .irp    kept, r15, r14, r13, r12, rbp, rbx
        pop     %\kept
        .endr
        ret
        .cfi_endproc
        .size   call_on, .-call_on

        .section .note.GNU-stack, "", @progbits
