/* void snapshot_call(const State* in, State* out, int width): loads every register from `in`, makes the system call, stores
 * every register into `out`. width: 0 xmm, 1 ymm, 2 zmm and mask registers. Offsets are those of State in snapshot.h.
 * snapshot_call_NUMBER: the same with that number in a mov before the system call. */
/* SPDX-License-Identifier: BSD-3-Clause */
#define GENERAL 0
#define FLAGS 128
#define AFTER 136
#define MXCSR 144
#define X87 148
#define RED_ZONE 152
#define MASKS 280
#define VECTORS 384

        .bss
        .align 8
out_pointer: .skip 8
old_rsp: .skip 8
temporary: .skip 8

        .text
.macro EACH16 operation
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        \operation \n
        .endr
.endm
.macro EACH32 operation
        EACH16 \operation
        .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        \operation \n
        .endr
.endm
.macro LOAD_X n
        movups VECTORS+64*\n(%rdi), %xmm\n
.endm
.macro LOAD_Y n
        vmovups VECTORS+64*\n(%rdi), %ymm\n
.endm
.macro LOAD_Z n
        vmovups VECTORS+64*\n(%rdi), %zmm\n
.endm
.macro STORE_X n
        movups %xmm\n, VECTORS+64*\n(%rdi)
.endm
.macro STORE_Y n
        vmovups %ymm\n, VECTORS+64*\n(%rdi)
.endm
.macro STORE_Z n
        vmovups %zmm\n, VECTORS+64*\n(%rdi)
.endm
.macro EACH_MASK operation
        .irp n, 0,1,2,3,4,5,6,7
        \operation \n
        .endr
.endm
.macro LOAD_K n
        kmovq MASKS+8*\n(%rdi), %k\n
.endm
.macro STORE_K n
        kmovq %k\n, MASKS+8*\n(%rdi)
.endm

.macro SNAPSHOT name, number
        .globl \name
        .type \name, @function
\name:
        .cfi_startproc
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsi, out_pointer(%rip)
        mov %rdx, temporary(%rip)
        mov %rsp, old_rsp(%rip)
        cmp $1, %edx
        je 1f
        ja 2f
        EACH16 LOAD_X
        jmp 3f
1:      EACH16 LOAD_Y
        jmp 3f
2:      EACH32 LOAD_Z
        EACH_MASK LOAD_K
3:      ldmxcsr MXCSR(%rdi)
        fldcw X87(%rdi)
        push FLAGS(%rdi)
        mov %rsp, %rax          /* the red zone, by a register that is not rsp: the call may have the 8 bytes nearest to it */
        add $-120, %rax
        popfq
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        mov RED_ZONE+8*\n(%rdi), %rbx
        mov %rbx, 8*\n(%rax)
        .endr
        mov GENERAL+0(%rdi), %rax
        mov GENERAL+8(%rdi), %rcx
        mov GENERAL+16(%rdi), %rdx
        mov GENERAL+24(%rdi), %rbx
        mov GENERAL+40(%rdi), %rbp
        mov GENERAL+48(%rdi), %rsi
        mov GENERAL+64(%rdi), %r8
        mov GENERAL+72(%rdi), %r9
        mov GENERAL+80(%rdi), %r10
        mov GENERAL+88(%rdi), %r11
        mov GENERAL+96(%rdi), %r12
        mov GENERAL+104(%rdi), %r13
        mov GENERAL+112(%rdi), %r14
        mov GENERAL+120(%rdi), %r15
        mov GENERAL+56(%rdi), %rdi
        .ifnb \number
        mov $\number, %eax
        .endif
        syscall
80:     mov %rdi, old_rdi(%rip)
        mov out_pointer(%rip), %rdi
        mov %rax, GENERAL+0(%rdi)
        mov %rcx, GENERAL+8(%rdi)
        mov %rdx, GENERAL+16(%rdi)
        mov %rbx, GENERAL+24(%rdi)
        mov %rsp, GENERAL+32(%rdi)
        mov %rbp, GENERAL+40(%rdi)
        mov %rsi, GENERAL+48(%rdi)
        mov %r8, GENERAL+64(%rdi)
        mov %r9, GENERAL+72(%rdi)
        mov %r10, GENERAL+80(%rdi)
        mov %r11, GENERAL+88(%rdi)
        mov %r12, GENERAL+96(%rdi)
        mov %r13, GENERAL+104(%rdi)
        mov %r14, GENERAL+112(%rdi)
        mov %r15, GENERAL+120(%rdi)
        mov old_rdi(%rip), %rax
        mov %rax, GENERAL+56(%rdi)
        lea 80b(%rip), %rax
        mov %rax, AFTER(%rdi)
        mov %rsp, %rax
        lea -128(%rax), %rax
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        mov 8*\n(%rax), %rbx
        mov %rbx, RED_ZONE+8*\n(%rdi)
        .endr
        pushfq
        pop FLAGS(%rdi)
        cld
        mov temporary(%rip), %rdx
        stmxcsr MXCSR(%rdi)
        fnstcw X87(%rdi)
        cmp $1, %edx
        je 1f
        ja 2f
        EACH16 STORE_X
        jmp 3f
1:      EACH16 STORE_Y
        vzeroupper
        jmp 3f
2:      EACH32 STORE_Z
        EACH_MASK STORE_K
        vzeroupper
3:      pushfq
        andq $~0x40000, (%rsp)
        popfq
        fninit
        movl $0x1f80, temporary(%rip)
        ldmxcsr temporary(%rip)
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret
        .cfi_endproc
        .size \name, .-\name
.endm

SNAPSHOT snapshot_call
.irp number, 0,1,7,11,19,20,39,44,45,46,47,102,232,281,441,500,501,502
SNAPSHOT snapshot_call_\number, \number
.endr
        .bss
        .align 8
old_rdi: .skip 8
        .section .note.GNU-stack,"",@progbits
