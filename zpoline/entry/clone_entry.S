/* fork, vfork, clone and clone3 from a rewritten site: the entry that comes back twice.
 *
 * Both sides return here, the child perhaps on a new and empty stack, perhaps (vfork) on the stack that its parent uses again
 * later. So neither finds its return address on the stack, nor goes back through a stub: rbx, which the kernel copies to the child,
 * carries a CloneFrame across the call, and the program's rbx and the return address are in there. At the kernel call
 * rsp is the program's own. Registers and frame: entry.S. */
#include "zpoline/entry/frame.h"

        .text

.macro CLONE name, way, lowered
        ARRIVED_BY_JUMP \way
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 6
\name:
        .cfi_startproc
        CFI_AT_ENTRY
        OPEN_FRAME \name
        .if !\way
        CHECK_SITE
        .endif
        mov     zps_thread_state@gottpoff(%rip), %rcx
        cmpb    $0, %fs:ZPS_INSIDE(%rcx)
        je      1f
        cmpl    $0, %fs:ZPS_SHARED(%rcx)        /* then it may be the owner who is inside, while a guest comes here */
        .if \way
        je      zps_nested_near
        .else
        je      zps_nested
        .endif
1:
        SAVE_FULL
        STORE_CALL
        mov     %rsp, %rdi
        call    zps_before_clone
        RECALL_FULL
        CLOSE_FRAME \name               /* rax: the CloneFrame */
        lea     \lowered(%rsp), %rsp
        .cfi_adjust_cfa_offset -\lowered
        .cfi_register %rip, %rcx
        jmp     zps_clone_both
        CFI_OF_FRAME
        ODD_OPEN \name
        ODD_RESTORE \name
        .if !\way
        CHECK_SITE_AGAIN
        .endif
        .cfi_endproc
        .size   \name, .-\name
.endm
CLONE zps_clone, 0, 8
CLONE zps_clone_near, 1, 144

        ARRIVED_BY_JUMP 1
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
        jmp     2f
1:      lea     zps_after_clone_child(%rip), %r11
2:      mov     ZPS_CLONE_RETURN(%rbx), %rcx
        .cfi_register %rip, %rcx
        lea     -144(%rsp), %rsp
        .cfi_adjust_cfa_offset 144
        OPEN_FRAME after_clone
        mov     ZPS_CLONE_RBX(%rbx), %rcx
        mov     %rcx, -72(%rbp)
        mov     %r11, -80(%rbp)         /* SAVE_FULL uses r11 */
        SAVE_FULL -80
        STORE_CALL                      /* nr: the result */
        mov     %rbx, %rdi
        mov     %rax, %rsi
        call    *-80(%rbp)
        mov     -72(%rbp), %rbx
        RECALL_FULL
        CLOSE_FRAME after_clone
        lea     144(%rsp), %rsp
        .cfi_adjust_cfa_offset -144
        jmp     *%rcx
        CFI_OF_FRAME
        ODD_OPEN after_clone
        ODD_RESTORE after_clone
        .cfi_endproc
        .size   zps_clone_both, .-zps_clone_both

        .section .note.GNU-stack,"",@progbits
