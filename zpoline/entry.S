/* From a rewritten system call into the hook and back: the entry assembly.
 *
 * The problem. Where the program had `syscall` it now has `call *%rax`, which lands in page 0 at the address that is the call's
 * number, slides down to an exit and from there through the dispatch table to one of the entries below. The program still believes in the kernel's contract: only rax, rcx and r11 change, rcx is
 * the address of the next instruction, r11 the flags; every other register, all vector state, the flags and the 128 bytes below
 * its stack pointer stay as they are.
 *
 * What the CPU makes expensive, and the choice made here:
 *   - popfq is microcoded (20 cycles and more), so flags are put back with `sahf` and one compare that recreates OF;
 *     only a program that runs with DF, AC, NT or an IOPL set pays for popfq.
 *   - xsavec + xrstor cost more than a system call. A hook says per number what it may touch: nothing (general), xmm0-15
 *     in legacy encoding (sse), or everything (full).
 *   - A number that nobody claimed goes straight to the kernel. The way there uses no stack and no flag: the test is done with
 *     lea and jrcxz, so that the kernel sees, and saves, the program's own state.
 *
 * Registers at every entry:
 *     rax  call number, 0..511 (or a number of the landing zone, which the dispatch table sends to the kernel)
 *     rdi rsi rdx r10 r8 r9  the arguments
 *     rcx r11  free: the kernel destroys them
 *     (rsp)  return address, pushed by the call; program's rsp = rsp + 8
 *
 * Registers when the program goes on:
 *     rax  result;  rcx  return address;  r11  flags;  the rest untouched
 *
 * Is it a system call at all? A call through a NULL pointer lands here too. The return address is looked up in
 * a table of all rewritten sites, indexed by 16 of its bits (three tries with different bits); the entries are
 * negated, so that one addition compares. If it is not found, zps_null_call faults on purpose and the SIGSEGV handler of
 * the engine reports the call as the program's own fault.
 *
 * The frame of a hooked call (all of it below the red zone of the program):
 *
 *     rbp+144  program's rsp; CFA
 *     rbp+136  return address
 *     rbp+8    128 bytes that belong to the program
 *     rbp      program's rbp
 *     rbp-8    flags (r11)
 *     rbp-16   (unused)
 *     rbp-24   rdi,  -32 rsi, -40 rdx, -48 r10, -56 r8, -64 r9
 *     rbp-72   program's rbx while a clone is under way
 *     ...      vector state, aligned (sse: 256 bytes; full: zps_xsave_bytes)
 *     rsp      struct zps_call, 16-byte aligned
 *
 * Signals: `inside` is 1 from before the hook runs until after it; handlers are put off meanwhile (signals.cc). A handler that
 * was put off is run by zps_leave. Before and after, every instruction here may be interrupted and even left by
 * siglongjmp: what it needs is in registers and on its own stack.
 *
 * Unwinding: each place from which C code is called has CFI; the caller's frame is found at every instruction.
 *
 * Known limits: a hooked call needs stack (about 300 bytes and the hook's own, sse 600, full 3 KB); a passed one 8 bytes.
 *
 * Sources: Intel SDM volumes 1 (flags, xsave) and 2; System V ABI for x86-64, 3.2.2; the zpoline paper (USENIX ATC 2023). */
#include "zpoline/layout.h"

        .text

/* Puts flags back from the frame without popfq. Keeps rax; uses rcx. */
.macro RESTORE_FLAGS id
        testl   $0x47400, -8(%rbp)
        jnz     .Lodd_restore_\id
        mov     %rax, %rcx
        movzbl  -8(%rbp), %eax
        shl     $8, %eax
        cmpb    $-118, -7(%rbp)         /* bits 8..15 are 2 or 3, with OF 10 or 11: 10 - -118 overflows, 3 - -118 does not */
        sahf
        mov     %rcx, %rax
.Lrestored_\id:
.endm

/* Opens the frame. After it rsp is rbp-72, not yet aligned; flags are free. */
.macro OPEN_FRAME id
        lea     -128(%rsp), %rsp
        .cfi_adjust_cfa_offset 128
        push    %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        mov     %rsp, %rbp
        .cfi_def_cfa_register %rbp
        pushfq
        lea     -64(%rsp), %rsp
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
93:     movzwl  137(%rbp), %ecx
        mov     (%r11,%rcx,8), %rcx
        add     136(%rbp), %rcx
        jz      94b
        movzwl  138(%rbp), %ecx
        mov     (%r11,%rcx,8), %rcx
        add     136(%rbp), %rcx
        jz      94b
        jmp     zps_not_a_site
.endm

/* The same without a frame and without flags. */
.macro CHECK_SITE_KEEPING_FLAGS
        .irp    shift, 0,1,2
        lea     zps_site_table(%rip), %r11
        movzwl  \shift(%rsp), %ecx
        mov     (%r11,%rcx,8), %rcx
        mov     (%rsp), %r11
        lea     (%rcx,%r11), %rcx
        jrcxz   95f
        .endr
        jmp     zps_null_call
95:
.endm

/* Closes the frame: all registers but rax, rcx, r11 as the program had them, r11 = flags, rsp at the return address. */
.macro CLOSE_FRAME id
        mov     -24(%rbp), %rdi
        mov     -32(%rbp), %rsi
        mov     -40(%rbp), %rdx
        mov     -48(%rbp), %r10
        mov     -56(%rbp), %r8
        mov     -64(%rbp), %r9
        mov     -8(%rbp), %r11
        RESTORE_FLAGS \id
        mov     136(%rbp), %rcx
        mov     %rbp, %rsp
        .cfi_def_cfa_register %rsp
        pop     %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        lea     128(%rsp), %rsp
        .cfi_adjust_cfa_offset -128
.endm

/* Lays the call down at rsp. Uses rcx. */
.macro STORE_CALL
        sub     $ZPS_CALL_BYTES, %rsp
        mov     %rax, ZPS_CALL_NR(%rsp)
        mov     %rdi, ZPS_CALL_ARGS(%rsp)
        mov     %rsi, ZPS_CALL_ARGS+8(%rsp)
        mov     %rdx, ZPS_CALL_ARGS+16(%rsp)
        mov     %r10, ZPS_CALL_ARGS+24(%rsp)
        mov     %r8, ZPS_CALL_ARGS+32(%rsp)
        mov     %r9, ZPS_CALL_ARGS+40(%rsp)
        mov     136(%rbp), %rcx
        mov     %rcx, ZPS_CALL_RETURN(%rsp)
.endm

.macro EACH_XMM operation
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        \operation \n
        .endr
.endm
.macro STORE_XMM n
        movups  %xmm\n, 16*\n(%rsp)
.endm
.macro LOAD_XMM n
        movups  ZPS_CALL_BYTES+16*\n(%rsp), %xmm\n
.endm

.macro SAVE_NOTHING
        and     $-16, %rsp
.endm
.macro RECALL_NOTHING
.endm

.macro SAVE_SSE
        and     $-16, %rsp
        sub     $256, %rsp
        EACH_XMM STORE_XMM
.endm
.macro RECALL_SSE
        EACH_XMM LOAD_XMM
.endm

/* The header's last 48 bytes must be zero for xrstor, and xsavec does not write them. Keeps rax and rdx. */
.macro SAVE_FULL
        mov     zps_xsave_bytes(%rip), %rcx
        sub     %rcx, %rsp
        and     $-64, %rsp
        mov     %rax, %r11
        mov     %rdx, %rcx
        xor     %eax, %eax
        .irp n, 512,520,528,536,544,552,560,568
        mov     %rax, \n(%rsp)
        .endr
        mov     zps_xsave_mask(%rip), %eax
        mov     zps_xsave_mask+4(%rip), %edx
        xsavec  (%rsp)
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

/* One kind of hooked call: what is kept besides general registers, and whom to ask. */
.macro HOOKED name, save, recall, target
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 6
\name:
        .cfi_startproc
        OPEN_FRAME \name
        CHECK_SITE
        mov     zps_thread_state@gottpoff(%rip), %rcx
        cmpl    $0, %fs:ZPS_INSIDE(%rcx)
        jne     zps_nested
        movl    $1, %fs:ZPS_INSIDE(%rcx)
        \save
        STORE_CALL
        mov     %rsp, %rdi
        call    *\target(%rip)
        cmp     $1, %rax                /* overflows for ZPS_PASS only */
        jo      5f
        mov     zps_thread_state@gottpoff(%rip), %rcx
        movl    $0, %fs:ZPS_INSIDE(%rcx)
        cmpl    $0, %fs:ZPS_PENDING(%rcx)
        jne     4f
3:      \recall
        CLOSE_FRAME \name
        ret
        .cfi_def_cfa %rbp, 144
        .cfi_offset %rbp, -144
4:      mov     %rax, ZPS_CALL_NR(%rsp)
        call    zps_leave
        mov     ZPS_CALL_NR(%rsp), %rax
        jmp     3b
5:      call    zps_leave               /* the hook let it pass: the kernel does it, with the numbers as the hook left them */
        mov     ZPS_CALL_NR(%rsp), %rax
        mov     ZPS_CALL_ARGS(%rsp), %rdi
        mov     ZPS_CALL_ARGS+8(%rsp), %rsi
        mov     ZPS_CALL_ARGS+16(%rsp), %rdx
        mov     ZPS_CALL_ARGS+24(%rsp), %r10
        mov     ZPS_CALL_ARGS+32(%rsp), %r8
        mov     ZPS_CALL_ARGS+40(%rsp), %r9
        syscall
        jmp     3b
        ODD_OPEN \name
        ODD_RESTORE \name
        CHECK_SITE_AGAIN
        .cfi_endproc
        .size   \name, .-\name
.endm

/* Numbers that nobody claimed. The kernel leaves the flags in r11 and keeps everything else. */
        .globl  zps_pass
        .hidden zps_pass
        .type   zps_pass, @function
        .p2align 6
zps_pass:
        .cfi_startproc
        CHECK_SITE_KEEPING_FLAGS
zps_pass_checked:
        syscall
        mov     (%rsp), %rcx
        ret
        .cfi_endproc
        .size   zps_pass, .-zps_pass

/* A system call from within the hook's own work, through code that both namespaces share (ld.so): the kernel's. */
        .type   zps_nested, @function
zps_nested:
        .cfi_startproc
        .cfi_def_cfa %rbp, 144
        .cfi_offset %rbp, -144
        CLOSE_FRAME nested
        jmp     zps_pass_checked
        .cfi_def_cfa %rbp, 144
        .cfi_offset %rbp, -144
        ODD_RESTORE nested
        .cfi_endproc
        .size   zps_nested, .-zps_nested

/* A call or jump through a NULL pointer: back to the state in which it arrived, then a fault. */
        .type   zps_not_a_site, @function
zps_not_a_site:
        .cfi_startproc
        .cfi_def_cfa %rbp, 144
        .cfi_offset %rbp, -144
        CLOSE_FRAME not_a_site
        .globl  zps_null_call
        .hidden zps_null_call
zps_null_call:
        hlt
        .cfi_def_cfa %rbp, 144
        .cfi_offset %rbp, -144
        ODD_RESTORE not_a_site
        .cfi_endproc
        .size   zps_not_a_site, .-zps_not_a_site

/* rt_sigreturn finds its frame by rsp, so the pushed return address has to go. */
        .globl  zps_sigreturn
        .hidden zps_sigreturn
        .type   zps_sigreturn, @function
zps_sigreturn:
        CHECK_SITE_KEEPING_FLAGS
        lea     8(%rsp), %rsp
        syscall
        hlt
        .size   zps_sigreturn, .-zps_sigreturn

HOOKED zps_hooked_general, SAVE_NOTHING, RECALL_NOTHING, zps_on_syscall
HOOKED zps_hooked_sse, SAVE_SSE, RECALL_SSE, zps_on_syscall
HOOKED zps_hooked_full, SAVE_FULL, RECALL_FULL, zps_on_syscall
/* Calls in which the engine itself has a part; zps_on_engine_call() asks the hook first if it claimed the number. */
HOOKED zps_engine_general, SAVE_NOTHING, RECALL_NOTHING, zps_on_engine_call_pointer
HOOKED zps_engine_sse, SAVE_SSE, RECALL_SSE, zps_on_engine_call_pointer
HOOKED zps_engine_full, SAVE_FULL, RECALL_FULL, zps_on_engine_call_pointer

/* fork, vfork, clone, clone3. Both sides return here, the child perhaps on a new and empty stack, perhaps (vfork) on the
 * stack that its parent uses again later. So neither finds its return address on the stack: rbx, which the kernel
 * copies to the child, carries a CloneFrame across the call, and the program's rbx is in there. */
        .globl  zps_clone
        .hidden zps_clone
        .type   zps_clone, @function
        .p2align 6
zps_clone:
        .cfi_startproc
        OPEN_FRAME before_clone
        CHECK_SITE
        mov     zps_thread_state@gottpoff(%rip), %rcx
        cmpl    $0, %fs:ZPS_INSIDE(%rcx)
        jne     zps_nested
        SAVE_FULL
        STORE_CALL
        mov     %rsp, %rdi
        call    zps_before_clone
        RECALL_FULL
        CLOSE_FRAME before_clone        /* rax: the frame */
        mov     %rbx, ZPS_CLONE_RBX(%rax)
        mov     %rax, %rbx
        mov     ZPS_CLONE_NR(%rbx), %rax
        lea     8(%rsp), %rsp
        .cfi_adjust_cfa_offset -8
        .cfi_undefined %rip
        syscall
        mov     %rax, %rcx
        jrcxz   1f
        lea     zps_after_clone_parent(%rip), %r11
        jmp     2f
1:      lea     zps_after_clone_child(%rip), %r11
2:      mov     ZPS_CLONE_RETURN(%rbx), %rcx
        lea     -8(%rsp), %rsp
        .cfi_adjust_cfa_offset 8
        mov     %rcx, (%rsp)
        .cfi_offset %rip, -8
        OPEN_FRAME after_clone
        mov     ZPS_CLONE_RBX(%rbx), %rcx
        mov     %rcx, -72(%rbp)
        push    %r11                    /* SAVE_FULL uses r11; 8 bytes below rbp-72 hold the function */
        SAVE_FULL
        STORE_CALL                      /* nr: the result */
        mov     %rbx, %rdi
        mov     %rax, %rsi
        call    *-80(%rbp)
        mov     -72(%rbp), %rbx
        RECALL_FULL
        CLOSE_FRAME after_clone
        ret
        .cfi_def_cfa %rbp, 144
        .cfi_offset %rbp, -144
        .cfi_offset %rip, -8
        ODD_OPEN before_clone
        ODD_RESTORE before_clone
        ODD_OPEN after_clone
        ODD_RESTORE after_clone
        CHECK_SITE_AGAIN
        .cfi_endproc
        .size   zps_clone, .-zps_clone

/* int64_t zps_sleep(nr, a, b, c, d, e, f): a kernel call during which the program's handlers run.
 * Between zps_sleep_begin and zps_sleep_end a handler sends the interrupted code to zps_sleep_interrupted (signals.cc), so none can
 * slip in between the look at `pending` and the kernel entry. */
        .globl  zps_sleep
        .hidden zps_sleep
        .type   zps_sleep, @function
        .p2align 6
zps_sleep:
        .cfi_startproc
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
        mov     zps_thread_state@gottpoff(%rip), %rcx
        .globl  zps_sleep_begin, zps_sleep_end
        .hidden zps_sleep_begin, zps_sleep_end
zps_sleep_begin:
        movl    $0, %fs:ZPS_INSIDE(%rcx)
        cmpl    $0, %fs:ZPS_PENDING(%rcx)
        jne     1f
        syscall
zps_sleep_end:
        mov     zps_thread_state@gottpoff(%rip), %rcx
        movl    $1, %fs:ZPS_INSIDE(%rcx)
        ret
        .globl  zps_sleep_interrupted
        .hidden zps_sleep_interrupted
zps_sleep_interrupted:
1:      sub     $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    zps_leave
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        mov     $-4, %rax               /* -EINTR */
        jmp     zps_sleep_end
        .cfi_endproc
        .size   zps_sleep, .-zps_sleep

/* The way back from the engine's own handlers, byte for byte what debuggers know as a signal trampoline. */
        .globl  zps_restore_rt
        .hidden zps_restore_rt
        .type   zps_restore_rt, @function
        nop
zps_restore_rt:
        mov     $15, %rax
        syscall
        .size   zps_restore_rt, .-zps_restore_rt

        .section .note.GNU-stack,"",@progbits
