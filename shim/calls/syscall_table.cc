// The rows of the syscall table, in the order of docs/syscalls.md.
// SPDX-License-Identifier: BSD-3-Clause
//
// A call that may make a stack, start a thread or log runs with the whole vector state kept (FULL); the data path with xmm0-15 (SSE);
// epoll_ctl keeps what it needs itself.
#include "shim/calls/syscall_table.h"

#include <sys/syscall.h>

#include "shim/calls/calls.h"
#include "shim/calls/page_zero_pointers.h"

namespace shim {
namespace {

constexpr zps_claim kData = ZPS_CLAIM_SSE;
constexpr zps_claim kSetup = ZPS_CLAIM_FULL;
constexpr zps_claim kBare = ZPS_CLAIM_GENERAL;

#define ROW(name, arguments, claim, note) \
  {SYS_##name, #name, arguments, shim_##name, handle_out_of_page_zero<shim_##name, pointer_arguments(SYS_##name, arguments)>, claim, note}

constexpr SyscallRow kRows[] = {
    ROW(socket, "iii", kData,
        "AF_INET and AF_INET6 SOCK_STREAM are candidates for the stack, with ZPS_UDP=stack or a rule SOCK_DGRAM as well; every other "
        "socket is the "
        "kernel's"),
    ROW(bind, "dai", kSetup, "wildcard: both sides; an address of the stack: the stack; any other: the kernel"),
    ROW(listen, "di", kSetup, "makes the stack at first use; a wildcard listener listens on both sides"),
    ROW(accept, "dap", kSetup, "from the stack first, then from the kernel"),
    ROW(accept4, "dapx", kSetup, "from the stack first, then from the kernel"),
    ROW(connect, "dai", kSetup, "by the routing rules; may make the stack"),
    ROW(shutdown, "di", kData, "all three directions"),
    ROW(getsockname, "dap", kData, "all"),
    ROW(getpeername, "dap", kData, "all"),
    ROW(getsockopt, "diipp", kSetup, "the option table (docs/options.md); others are refused as Linux refuses unknown ones"),
    ROW(setsockopt, "diipz", kSetup, "the option table (docs/options.md); others are refused as Linux refuses unknown ones"),
    ROW(read, "dpz", kData, "all"),
    ROW(write, "dpz", kData, "all"),
    ROW(readv, "dvi", kData, "all"),
    ROW(writev, "dvi", kData, "all"),
    ROW(preadv2, "dviix", kData, "offset -1; RWF_NOWAIT; an offset is ESPIPE"),
    ROW(pwritev2, "dviix", kData, "offset -1; RWF_NOWAIT; an offset is ESPIPE"),
    ROW(sendto, "dpzxai", kData, "MSG_DONTWAIT, NOSIGNAL, MORE, EOR, CONFIRM, OOB; FASTOPEN is EOPNOTSUPP"),
    ROW(recvfrom, "dpzxap", kData, "MSG_PEEK, WAITALL, DONTWAIT, TRUNC, OOB; ERRQUEUE is EAGAIN"),
    ROW(sendmsg, "dpx", kData,
        "as sendto; control messages as Linux judges them for TCP, but time stamps are EINVAL; stack sockets in messages of Unix sockets"),
    ROW(recvmsg, "dpx", kData, "as recvfrom; control messages of TCP_INQ and of receive times; stack sockets that have been passed on"),
    ROW(sendmmsg, "dpzx", kData, "as sendmsg"),
    ROW(recvmmsg, "dpzxt", kData, "as recvmsg; timeout, WAITFORONE"),
    ROW(sendfile, "ddpz", kData, "file to stack socket, through a bounded buffer; stack socket to pipe"),
    ROW(splice, "dpdpzx", kData, "between a pipe and a connection, both ways; tee and vmsplice are the kernel's, which refuses sockets"),
    ROW(close, "d", kData, "all; hidden descriptors are EBADF"),
    ROW(close_range, "iix", kData, "all flags; hidden descriptors are left out"),
    ROW(dup, "d", kData, "all"),
    ROW(dup2, "dd", kData, "all; onto a hidden descriptor EBADF"),
    ROW(dup3, "ddx", kData, "all; onto a hidden descriptor EBADF"),
    ROW(fcntl, "dip", kData, "F_DUPFD, F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, F_SETOWN, F_SETOWN_EX, F_SETSIG; the rest by the placeholder"),
    ROW(ioctl, "dip", kData,
        "FIONBIO, FIONREAD, FIOASYNC, FIOSETOWN, SIOCSPGRP, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK; the rest by the placeholder"),
    ROW(poll, "pzi", kSetup, "stack sockets and kernel descriptors in one call"),
    ROW(ppoll, "pztpz", kSetup, "as poll; the mask is atomic with the sleep"),
    ROW(select, "ipppt", kSetup, "as poll"),
    ROW(pselect6, "ippptp", kSetup, "as ppoll"),
    ROW(epoll_create, "i", kData, "all"),
    ROW(epoll_create1, "x", kData, "all"),
    ROW(epoll_ctl, "didp", kBare, "level, edge, one-shot; EXCLUSIVE wakes every set"),
    ROW(epoll_wait, "dpii", kData, "stack sockets and kernel descriptors in one set"),
    ROW(epoll_pwait, "dpiipz", kData, "as epoll_wait; the mask is atomic with the sleep"),
    ROW(epoll_pwait2, "dpitpz", kData, "as epoll_pwait, in nanoseconds"),
    ROW(pidfd_getfd, "ddx", kSetup, "from a process of the family: the stack socket or set; else the kernel's"),
    ROW(io_uring_setup, "ip", kSetup, "ENOSYS unless ZPS_IO_URING=kernel, so that runtimes use epoll"),
    ROW(setuid, "i", kSetup,
        "the kernel's; before rights go that a stack would need, they are kept apart (docs/decisions/kept-rights.md); our thread follows"),
    ROW(setreuid, "ii", kSetup, "as setuid"),
    ROW(setresuid, "iii", kSetup, "as setuid"),
    ROW(setfsuid, "i", kSetup, "the kernel's; sockets accepted from then on are another user's"),
    ROW(setgid, "i", kSetup, "the kernel's; our thread follows what cannot be taken back"),
    ROW(setregid, "ii", kSetup, "as setgid"),
    ROW(setresgid, "iii", kSetup, "as setgid"),
    ROW(capset, "pp", kSetup, "as setuid"),
    ROW(chroot, "s", kSetup, "the kernel's; what a stack is made of is opened before"),
    ROW(setrlimit, "ip", kSetup,
        "the kernel's; of RLIMIT_NOFILE's hard limit the kernel keeps what our own descriptors need (shim/family/file_limit.h), and "
        "RLIMIT_AS is for the program alone (shim/family/address_limit.h)"),
    ROW(getrlimit, "ip", kSetup, "what was set"),
    ROW(prlimit64, "iipp", kSetup, "as setrlimit and getrlimit"),
    ROW(mlockall, "x", kSetup, "the kernel's; where RLIMIT_MEMLOCK is too small for all that is mapped, what is ours stays unlocked"),
    ROW(munlockall, "", kSetup, "the kernel's"),
    ROW(exit, "i", kData, "frees what the thread has in the family"),
};

#undef ROW

}  // namespace

SyscallRows syscall_rows() noexcept { return {kRows, sizeof kRows / sizeof kRows[0]}; }

}  // namespace shim
