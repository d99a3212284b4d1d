/* System calls in every surrounding that decides about their form; jumps_test.cc says which form each one gets. Each function is
 * long f(long argument) around one call, with number 500 (the probe hook adds 1 to the argument) where nothing else is said. */
/* SPDX-License-Identifier: BSD-3-Clause */
        .text

.macro FUNCTION name
        .globl  \name
        .type   \name, @function
\name:
        .cfi_startproc
.endm
.macro END name
        .cfi_endproc
        .size   \name, .-\name
.endm
/* A site whose mov begins at `offset` in a block of `alignment`. */
.macro AT alignment_log2, offset, name
        .p2align \alignment_log2
        .if \offset
        .skip   \offset, 0x90
        .endif
FUNCTION \name
        .globl  \name\()_mov
\name\()_mov:
        mov     $500, %eax
        syscall
        ret
END \name
.endm

FUNCTION plain
        .globl  plain_mov
plain_mov:
        mov     $500, %eax
        syscall
        ret
END plain

FUNCTION zeroed                         /* read() of no such descriptor */
        xor     %eax, %eax
zeroed_site:
        syscall
        ret
END zeroed

/* The same as libc has it: 1 if the result is an error number (so say the compare's flags), else 2. */
FUNCTION compared
        .globl  compared_mov
compared_mov:
        xor     %eax, %eax
        syscall
        cmp     $-4096, %rax
        ja      1f
        mov     $2, %eax
        ret
1:      mov     $1, %eax
        ret
END compared

/* Somebody else compares with the same instruction. */
FUNCTION compared_by_two
        test    %rdi, %rdi
        mov     $-9, %rax
        js      1f
        .globl  compared_by_two_mov
compared_by_two_mov:
        xor     %eax, %eax
        syscall
1:      cmp     $-4096, %rax
        ja      2f
        mov     $2, %eax
        ret
2:      mov     $1, %eax
        ret
END compared_by_two

FUNCTION unclaimed                      /* getppid */
        .globl  unclaimed_mov
unclaimed_mov:
        mov     $110, %eax
        syscall
        ret
END unclaimed

FUNCTION branch_to_syscall
        mov     $500, %eax
        test    %rdi, %rdi
        jz      1f
        .globl  branch_to_syscall_mov
branch_to_syscall_mov:
        mov     $500, %eax
1:      syscall
        ret
END branch_to_syscall

FUNCTION branch_inside
        test    %rdi, %rdi
        js      branch_inside_mov+1
        .globl  branch_inside_mov
branch_inside_mov:
        mov     $500, %eax
        syscall
        ret
END branch_inside

FUNCTION label_inside
        .globl  label_inside_mov
label_inside_mov:
        .byte   0xb8
        .globl  label_inside_number
label_inside_number:
        .long   500
        syscall
        ret
END label_inside

FUNCTION label_on_syscall
        .globl  label_on_syscall_mov
label_on_syscall_mov:
        mov     $500, %eax
        .globl  label_on_syscall_here
label_on_syscall_here:
        syscall
        ret
END label_on_syscall

/* The second case of the table lands on the system call, with a number of its own. */
FUNCTION table_inside
        mov     $1, %ecx
        lea     table(%rip), %rdx
        mov     $502, %eax
        test    %rdi, %rdi
        cmovns  %rcx, %rcx
        jns     1f
        xor     %ecx, %ecx
1:      movslq  (%rdx,%rcx,4), %rcx
        add     %rdx, %rcx
        jmp     *%rcx
        .globl  table_inside_mov
table_inside_mov:
3:
        mov     $500, %eax
2:      syscall
        ret
END table_inside
        .section .rodata
        .p2align 2
table:  .long   3b-table, 2b-table
        .text

/* Copies 128 bytes from argument 2 to below rsp, makes the call, and copies them back. */
.macro MOVE from, to
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        mov     8*\n+\from, %rcx
        mov     %rcx, 8*\n+\to
        .endr
.endm
FUNCTION red_zone
        MOVE    0(%rsi), -128(%rsp)
        .globl  red_zone_mov
red_zone_mov:
        mov     $500, %eax
        syscall
        MOVE    -128(%rsp), 0(%rsi)
        ret
END red_zone

FUNCTION red_zone_unknown
        MOVE    0(%rsi), -128(%rsp)
        mov     %rdx, %rax
red_zone_unknown_site:
        syscall
        MOVE    -128(%rsp), 0(%rsi)
        ret
END red_zone_unknown

FUNCTION sse
        .globl  sse_mov
sse_mov:
        mov     $501, %eax
        syscall
        ret
END sse

FUNCTION full
        .globl  full_mov
full_mov:
        mov     $502, %eax
        syscall
        ret
END full

/* Calls that the hook lets pass (getpid), and one that it does not see (munmap, the engine's). */
FUNCTION passed
        .globl  passed_mov
passed_mov:
        mov     $39, %eax
        syscall
        ret
END passed
FUNCTION engines
        .globl  engines_mov
engines_mov:
        mov     $11, %eax
        syscall
        ret
END engines

/* long fork_with_red_zone(long, long* pattern): 1 from both sides if the 128 bytes below rsp are there, else 0; the child exits with it. */
FUNCTION fork_with_red_zone
        MOVE    0(%rsi), -128(%rsp)
        .globl  fork_with_red_zone_mov
fork_with_red_zone_mov:
        mov     $57, %eax
        syscall
        mov     %rax, %r9
        xor     %r8d, %r8d
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        mov     8*\n-128(%rsp), %rcx
        cmp     8*\n(%rsi), %rcx
        setne   %cl
        or      %cl, %r8b
        .endr
        test    %r9, %r9
        jnz     1f
        mov     %r8d, %edi
        mov     $231, %eax
        syscall
1:      mov     %r9, %rax
        test    %r8, %r8
        jz      2f
        mov     $-1, %rax
2:      ret
END fork_with_red_zone

/* vfork whose child exits with the argument. */
FUNCTION vfork_and_exit
        .globl  vfork_and_exit_mov
vfork_and_exit_mov:
        mov     $58, %eax
        syscall
        test    %rax, %rax
        jnz     1f
        mov     $231, %eax
        syscall
1:      ret
END vfork_and_exit

/* long clone_on(long flags, void* stack): the child, on its new stack, exits with 14. */
FUNCTION clone_on
        .globl  clone_on_mov
clone_on_mov:
        mov     $56, %eax
        syscall
        test    %rax, %rax
        jnz     1f
        mov     $14, %edi
        mov     $60, %eax
        syscall
1:      ret
END clone_on

/* long sleeps(int fd, void* buffer, long bytes): read() through engine->sleep(). */
FUNCTION sleeps
        .globl  sleeps_mov
sleeps_mov:
        mov     $503, %eax
        syscall
        ret
END sleeps

AT 4, 0, at_0_of_16
AT 4, 3, at_3_of_16
AT 4, 4, at_4_of_16
AT 4, 11, at_11_of_16
AT 4, 12, at_12_of_16
AT 4, 15, at_15_of_16
AT 6, 58, at_58_of_64
AT 6, 63, at_63_of_64
AT 12, 4089, at_end_of_page
AT 12, 4094, across_pages
        .section .note.GNU-stack,"",@progbits
