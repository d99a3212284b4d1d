/* Calls of static programs, which have a thread pointer of their own: into the entries of entry.S and back.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The problem. What the engine, its hook and their libcs keep for each thread lies at fs. A static program (static_program.h) points fs at
 * memory of its own, and so does each thread that it makes.
 *
 * How. fs is the program's while its code runs, and the engine's while anything else does. gs, which nobody else uses on this platform, is
 * the engine's all the time; a word of the control block there keeps the program's fs. These entries exchange the one for the other and go
 * on in those of entry.S: the frames there, their claims, signals and sleeps are the same. A handler that interrupts them finds fs to be
 * the one or the other, and both words are right at every instruction: signals.cc exchanges likewise.
 *
 * Registers at zps_static: as at zps_trapped (entry.S): rcx is the return address, rsp the program's own, r11 a _near entry. Stubs of static
 * programs come here as well, so that the way back needs none.
 * At zps_own_stack_static: as at zps_own_stack (own_stack.S). Where the program goes on is a word further up there; before it lies the way
 * back of here.
 *
 * Sources: Intel SDM volume 2 (RDFSBASE, WRFSBASE); Documentation/arch/x86/x86_64/fsgs.rst. */
#include "zpoline/entry/frame.h"

        .text

/* fs, the program's, is noted and becomes the engine's; rcx is lost. */
.macro TAKE_THREAD_POINTER
        rdfsbase %rcx
        mov     %rcx, %gs:ZPS_PROGRAM_FS
        mov     %gs:0, %rcx
        wrfsbase %rcx
.endm
.macro GIVE_THREAD_POINTER_BACK
        mov     %gs:ZPS_PROGRAM_FS, %rcx
        wrfsbase %rcx
.endm

/* From page 0, as at the entries of entry.S: the return address is on the stack. */
        .globl  zps_static_call
        .hidden zps_static_call
        .type   zps_static_call, @function
        .p2align 6
zps_static_call:
        .cfi_startproc
        CHECK_SITE_KEEPING_FLAGS
        mov     (%rsp), %rcx
        .cfi_register %rip, %rcx
        lea     8(%rsp), %rsp
        .cfi_adjust_cfa_offset -8
        lea     zps_static_ways(%rip), %r11
        mov     (%r11,%rax,8), %r11
        jmp     zps_static
        .cfi_endproc
        .size   zps_static_call, .-zps_static_call

        .globl  zps_exit_static_call
        .hidden zps_exit_static_call
        .type   zps_exit_static_call, @function
zps_exit_static_call:
        CHECK_SITE_KEEPING_FLAGS
        jmp     zps_exit_static
        .size   zps_exit_static_call, .-zps_exit_static_call

        .globl  zps_static
        .hidden zps_static
        .type   zps_static, @function
        .p2align 6
zps_static:
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_register %rip, %rcx
        lea     -136(%rsp), %rsp
        .cfi_adjust_cfa_offset 136
        mov     %rcx, (%rsp)
        .cfi_offset %rip, -136
        TAKE_THREAD_POINTER
        mov     (%rsp), %rcx
        call    *%r11
        mov     %rcx, (%rsp)
        GIVE_THREAD_POINTER_BACK
        mov     (%rsp), %rcx
        .cfi_register %rip, %rcx
        lea     136(%rsp), %rsp
        .cfi_adjust_cfa_offset -136
        jmp     *%rcx
        .cfi_endproc
        .size   zps_static, .-zps_static

/* From zps_clone_both, in place of zps_clone_on: both sides of a clone. */
        .globl  zps_clone_on_static
        .hidden zps_clone_on_static
        .type   zps_clone_on_static, @function
zps_clone_on_static:
        .cfi_startproc
        .cfi_def_cfa %rsp, 144
        .cfi_register %rip, %rcx
        mov     %rcx, (%rsp)
        .cfi_offset %rip, -144
        GIVE_THREAD_POINTER_BACK
        mov     (%rsp), %rcx
        .cfi_register %rip, %rcx
        lea     144(%rsp), %rsp
        .cfi_adjust_cfa_offset -144
        jmp     *%rcx
        .cfi_endproc
        .size   zps_clone_on_static, .-zps_clone_on_static

/* The end of a thread: nothing comes back, and there may be no stack. */
        .globl  zps_exit_static
        .hidden zps_exit_static
        .type   zps_exit_static, @function
zps_exit_static:
        TAKE_THREAD_POINTER
        jmp     zps_exit_near
        .size   zps_exit_static, .-zps_exit_static

        .globl  zps_own_stack_static, zps_own_stack_static_again, zps_own_stack_static_switched, zps_own_stack_static_missing
        .hidden zps_own_stack_static, zps_own_stack_static_again, zps_own_stack_static_switched, zps_own_stack_static_missing
        .type   zps_own_stack_static, @function
        .p2align 6
zps_own_stack_static:
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_escape 0x10, 16, 2, 0x7b, 0x78             /* rip: at r11-8 */
        TAKE_THREAD_POINTER
zps_own_stack_static_again:
        mov     zps_thread_state@gottpoff(%rip), %rcx
        mov     %fs:ZPS_OWN_STACK(%rcx), %rcx
        jrcxz   zps_own_stack_static_missing
        xchg    %rcx, %rsp
zps_own_stack_static_switched:
        .cfi_def_cfa_register %rcx
        mov     %rcx, ZPS_OWN_RSP(%rsp)
        .cfi_escape 0x0f, 3, 0x77, ZPS_OWN_RSP, 6
        mov     %r11, ZPS_OWN_PROGRAM_ON(%rsp)
        mov     -8(%r11), %rcx
        mov     %rcx, ZPS_OWN_RETURN(%rsp)
        .cfi_escape 0x10, 16, 2, 0x77, ZPS_OWN_RETURN
        lea     zps_own_stack_static_on(%rip), %rcx
        mov     %rcx, ZPS_OWN_ON(%rsp)
        jmp     zps_own_stack_trapped
        .cfi_endproc
        .size   zps_own_stack_static, .-zps_own_stack_static

        .type   zps_own_stack_static_missing, @function
zps_own_stack_static_missing:
        hlt
        .size   zps_own_stack_static_missing, .-zps_own_stack_static_missing

/* As zps_own_stack_trapped: rsp is on the thread's stack, what lies there is written, fs is the program's. */
        .globl  zps_own_stack_static_trapped
        .hidden zps_own_stack_static_trapped
        .type   zps_own_stack_static_trapped, @function
zps_own_stack_static_trapped:
        .cfi_startproc
        .cfi_escape 0x0f, 3, 0x77, ZPS_OWN_RSP, 6
        .cfi_escape 0x10, 16, 2, 0x77, ZPS_OWN_RETURN
        TAKE_THREAD_POINTER
        jmp     zps_own_stack_trapped
        .cfi_endproc
        .size   zps_own_stack_static_trapped, .-zps_own_stack_static_trapped

        .globl  zps_own_stack_static_on
        .hidden zps_own_stack_static_on
        .type   zps_own_stack_static_on, @function
zps_own_stack_static_on:
        .cfi_startproc
        .cfi_escape 0x0f, 3, 0x77, ZPS_OWN_RSP, 6
        .cfi_escape 0x10, 16, 2, 0x77, ZPS_OWN_RETURN
        GIVE_THREAD_POINTER_BACK
        mov     ZPS_OWN_RETURN(%rsp), %rcx
        jmp     *ZPS_OWN_PROGRAM_ON(%rsp)
        .cfi_endproc
        .size   zps_own_stack_static_on, .-zps_own_stack_static_on

        .section .note.GNU-stack,"",@progbits
