/* From a signal handler back to what it interrupted, without rt_sigreturn.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The problem. A program that shuts itself in (seccomp) need not allow rt_sigreturn: it makes none. But calls that trap go on through a
 * handler of the engine (trap.cc), and its end would be a kill.
 *
 * How. What the kernel does in rt_sigreturn is done here: vector state, flags and registers are loaded from the frame. The mask is the
 * caller's business, and nobody's in a box, where the handlers of traps block nothing (signals.cc). The way to rip lies below the red zone
 * of the code that goes on, with rdi: when the stack pointer is exchanged the frame lies below it, and the next signal may write there.
 *
 *     target rsp-128   the program's
 *     target rsp-136   rip
 *     target rsp-144   rdi
 *
 * On the same stack this is the end of the frame's vector state, which has been loaded by then.
 *
 * Known limits: 16 bytes of stack are needed there; an alternate stack that disarms itself (SS_AUTODISARM) stays disarmed; no shadow
 * stacks.
 *
 * Sources: Linux arch/x86/kernel/signal_64.c, restore_sigcontext(); arch/x86/include/uapi/asm/sigcontext.h. */

        .set    R8, 40                          /* uc_mcontext of a ucontext_t: gregs in the order of REG_* */
        .set    R9, 48
        .set    R10, 56
        .set    R11, 64
        .set    R12, 72
        .set    R13, 80
        .set    R14, 88
        .set    R15, 96
        .set    RDI, 104
        .set    RSI, 112
        .set    RBP, 120
        .set    RBX, 128
        .set    RDX, 136
        .set    RAX, 144
        .set    RCX, 152
        .set    RSP, 160
        .set    RIP, 168
        .set    EFL, 176
        .set    VECTORS, 224
        .set    SW_MAGIC, 464                   /* struct _fpx_sw_bytes in an FXSAVE image: there is more than that */
        .set    SW_FEATURES, 472
        .set    MAGIC, 0x46505853

        .text
/* void zps_resume(ucontext_t*): does not return. */
        .globl  zps_resume
        .hidden zps_resume
        .type   zps_resume, @function
        .p2align 4
zps_resume:
        .cfi_startproc
        mov     VECTORS(%rdi), %rcx
        jrcxz   2f
        cmpl    $MAGIC, SW_MAGIC(%rcx)
        jne     1f
        mov     SW_FEATURES(%rcx), %eax
        mov     SW_FEATURES+4(%rcx), %edx
        xrstor64 (%rcx)
        jmp     2f
1:      fxrstor64 (%rcx)
2:      mov     RSP(%rdi), %rcx
        lea     -144(%rcx), %rcx
        mov     RDI(%rdi), %rax
        mov     %rax, (%rcx)
        mov     RIP(%rdi), %rax
        mov     %rax, 8(%rcx)
        mov     %rcx, RSP(%rdi)
        pushq   EFL(%rdi)
        popfq
        mov     R8(%rdi), %r8
        mov     R9(%rdi), %r9
        mov     R10(%rdi), %r10
        mov     R11(%rdi), %r11
        mov     R12(%rdi), %r12
        mov     R13(%rdi), %r13
        mov     R14(%rdi), %r14
        mov     R15(%rdi), %r15
        mov     RSI(%rdi), %rsi
        mov     RBP(%rdi), %rbp
        mov     RBX(%rdi), %rbx
        mov     RDX(%rdi), %rdx
        mov     RAX(%rdi), %rax
        mov     RCX(%rdi), %rcx
        mov     RSP(%rdi), %rsp
        pop     %rdi
        ret     $128
        .cfi_endproc
        .size   zps_resume, .-zps_resume

        .section .note.GNU-stack,"",@progbits
