// The copies behind user_copy.h: no stack use, so that a fault anywhere can return at once.
// SPDX-License-Identifier: BSD-3-Clause
//
// zps_user_copy
//   in   rdi to, rsi from, rdx bytes          out  rax 0 or -EFAULT
//   uses rax rcx rdx rsi rdi r8 xmm0-3
//
// Small sizes load everything before they store; 17..32 and 33..64 use overlapping pieces; larger ones run a loop of 64
// bytes and finish with the overlapping last 64; from 2048 bytes on `rep movsb` wins.

    .text
    .globl  zps_user_copy, zps_user_copy_begin, zps_user_copy_end, zps_user_copy_fault
    .hidden zps_user_copy, zps_user_copy_begin, zps_user_copy_end, zps_user_copy_fault
    .globl  zps_user_load_pair, zps_user_store_pair, zps_user_read_byte, zps_user_touch_byte
    .hidden zps_user_load_pair, zps_user_store_pair, zps_user_read_byte, zps_user_touch_byte
    .type   zps_user_copy, @function
    .p2align 5
zps_user_copy:
    .cfi_startproc
zps_user_copy_begin:
    cmpq    $16, %rdx
    jb      .Lunder_16
    cmpq    $32, %rdx
    ja      .Lover_32
    movups  (%rsi), %xmm0
    movups  -16(%rsi,%rdx), %xmm1
    movups  %xmm0, (%rdi)
    movups  %xmm1, -16(%rdi,%rdx)
    xorl    %eax, %eax
    ret

.Lover_32:
    cmpq    $64, %rdx
    ja      .Lover_64
    movups  (%rsi), %xmm0
    movups  16(%rsi), %xmm1
    movups  -32(%rsi,%rdx), %xmm2
    movups  -16(%rsi,%rdx), %xmm3
    movups  %xmm0, (%rdi)
    movups  %xmm1, 16(%rdi)
    movups  %xmm2, -32(%rdi,%rdx)
    movups  %xmm3, -16(%rdi,%rdx)
    xorl    %eax, %eax
    ret

.Lover_64:
    movq    %rdx, %rcx
    cmpq    $2048, %rdx
    jae     .Lstring
    leaq    -64(%rsi,%rdx), %rax        // the last 64 bytes: source and, in r8, target
    leaq    -64(%rdi,%rdx), %r8
.Lloop:
    movups  (%rsi), %xmm0
    movups  16(%rsi), %xmm1
    movups  32(%rsi), %xmm2
    movups  48(%rsi), %xmm3
    movups  %xmm0, (%rdi)
    movups  %xmm1, 16(%rdi)
    movups  %xmm2, 32(%rdi)
    movups  %xmm3, 48(%rdi)
    addq    $64, %rsi
    addq    $64, %rdi
    cmpq    %rax, %rsi
    jb      .Lloop
    movups  (%rax), %xmm0
    movups  16(%rax), %xmm1
    movups  32(%rax), %xmm2
    movups  48(%rax), %xmm3
    movups  %xmm0, (%r8)
    movups  %xmm1, 16(%r8)
    movups  %xmm2, 32(%r8)
    movups  %xmm3, 48(%r8)
    xorl    %eax, %eax
    ret

.Lstring:
    rep movsb
    xorl    %eax, %eax
    ret

.Lunder_16:
    cmpq    $8, %rdx
    jae     .Leight
    cmpq    $4, %rdx
    jae     .Lfour
    testq   %rdx, %rdx
    je      .Ldone
    movzbl  (%rsi), %ecx
    cmpq    $2, %rdx
    jb      .Lone
    movzwl  -2(%rsi,%rdx), %r8d
    movw    %r8w, -2(%rdi,%rdx)
.Lone:
    movb    %cl, (%rdi)
.Ldone:
    xorl    %eax, %eax
    ret
.Leight:
    movq    (%rsi), %rcx
    movq    -8(%rsi,%rdx), %r8
    movq    %rcx, (%rdi)
    movq    %r8, -8(%rdi,%rdx)
    xorl    %eax, %eax
    ret
.Lfour:
    movl    (%rsi), %ecx
    movl    -4(%rsi,%rdx), %r8d
    movl    %ecx, (%rdi)
    movl    %r8d, -4(%rdi,%rdx)
    xorl    %eax, %eax
    ret
    .cfi_endproc
    .size   zps_user_copy, . - zps_user_copy

// in rdi from; out rax word or -EFAULT, rdx value; uses rcx. In the sizes in which programs write: a load over two recent stores waits
// until both are in the cache.
    .type   zps_user_load_pair, @function
    .p2align 4
zps_user_load_pair:
    .cfi_startproc
    movl    (%rdi), %eax
    movl    4(%rdi), %ecx
    movl    8(%rdi), %edx
    shlq    $32, %rdx
    orq     %rcx, %rdx
    ret
    .cfi_endproc
    .size   zps_user_load_pair, . - zps_user_load_pair

// in rdi to, esi word, rdx value; out rax 0 or -EFAULT
    .type   zps_user_store_pair, @function
    .p2align 4
zps_user_store_pair:
    .cfi_startproc
    movl    %esi, (%rdi)
    movq    %rdx, 4(%rdi)
    xorl    %eax, %eax
    ret
    .cfi_endproc
    .size   zps_user_store_pair, . - zps_user_store_pair

// in rdi address; out rax 0 or -EFAULT; uses rcx
    .type   zps_user_read_byte, @function
    .p2align 4
zps_user_read_byte:
    .cfi_startproc
    movzbl  (%rdi), %ecx
    xorl    %eax, %eax
    ret
    .cfi_endproc
    .size   zps_user_read_byte, . - zps_user_read_byte

    .type   zps_user_touch_byte, @function
    .p2align 4
zps_user_touch_byte:
    .cfi_startproc
    movzbl  (%rdi), %ecx
    movb    %cl, (%rdi)
    xorl    %eax, %eax
    ret
zps_user_copy_end:
zps_user_copy_fault:
    movq    $-14, %rax                  // -EFAULT
    ret
    .cfi_endproc
    .size   zps_user_touch_byte, . - zps_user_touch_byte
    .section .note.GNU-stack, "", @progbits
