/* fork, vfork, clone and clone3 from a rewritten site: the entry that comes back twice.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Both sides return here, the child perhaps on a new and empty stack, perhaps (vfork) on the stack that its parent uses again
 * later. So neither finds its return address on the stack, nor goes back through a stub: rbx, which the kernel copies to the child,
 * carries a CloneFrame across the call, and the program's rbx and the return address are in there. At the kernel call
 * rsp is the program's own. Registers and frame: entry.S. A call from a small stack does its part before and after on the thread's own
 * stack (own_stack.S): a vfork child's calls use the same place meanwhile, so nothing of the parent's lies there during the kernel call. */
#include "zpoline/entry/frame.h"

        .text

.macro CLONE name, way
        ARRIVED_BY \way
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 6
\name:
        .cfi_startproc
        .if ON_OWN_STACK
        CFI_OF_FRAME
        .else
        CFI_AT_ENTRY
        OPEN_FRAME \name
        .endif
        .if !BY_JUMP
        CHECK_SITE
        .endif
        mov     zps_thread_state@gottpoff(%rip), %rcx
        cmpb    $0, %fs:ZPS_INSIDE(%rcx)
        je      1f
        cmpl    $0, %fs:ZPS_SHARED(%rcx)        /* then it may be the owner who is inside, while a guest comes here */
        GO_NESTED je
1:
        SAVE_FULL
        STORE_CALL
        mov     %rsp, %rdi
        call    zps_before_clone
        .if ON_OWN_STACK
        lea     8(%rbp), %rcx
        mov     %rcx, ZPS_CLONE_STACK(%rax)
        and     ZPS_CLONE_SAME_STACK(%rax), %rcx
        mov     %rcx, ZPS_CLONE_CHILD_STACK(%rax)
        mov     8+ZPS_OWN_ON(%rbp), %rcx
        mov     %rcx, ZPS_CLONE_ON(%rax)
        mov     8+ZPS_OWN_PROGRAM_ON(%rbp), %rcx
        mov     %rcx, ZPS_CLONE_PROGRAM_ON(%rax)
        .endif
        mov     ZPS_CALL_ARGS(%rsp), %rcx       /* as zps_before_clone() left them: these two it may have changed */
        mov     %rcx, -24(%rbp)
        mov     ZPS_CALL_ARGS+32(%rsp), %rcx
        mov     %rcx, -56(%rbp)
        RECALL_FULL
        CLOSE_FRAME \name               /* rax: the CloneFrame */
        .if ON_OWN_STACK
        mov     ZPS_OWN_RSP(%rsp), %rsp
        .elseif BY_JUMP
        lea     144(%rsp), %rsp
        .cfi_adjust_cfa_offset -144
        .else
        lea     8(%rsp), %rsp
        .cfi_adjust_cfa_offset -8
        .endif
        .cfi_register %rip, %rcx
        jmp     zps_clone_both
        CFI_OF_FRAME
        .if !ON_OWN_STACK
        ODD_OPEN \name
        .endif
        ODD_RESTORE \name
        .if !BY_JUMP
        CHECK_SITE_AGAIN
        .endif
        .cfi_endproc
        .size   \name, .-\name
.endm
CLONE zps_clone, call
CLONE zps_clone_near, jump
CLONE zps_clone_own_stack, own_stack

        ARRIVED_BY jump
        .type   zps_clone_both, @function
        .p2align 4
zps_clone_both:
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_undefined %rip
        mov     %rbx, ZPS_CLONE_RBX(%rax)
        mov     %rax, %rbx
        mov     ZPS_CLONE_NR(%rbx), %rax
        syscall
        mov     %rax, %rcx
        jrcxz   1f
        lea     zps_after_clone_parent(%rip), %r11
        mov     ZPS_CLONE_STACK(%rbx), %rcx
        jmp     2f
1:      lea     zps_after_clone_child(%rip), %r11
        mov     ZPS_CLONE_CHILD_STACK(%rbx), %rcx
2:      jrcxz   3f
        xchg    %rcx, %rsp
        mov     %rcx, ZPS_OWN_RSP(%rsp)
        mov     ZPS_CLONE_PROGRAM_ON(%rbx), %rcx
        mov     %rcx, ZPS_OWN_PROGRAM_ON(%rsp)
        mov     ZPS_CLONE_ON(%rbx), %rcx
        jmp     4f
3:      lea     -144(%rsp), %rsp
        .cfi_adjust_cfa_offset 144
        mov     zps_clone_way_on(%rip), %rcx
4:      mov     %rcx, ZPS_OWN_ON(%rsp)
        mov     ZPS_CLONE_RETURN(%rbx), %rcx
        .cfi_register %rip, %rcx
        OPEN_FRAME after_clone
        mov     ZPS_CLONE_RBX(%rbx), %rcx
        mov     %rcx, -72(%rbp)
        mov     ZPS_CLONE_RDI(%rbx), %rcx
        mov     %rcx, -24(%rbp)
        mov     ZPS_CLONE_R8(%rbx), %rcx
        mov     %rcx, -56(%rbp)
        mov     %r11, -80(%rbp)         /* SAVE_FULL uses r11 */
        SAVE_FULL -80
        STORE_CALL                      /* nr: the result */
        mov     %rbx, %rdi
        mov     %rax, %rsi
        call    *-80(%rbp)
        mov     -72(%rbp), %rbx
        RECALL_FULL
        CLOSE_FRAME after_clone
        jmp     *ZPS_OWN_ON(%rsp)
        .globl  zps_clone_on
        .hidden zps_clone_on
zps_clone_on:
        lea     144(%rsp), %rsp
        .cfi_adjust_cfa_offset -144
        jmp     *%rcx
        CFI_OF_FRAME
        ODD_OPEN after_clone
        ODD_RESTORE after_clone
        .cfi_endproc
        .size   zps_clone_both, .-zps_clone_both

        .section .note.GNU-stack,"",@progbits
