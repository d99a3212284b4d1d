/* System calls as Go has them, in a library that says where its functions are as only Go does: in no unwind table, in no symbol, but in a
 * pclntab.
 * VERSION is the one whose format that has (116: of Go 1.16); PREFIX makes the one exported name unique. No function uses its stack. */
/* SPDX-License-Identifier: BSD-3-Clause */
#define JOIN_AGAIN(a, b) a##b
#define JOIN(a, b) JOIN_AGAIN(a, b)
#define NAME(name) JOIN(PREFIX, name)

        .text
        .p2align 5, 0xcc
text:

/* As Syscall6: the number is in rax. Afterwards rdx is 0, or the error number, and rax -1. */
unnumbered:
        syscall
after_unnumbered:
        cmp     $-4095, %rax
        jbe     1f
        neg     %rax
        mov     %rax, %rdx
        mov     $-1, %rax
        ret
1:      mov     $0, %edx
        ret
        .p2align 5, 0xcc

/* The rest calls number 500, but for the last. */
numbered:
        mov     $500, %eax
        syscall
        ret
        .p2align 5, 0xcc

widely_numbered:
        .byte   0x48, 0xc7, 0xc0                        /* mov $500,%rax in 7 bytes */
        .long   500
        syscall
        cmp     $-4095, %rax
        ret
        .p2align 5, 0xcc

/* The bytes of a system call, but not one. */
constant:
        mov     $0x0000050f, %eax
        ret
        .p2align 5, 0xcc

not_compared:
        mov     %rax, %rax
        syscall
        test    %rax, %rax
        ret
        .p2align 5, 0xcc

/* As rawVforkSyscall, with a child that ends: the return address is not on the stack meanwhile. */
vfork_and_exit:
        pop     %r12
        syscall
        push    %r12
        test    %rax, %rax
        jnz     1f
        mov     $7, %edi
        mov     $231, %eax
        syscall
1:      ret
        .p2align 5, 0xcc
text_end:

#if VERSION < 118
#define ENTRY(function) .quad function, 0
#else
#define ENTRY(function) .long function - text, 0
#endif

        .section .data.rel.ro.gopclntab, "aw"
        .p2align 5
header:
#if VERSION == 12
        .long   0xfffffffb
#elif VERSION == 116
        .long   0xfffffffa
#elif VERSION == 118
        .long   0xfffffff0
#else
        .long   0xfffffff1
#endif
        .byte   0, 0, 1, 8
        .quad   6                                       /* functions */
#if VERSION >= 116
        .quad   0                                       /* files */
#if VERSION == 126
        .quad   0
#elif VERSION >= 118
        .quad   text
#endif
        .quad   0, 0, 0, 0                              /* offsets of names, units, files, program counters */
        .quad   table - header
        .quad   -1
#endif
table:
        ENTRY(unnumbered)
        ENTRY(numbered)
        ENTRY(widely_numbered)
        ENTRY(constant)
        ENTRY(not_compared)
        ENTRY(vfork_and_exit)
        ENTRY(text_end)

/* The linker of this library puts the table into .data.rel.ro and leaves this. */
        .section .note.go.buildid, "a", @note
        .p2align 2
        .long   4, 4, 4
        .asciz  "Go\0"
        .asciz  "abc"

/* What the runtime knows of the module. */
        .data
        .p2align 3
        .quad   header
        .skip   15 * 8
        .quad   table, 7, 7, 0
        .quad   text, text_end                          /* the least and the last program counter */
        .quad   text, text_end

        .section .data.rel.ro, "aw"
        .p2align 3
        .globl  NAME(functions)
        .type   NAME(functions), @object
        .size   NAME(functions), 64
NAME(functions):
        .quad   unnumbered, numbered, widely_numbered, constant, not_compared, vfork_and_exit, after_unnumbered, text_end

        .section .note.GNU-stack, "", @progbits
