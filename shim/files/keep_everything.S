// zps_keep_everything(argument, function): a call of function(argument) after which the whole vector state is what it was.
// SPDX-License-Identifier: BSD-3-Clause
//
// For what a call of the data path does once in a program's life: making a stack runs any code there is.
//
//   in   rdi argument, rsi function           out  rax its result
//   kept while it runs: r12 argument, then result; r13 function; rbx bytes of the state (CPUID 0xd, in the standard form of xsave)
//
// The stack below: rbp, rbx, r12, r13, the state, aligned to 64. The 64 bytes of its header must be zero for xrstor.

    .text
    .globl  zps_keep_everything
    .hidden zps_keep_everything
    .type   zps_keep_everything, @function
    .p2align 4
zps_keep_everything:
    .cfi_startproc
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    movq    %rsp, %rbp
    .cfi_def_cfa_register %rbp
    pushq   %rbx
    .cfi_offset %rbx, -24
    pushq   %r12
    .cfi_offset %r12, -32
    pushq   %r13
    .cfi_offset %r13, -40
    movq    %rdi, %r12
    movq    %rsi, %r13
    movl    $0xd, %eax
    xorl    %ecx, %ecx
    cpuid
    movl    %ebx, %ebx
    subq    %rbx, %rsp
    andq    $-64, %rsp
    xorl    %eax, %eax
    .irp at, 512,520,528,536,544,552,560,568
    movq    %rax, \at(%rsp)
    .endr
    movl    $-1, %eax
    movl    $-1, %edx
    xsave64 (%rsp)
    movq    %r12, %rdi
    call    *%r13
    movq    %rax, %r12
    movl    $-1, %eax
    movl    $-1, %edx
    xrstor64 (%rsp)
    movq    %r12, %rax
    leaq    -24(%rbp), %rsp
    popq    %r13
    popq    %r12
    popq    %rbx
    popq    %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size   zps_keep_everything, . - zps_keep_everything
    .section .note.GNU-stack, "", @progbits
