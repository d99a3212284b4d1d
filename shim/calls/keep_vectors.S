// zps_keep_vectors(call, handler): a call of handler(call) after which xmm0-15 are what they were.
// SPDX-License-Identifier: BSD-3-Clause
//
//   in   rdi call, rsi handler                out  rax its result
//
// The stack below: rbp, 256 bytes of registers, aligned to 16.

    .text
    .globl  zps_keep_vectors
    .hidden zps_keep_vectors
    .type   zps_keep_vectors, @function
    .p2align 4
zps_keep_vectors:
    .cfi_startproc
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    movq    %rsp, %rbp
    .cfi_def_cfa_register %rbp
    leaq    -256(%rsp), %rsp
    andq    $-16, %rsp
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps  %xmm\n, 16*\n(%rsp)
    .endr
    call    *%rsi
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps  16*\n(%rsp), %xmm\n
    .endr
    movq    %rbp, %rsp
    popq    %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size   zps_keep_vectors, . - zps_keep_vectors
    .section .note.GNU-stack, "", @progbits
