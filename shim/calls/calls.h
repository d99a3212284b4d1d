// The handlers of the syscall table: one per call number.
// SPDX-License-Identifier: BSD-3-Clause
//
// A handler gets the call as the program made it and returns what the program sees in rax, or kPass to let the kernel do it.
#pragma once

#include <cstddef>

#include "shim/files/options.h"
#include "zpoline/hook.h"

namespace shim {

inline constexpr long kPass = ZPS_PASS;

// socket_calls.cc
long shim_socket(const zps_call& call) noexcept;
long shim_listen(const zps_call& call) noexcept;
long shim_accept(const zps_call& call) noexcept;
long shim_accept4(const zps_call& call) noexcept;
long shim_getsockname(const zps_call& call) noexcept;
long shim_getpeername(const zps_call& call) noexcept;
// bind_call.cc
long shim_bind(const zps_call& call) noexcept;
// connect_call.cc
long shim_connect(const zps_call& call) noexcept;
// shutdown_call.cc
long shim_shutdown(const zps_call& call) noexcept;
// option_calls.cc
long shim_getsockopt(const zps_call& call) noexcept;
long shim_setsockopt(const zps_call& call) noexcept;
// Says what of `set`, taken by the kernel, the stack does not do: when a socket becomes the stack's.
void say_refused_of(const OptionSet& set) noexcept;
// stream_calls.cc
long shim_read(const zps_call& call) noexcept;
long shim_write(const zps_call& call) noexcept;
long shim_readv(const zps_call& call) noexcept;
long shim_writev(const zps_call& call) noexcept;
long shim_preadv2(const zps_call& call) noexcept;
long shim_pwritev2(const zps_call& call) noexcept;
long shim_sendto(const zps_call& call) noexcept;
long shim_recvfrom(const zps_call& call) noexcept;
// message_calls.cc
long shim_sendmsg(const zps_call& call) noexcept;
long shim_recvmsg(const zps_call& call) noexcept;
long shim_sendmmsg(const zps_call& call) noexcept;
long shim_recvmmsg(const zps_call& call) noexcept;
// sendfile_calls.cc
long shim_sendfile(const zps_call& call) noexcept;
// splice_calls.cc
long shim_splice(const zps_call& call) noexcept;
// From the stream under `socket` into `pipe`, with flags of splice(2). kPass if one of them is something else.
[[nodiscard]] long splice_to_pipe(int socket, int pipe, size_t wanted, unsigned flags) noexcept;
// fd_calls.cc
long shim_close(const zps_call& call) noexcept;
long shim_close_range(const zps_call& call) noexcept;
long shim_dup(const zps_call& call) noexcept;
long shim_dup2(const zps_call& call) noexcept;
long shim_dup3(const zps_call& call) noexcept;
long shim_fcntl(const zps_call& call) noexcept;
long shim_ioctl(const zps_call& call) noexcept;
long shim_pidfd_getfd(const zps_call& call) noexcept;
long shim_io_uring_setup(const zps_call& call) noexcept;
long shim_exit(const zps_call& call) noexcept;
// identity_calls.cc
long shim_setuid(const zps_call& call) noexcept;
long shim_setreuid(const zps_call& call) noexcept;
long shim_setresuid(const zps_call& call) noexcept;
long shim_setfsuid(const zps_call& call) noexcept;
long shim_capset(const zps_call& call) noexcept;
long shim_setgid(const zps_call& call) noexcept;
long shim_setregid(const zps_call& call) noexcept;
long shim_setresgid(const zps_call& call) noexcept;
long shim_chroot(const zps_call& call) noexcept;
// limit_calls.cc
long shim_prlimit64(const zps_call& call) noexcept;
long shim_setrlimit(const zps_call& call) noexcept;
long shim_getrlimit(const zps_call& call) noexcept;
// memory_calls.cc
long shim_mlockall(const zps_call& call) noexcept;
long shim_munlockall(const zps_call& call) noexcept;
// poll_calls.cc
long shim_poll(const zps_call& call) noexcept;
long shim_ppoll(const zps_call& call) noexcept;
long shim_select(const zps_call& call) noexcept;
long shim_pselect6(const zps_call& call) noexcept;
// epoll_calls.cc
long shim_epoll_create(const zps_call& call) noexcept;
long shim_epoll_create1(const zps_call& call) noexcept;
long shim_epoll_wait(const zps_call& call) noexcept;
long shim_epoll_pwait(const zps_call& call) noexcept;
long shim_epoll_pwait2(const zps_call& call) noexcept;
// epoll_ctl.cc
long shim_epoll_ctl(const zps_call& call) noexcept;

}  // namespace shim
