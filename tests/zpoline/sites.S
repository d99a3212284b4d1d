/* System calls in every place and form that a rewriter may stumble over: long name(long nr, long a, long b, long c). */
/* SPDX-License-Identifier: BSD-3-Clause */
        .text

.macro FUNCTION name alignment=6
        .p2align \alignment
        .globl  \name
        .type   \name, @function
\name:
        .cfi_startproc
.endm
.macro END name
        ret
        .cfi_endproc
        .size   \name, .-\name
.endm
.macro ARGUMENTS
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
.endm
/* The instruction begins `at` bytes behind the aligned start of the function. */
.macro PLACED name alignment at
FUNCTION \name, \alignment
        ARGUMENTS
        .skip   \at-(.-\name), 0x90
        syscall
END \name
.endm
/* mov $kProbeGeneral, %eax; syscall: the mov begins `at` bytes behind the aligned start. */
.macro PLACED_KNOWN name alignment at
FUNCTION \name, \alignment
        mov     %rsi, %rdi
        .skip   \at-(.-\name), 0x90
        mov     $500, %eax
        syscall
        cmp     $-4096, %rax
END \name
.endm
.macro PREFIXED name prefix:vararg
FUNCTION \name
        ARGUMENTS
        .byte   \prefix, 0x0f, 0x05
END \name
.endm

PREFIXED site_rex_w, 0x48
PREFIXED site_rex, 0x40
PREFIXED site_operand_size, 0x66
PREFIXED site_repeat, 0xf3
PREFIXED site_repeat_not, 0xf2
PREFIXED site_segment, 0x2e
PREFIXED site_many, 0x66, 0xf3, 0x48

/* The jump goes to the second byte of the prefixed form: with rdi = 0 the prefix is executed, else it is not. */
FUNCTION site_two_entries
        ARGUMENTS
        test    %rdi, %rdi
        jnz     1f
        .byte   0x48
1:      syscall
END site_two_entries

PLACED site_odd 6 17
PLACED site_across_eight 6 23
PLACED site_across_line 6 63
PLACED site_at_page_end 12 4094
PLACED site_across_page 12 4095
PLACED_KNOWN site_known 6 8
PLACED_KNOWN site_known_across_eight 6 13
PLACED_KNOWN site_known_across_line 6 60
PLACED_KNOWN site_known_split_in_call 6 58
PLACED_KNOWN site_known_across_page 12 4093
PLACED_KNOWN site_known_split_in_page 12 4090

/* Two calls without a byte between them; the second has the number that the first gave, plus what r8 says. */
FUNCTION site_twice
        ARGUMENTS
        syscall
        syscall
END site_twice

/* A branch into the place between the mov and the call: the number is not the mov's then. */
FUNCTION site_entered_late
        ARGUMENTS
        test    %rdi, %rdi
        jnz     1f
        mov     $500, %eax
1:      syscall
END site_entered_late

/* A loop back to the mov itself, and one to the instruction behind the call. */
FUNCTION site_in_a_loop
        mov     %rsi, %rdi
        mov     $3, %r8d
1:      mov     $500, %eax
        syscall
2:      mov     %rax, %rdi
        dec     %r8d
        jnz     1b
END site_in_a_loop

/* With the stack pointer lowered by rsi bytes around the call. */
FUNCTION site_unaligned_stack
        push    %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        mov     %rsp, %rbp
        .cfi_def_cfa_register %rbp
        sub     %rsi, %rsp
        mov     %rdi, %rax
        mov     %rdx, %rdi
        syscall
        mov     %rbp, %rsp
        pop     %rbp
        .cfi_def_cfa %rsp, 8
END site_unaligned_stack

/* With rsi as the stack pointer; getppid by a visible number, which nobody claims. */
FUNCTION site_any_stack_known
        mov     %rsp, %r8
        mov     %rsi, %rsp
        .cfi_def_cfa %r8, 8
        mov     $110, %eax
        syscall
        mov     %r8, %rsp
        .cfi_def_cfa %rsp, 8
END site_any_stack_known

/* The same with a number that the engine does not see. */
FUNCTION site_any_stack
        mov     %rsp, %r8
        mov     %rsi, %rsp
        .cfi_def_cfa %r8, 8
        mov     %rdi, %rax
        mov     %rdx, %rdi
        syscall
        mov     %r8, %rsp
        .cfi_def_cfa %rsp, 8
END site_any_stack

/* The thread ends with rdi as its stack pointer. */
FUNCTION exit_with_stack
        mov     %rdi, %rsp
        .cfi_undefined %rip
        xor     %edi, %edi
        mov     $60, %eax
        syscall
        hlt
END exit_with_stack

/* ud2, for a handler that edits what comes after it: rax, carry, xmm0. *rdi receives xmm0, rax is the result plus carry. */
FUNCTION edited_by_handler
        xor     %eax, %eax
        pxor    %xmm0, %xmm0
        clc
        ud2
        adc     $0, %rax
        movups  %xmm0, (%rdi)
END edited_by_handler

        .section .note.GNU-stack,"",@progbits
