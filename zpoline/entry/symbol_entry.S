/* Functions that stand in for libc's in mode symbols: those whose arguments are the system call's, or nearly.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each puts its number into eax and its arguments where the kernel wants them, and enters the hook as a near jump does (entry.S); numbers without an entry
 * go to the kernel. Then a result in -4095..-1 becomes -1 and errno. symbols.cc finds names and functions in the table that they form. */
        .text

/* long zps_symbol_call(long nr, long a, ... f): like syscall(2), but an error is a negative errno. */
        .globl  zps_symbol_call
        .hidden zps_symbol_call
        .type   zps_symbol_call, @function
        .p2align 4
zps_symbol_call:
        .cfi_startproc
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
/* rax, rdi, rsi, rdx, r10, r8, r9: as at a system call. Changes what the C ABI lets it change. */
.Lcall:
        mov     (%rsp), %rcx
        cmp     $512, %rax
        jae     1f
        lea     zps_symbol_entries(%rip), %r11
        mov     (%r11,%rax,8), %r11
        test    %r11, %r11
        jz      1f
        lea     -136(%rsp), %rsp
        .cfi_adjust_cfa_offset 136
        call    *%r11
        lea     136(%rsp), %rsp
        .cfi_adjust_cfa_offset -136
        ret
1:      syscall
        ret
        .cfi_endproc
        .size   zps_symbol_call, .-zps_symbol_call

        .type   zps_symbol_libc, @function
        .p2align 4
zps_symbol_libc:
        .cfi_startproc
        call    .Lcall
        cmp     $-4095, %rax
        jae     1f
        ret
1:      neg     %eax
        push    %rax
        .cfi_adjust_cfa_offset 8
        call    *__errno_location@GOTPCREL(%rip)
        pop     %rcx
        .cfi_adjust_cfa_offset -8
        mov     %ecx, (%rax)
        mov     $-1, %rax
        ret
        .cfi_endproc
        .size   zps_symbol_libc, .-zps_symbol_libc

/* How arguments get from a function's registers into a system call's. */
.macro AS_THEY_ARE
.endm
.macro FOUR
        mov     %rcx, %r10
.endm
.macro WITHOUT_ADDRESS                  /* recv is recvfrom without the last two, send is sendto */
        mov     %rcx, %r10
        xor     %r8d, %r8d
        xor     %r9d, %r9d
.endm
.macro CHECKED_WITHOUT_ADDRESS          /* __recv_chk: the buffer's size comes before the flags */
        mov     %r8, %r10
        xor     %r8d, %r8d
        xor     %r9d, %r9d
.endm
.macro CHECKED_WITH_ADDRESS
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
.endm
.macro MASK_SECOND                      /* the kernel wants a mask's size behind it */
        mov     $8, %esi
.endm
.macro MASK_THIRD
        mov     $8, %r10d
.endm
.macro MASK_FIFTH
        mov     %rcx, %r10
        mov     $8, %r9d
.endm
.macro OFFSET_IN_HALVES                 /* preadv2: the offset's upper half, and then the flags */
        mov     %rcx, %r10
        mov     %r8, %r9
        xor     %r8d, %r8d
.endm
.macro NUMBER_FIRST                     /* syscall() */
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
.endm

.macro ROW name, nr
        .section .rodata.symbol_names, "a"
.Lname_\name:
        .asciz  "\name"
        .section .data.rel.ro.symbols, "aw"
        .quad   .Lname_\name, .Lfunction_\name, \nr
        .text
.endm

/* A libc function `name` that is system call `nr`. */
.macro SYMBOL name, nr, arguments=AS_THEY_ARE
        .p2align 4
.Lfunction_\name:
        .cfi_startproc
        \arguments
        mov     $\nr, %eax
        jmp     zps_symbol_libc
        .cfi_endproc
        ROW     \name, \nr
.endm

        .section .data.rel.ro.symbols, "aw"
        .globl  zps_symbols
        .hidden zps_symbols
        .p2align 3
zps_symbols:
        .text

SYMBOL read, 0
SYMBOL __read_chk, 0
SYMBOL write, 1
SYMBOL close, 3
SYMBOL poll, 7
SYMBOL __poll_chk, 7
SYMBOL sigprocmask, 14, MASK_THIRD
SYMBOL ioctl, 16
SYMBOL readv, 19
SYMBOL writev, 20
SYMBOL select, 23, FOUR
SYMBOL dup, 32
SYMBOL dup2, 33
SYMBOL sendfile, 40, FOUR
SYMBOL sendfile64, 40, FOUR
SYMBOL socket, 41
SYMBOL connect, 42
SYMBOL accept, 43
SYMBOL sendto, 44, FOUR
SYMBOL send, 44, WITHOUT_ADDRESS
SYMBOL recvfrom, 45, FOUR
SYMBOL __recvfrom_chk, 45, CHECKED_WITH_ADDRESS
SYMBOL recv, 45, WITHOUT_ADDRESS
SYMBOL __recv_chk, 45, CHECKED_WITHOUT_ADDRESS
SYMBOL sendmsg, 46
SYMBOL recvmsg, 47
SYMBOL shutdown, 48
SYMBOL bind, 49
SYMBOL listen, 50
SYMBOL getsockname, 51
SYMBOL getpeername, 52
SYMBOL setsockopt, 54, FOUR
SYMBOL getsockopt, 55, FOUR
SYMBOL execve, 59
SYMBOL fcntl, 72
SYMBOL fcntl64, 72
SYMBOL sigsuspend, 130, MASK_SECOND
SYMBOL epoll_create, 213
SYMBOL _exit, 231
SYMBOL _Exit, 231
SYMBOL epoll_wait, 232, FOUR
SYMBOL epoll_ctl, 233, FOUR
SYMBOL splice, 275, FOUR
SYMBOL tee, 276, FOUR
SYMBOL vmsplice, 278, FOUR
SYMBOL epoll_pwait, 281, MASK_FIFTH
SYMBOL accept4, 288, FOUR
SYMBOL epoll_create1, 291
SYMBOL dup3, 292
SYMBOL recvmmsg, 299, FOUR
SYMBOL sendmmsg, 307, FOUR
SYMBOL preadv2, 327, OFFSET_IN_HALVES
SYMBOL preadv64v2, 327, OFFSET_IN_HALVES
SYMBOL pwritev2, 328, OFFSET_IN_HALVES
SYMBOL pwritev64v2, 328, OFFSET_IN_HALVES
SYMBOL close_range, 436
SYMBOL epoll_pwait2, 441, MASK_FIFTH

        .p2align 4
.Lfunction_syscall:
        .cfi_startproc
        NUMBER_FIRST
        jmp     zps_symbol_libc
        .cfi_endproc
        ROW     syscall, -1

        .section .data.rel.ro.symbols, "aw"
        .globl  zps_symbols_end
        .hidden zps_symbols_end
zps_symbols_end:
        .section .note.GNU-stack,"",@progbits
