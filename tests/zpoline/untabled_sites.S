/* System calls in code that no table and no symbol describes, as people write it: neither unwind information, nor a name that is exported but
 * one for the addresses. PREFIX makes that unique. */
/* SPDX-License-Identifier: BSD-3-Clause */
#define JOIN_AGAIN(a, b) a##b
#define JOIN(a, b) JOIN_AGAIN(a, b)
#define NAME(name) JOIN(PREFIX, name)

        .text
        .p2align 4
/* long numbered(long argument): number 500 (the probe hook adds 1). */
numbered:
        mov     $500, %eax
        syscall
        ret

/* long any(long nr, long a, long b, long c) */
any:
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        syscall
        cmp     $-4095, %rax
        ret

        .section .data.rel.ro, "aw"
        .p2align 3
        .globl  NAME(sites)
        .type   NAME(sites), @object
        .size   NAME(sites), 16
NAME(sites):
        .quad   numbered, any

        .section .note.GNU-stack, "", @progbits
