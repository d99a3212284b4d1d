/* A program without libc: writes a line and ends. Linked dynamically (with ld.so, for nobody) and statically. */
/* SPDX-License-Identifier: BSD-3-Clause */
        .globl  _start
        .text
_start:
        mov     $1, %eax
        mov     $1, %edi
        lea     line(%rip), %rsi
        mov     $10, %edx
        syscall
        mov     $231, %eax
        xor     %edi, %edi
        syscall
line:
        .ascii  "bare code\n"
        .section .note.GNU-stack,"",@progbits
