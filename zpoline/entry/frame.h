/* Assembly macros of the frame in which a hooked call runs: opening it, the vector state, closing it. entry.S explains them. */
/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ZPOLINE_FRAME_H
#define ZPOLINE_FRAME_H

#include "zpoline/layout.h"

/* Puts flags back from r11 without popfq. Keeps rax; uses rcx. */
.macro RESTORE_FLAGS id
        test    $0x47400, %r11d
        jnz     .Lodd_restore_\id
        mov     %rax, %rcx
        mov     %r11d, %eax
        shl     $8, %eax
        cmpb    $-118, -7(%rbp)         /* bits 8..15 are 2 or 3, with OF 10 or 11: 10 - -118 overflows, 3 - -118 does not */
        sahf
        mov     %rcx, %rax
.Lrestored_\id:
.endm

/* Which frame is meant from here on (see entry.S): how the program came, and on whose stack the frame lies. */
.macro ARRIVED_BY way
        .ifc    \way, call
        .set    BY_JUMP, 0
        .else
        .set    BY_JUMP, 1
        .endif
        .ifc    \way, own_stack
        .set    ON_OWN_STACK, 1
        .else
        .set    ON_OWN_STACK, 0
        .endif
        .if BY_JUMP
        .set    RETURN, 16              /* from rbp */
        .set    FRAME, 152              /* from rbp to the program's rsp */
        .else
        .set    RETURN, 136
        .set    FRAME, 144
        .endif
.endm

/* Out of line, for threads whose words a child shares (guests, see clone.cc): goes on if this is the owner, else to the kernel. */
.macro LET_OWNER_IN id
.Lshared_\id:
        lea     -80(%rsp), %rsp         /* below what OPEN_FRAME laid down */
        mov     %rax, (%rsp)
        mov     $186, %eax              /* gettid */
        syscall
        mov     zps_thread_state@gottpoff(%rip), %rcx
        cmp     %eax, %fs:ZPS_OWNER(%rcx)
        mov     (%rsp), %rax
        lea     80(%rsp), %rsp
        je      .Lowner_\id
        GO_NESTED jmp
.endm

/* The call is none of the hook's: jumps to where the frame is closed and the kernel asked. */
.macro GO_NESTED jump
        .if ON_OWN_STACK
        \jump  zps_nested_own_stack
        .elseif BY_JUMP
        \jump  zps_nested_near
        .else
        \jump  zps_nested
        .endif
.endm

/* A guest (clone.cc) may have dispositions of its own, but runs the code that the engine has written traps into: those signals stay the
 * engine's, and a call that does nothing and returns 0 takes the place of rt_sigaction. */
.macro KEEP_TRAPS
        cmp     $13, %eax               /* rt_sigaction */
        jne     9f
        test    %rsi, %rsi
        jz      9f
        cmp     $11, %edi               /* SIGSEGV */
        je      8f
        cmp     $7, %edi                /* SIGBUS */
        je      8f
        cmp     $31, %edi               /* SIGSYS */
        jne     9f
8:      mov     $24, %eax               /* sched_yield */
9:
.endm

/* What unwinders know at an entry, and where the frame is open. */
.macro CFI_AT_ENTRY
        .if BY_JUMP
        .cfi_def_cfa %rsp, 144
        .cfi_register %rip, %rcx
        .endif
.endm
.macro CFI_OF_FRAME
        .if ON_OWN_STACK
        .cfi_escape 0x0f, 3, 0x76, 8+ZPS_OWN_RSP, 6     /* CFA: the word at rbp+24 */
        .cfi_escape 0x10, 6, 2, 0x76, 0                 /* rbp: at rbp; rip: at rbp+16 */
        .cfi_escape 0x10, 16, 2, 0x76, 8+ZPS_OWN_RETURN
        .else
        .cfi_def_cfa %rbp, FRAME
        .cfi_offset %rbp, -FRAME
        .cfi_offset %rip, RETURN-FRAME
        .endif
.endm

/* Opens the frame. After it rsp is rbp-8: what lies in [rbp-72, rbp-8) is safe from signal handlers, as a red zone; flags are free. */
.macro OPEN_FRAME id
        .if !BY_JUMP
        lea     -128(%rsp), %rsp
        .cfi_adjust_cfa_offset 128
        .endif
        push    %rbp
        .if ON_OWN_STACK
        .cfi_escape 0x0f, 3, 0x77, 8+ZPS_OWN_RSP, 6
        .cfi_escape 0x10, 6, 2, 0x77, 0
        mov     %rsp, %rbp
        CFI_OF_FRAME
        .else
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        mov     %rsp, %rbp
        .cfi_def_cfa_register %rbp
        .if BY_JUMP
        mov     %rcx, RETURN(%rbp)
        .cfi_offset %rip, RETURN-FRAME
        .endif
        .endif
        pushfq
        mov     %rdi, -24(%rbp)
        mov     %rsi, -32(%rbp)
        mov     %rdx, -40(%rbp)
        mov     %r10, -48(%rbp)
        mov     %r8, -56(%rbp)
        mov     %r9, -64(%rbp)
        testl   $0x47400, -8(%rbp)      /* DF or AC: the C code counts on both clear (NT, IOPL: see RESTORE_FLAGS) */
        jnz     .Lodd_open_\id
.Lopened_\id:
.endm

/* What the two macros above leave out of line, for programs that run with DF or AC set. */
.macro ODD_OPEN id
.Lodd_open_\id:
        pushfq
        andl    $~0x40400, (%rsp)
        popfq
        jmp     .Lopened_\id
.endm
.macro ODD_RESTORE id
.Lodd_restore_\id:
        push    -8(%rbp)
        popfq
        jmp     .Lrestored_\id
.endm

/* Falls through if the return address is that of a rewritten site. Uses rcx and r11. */
.macro CHECK_SITE
        lea     zps_site_table(%rip), %r11
        movzwl  136(%rbp), %ecx
        mov     (%r11,%rcx,8), %rcx
        add     136(%rbp), %rcx
        jnz     93f
94:
.endm
/* Out of line: the other two tries. */
.macro CHECK_SITE_AGAIN
93:
        .macro  TRY factor, offset
        movzwl  138(%rbp), %ecx
        imul    $\factor, %ecx, %ecx
        add     136(%rbp), %ecx
        add     $\offset, %ecx
        movzwl  %cx, %ecx
        mov     (%r11,%rcx,8), %rcx
        add     136(%rbp), %rcx
        jz      94b
        .endm
        TRY     648, 1237
        TRY     1000, 2741
        .purgem TRY
        jmp     zps_not_a_site
.endm

/* The same without a frame and without flags: lea multiplies. */
.macro SPREAD_648
        movzwl  2(%rsp), %r11d
        lea     (%r11,%r11,8), %r11d
        lea     (%r11,%r11,8), %r11d
        lea     1237(%rcx,%r11,8), %ecx
        movzwl  %cx, %ecx
.endm
.macro SPREAD_1000
        movzwl  2(%rsp), %r11d
        lea     (%r11,%r11,4), %r11d
        lea     (%r11,%r11,4), %r11d
        lea     (%r11,%r11,4), %r11d
        lea     2741(%rcx,%r11,8), %ecx
        movzwl  %cx, %ecx
.endm
.macro SPREAD_NOT
.endm
.macro CHECK_SITE_KEEPING_FLAGS
        .irp    spread, SPREAD_NOT,SPREAD_648,SPREAD_1000
        movzwl  (%rsp), %ecx
        \spread
        lea     zps_site_table(%rip), %r11
        mov     (%r11,%rcx,8), %rcx
        mov     (%rsp), %r11
        lea     (%rcx,%r11), %rcx
        jrcxz   95f
        .endr
        jmp     zps_null_call
95:
.endm

/* Closes the frame: all registers but rax, rcx, r11 as the program had them, r11 = flags, rcx = return address, rsp where it was at
 * the entry. */
.macro CLOSE_FRAME id
        mov     -24(%rbp), %rdi
        mov     -32(%rbp), %rsi
        mov     -40(%rbp), %rdx
        mov     -48(%rbp), %r10
        mov     -56(%rbp), %r8
        mov     -64(%rbp), %r9
        mov     -8(%rbp), %r11
        RESTORE_FLAGS \id
        mov     RETURN(%rbp), %rcx
        .if BY_JUMP
        .cfi_register %rip, %rcx
        .endif
        mov     %rbp, %rsp
        .if ON_OWN_STACK
        pop     %rbp
        .cfi_escape 0x0f, 3, 0x77, ZPS_OWN_RSP, 6       /* CFA: the word at rsp+16 */
        .else
        .cfi_def_cfa_register %rsp
        pop     %rbp
        .cfi_adjust_cfa_offset -8
        .endif
        .cfi_restore %rbp
        .if !BY_JUMP
        lea     128(%rsp), %rsp
        .cfi_adjust_cfa_offset -128
        .endif
.endm

/* After CLOSE_FRAME: to the program, or through its stub. */
.macro GO_BACK
        .if ON_OWN_STACK
        jmp     *ZPS_OWN_ON(%rsp)
        .else
        ret
        .endif
.endm

/* Lays the call down at rsp, where there is room for it. Uses rcx. */
.macro STORE_CALL
        mov     %rax, ZPS_CALL_NR(%rsp)
        mov     %rdi, ZPS_CALL_ARGS(%rsp)
        mov     %rsi, ZPS_CALL_ARGS+8(%rsp)
        mov     %rdx, ZPS_CALL_ARGS+16(%rsp)
        mov     %r10, ZPS_CALL_ARGS+24(%rsp)
        mov     %r8, ZPS_CALL_ARGS+32(%rsp)
        mov     %r9, ZPS_CALL_ARGS+40(%rsp)
        mov     RETURN(%rbp), %rcx
        mov     %rcx, ZPS_CALL_RETURN(%rsp)
.endm

.macro EACH_XMM operation
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        \operation \n
        .endr
.endm
.macro STORE_XMM n
        movups  %xmm\n, ZPS_CALL_BYTES+16*\n(%rsp)
.endm
.macro LOAD_XMM n
        movups  ZPS_CALL_BYTES+16*\n(%rsp), %xmm\n
.endm

/* Each of these leaves rsp aligned, with room for the call. */
.macro SAVE_NOTHING
        lea     -72-ZPS_CALL_BYTES(%rbp), %rsp
        and     $-16, %rsp
.endm
.macro RECALL_NOTHING
.endm

.macro SAVE_SSE
        lea     -72-256-ZPS_CALL_BYTES(%rbp), %rsp
        and     $-16, %rsp
        EACH_XMM STORE_XMM
.endm
.macro RECALL_SSE
        EACH_XMM LOAD_XMM
.endm

/* The header's last 48 bytes must be zero for xrstor, and xsavec does not write them. Nor does xsave, which stands in for it where there is
   none (processors before 2015, many virtual ones), and reads the first 8. Keeps rax and rdx. */
.macro SAVE_FULL below=-72
        lea     \below(%rbp), %rsp
        sub     zps_xsave_bytes(%rip), %rsp
        and     $-64, %rsp
        mov     %rax, %r11
        mov     %rdx, %rcx
        xor     %eax, %eax
        .irp n, 512,520,528,536,544,552,560,568
        mov     %rax, \n(%rsp)
        .endr
        mov     zps_xsave_mask(%rip), %eax
        mov     zps_xsave_mask+4(%rip), %edx
        cmpb    $0, zps_has_xsavec(%rip)
        je      .Lstandard\@
        xsavec  (%rsp)
        jmp     .Lsaved\@
.Lstandard\@:
        xsave   (%rsp)
.Lsaved\@:
        sub     $ZPS_CALL_BYTES, %rsp
        mov     %r11, %rax
        mov     %rcx, %rdx
.endm
.macro RECALL_FULL
        mov     %rax, %r11
        mov     zps_xsave_mask(%rip), %eax
        mov     zps_xsave_mask+4(%rip), %edx
        xrstor  ZPS_CALL_BYTES(%rsp)
        mov     %r11, %rax
.endm

#endif
