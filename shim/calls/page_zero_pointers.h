// Pointers into page 0, which is mapped while the hook's trampoline lies there: for the kernel they must stay what they are for the
// program, bad.
// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel would read the sled where natively it finds nothing: write(fd, NULL, 16) would write sixteen bytes of it. So before anything
// else such pointers are moved up by a page, to memory that nobody has mapped either: whoever follows them, here or in the kernel, finds
// the same fault at the same point, after the checks that come before it. NULL itself means "none" for some arguments and stays.
//
// Known limits: calls that the hook does not claim (open, stat, pread64 ...) go to the kernel as they are; so do fcntl and ioctl, and
// pointers inside structures, but for the parts of an iovec array.
#pragma once

#include <sys/syscall.h>

#include <cstdint>

#include "zpoline/hook.h"

namespace shim {

inline constexpr uint64_t kPageZeroEnd = 4096;

// Page 0 is the trampoline's.
void note_page_zero() noexcept;
[[nodiscard]] bool page_zero_is_hooks() noexcept;

// A bit per argument of a call: those that are pointers, and those of them that the kernel always follows: NULL is no "none" for them.
struct PointerArguments {
  uint8_t all, followed;
};
// `letters` as in SyscallRow.
[[nodiscard]] consteval PointerArguments pointer_arguments(int nr, const char* letters) noexcept;

// `handler` of a call with these pointers, behind the move. A comparison per pointer; uses no vector register, as some calls may not.
template <long (*handler)(const zps_call& call) noexcept, PointerArguments pointers>
[[gnu::target("general-regs-only")]] long handle_out_of_page_zero(const zps_call& call) noexcept {
  int64_t* const arguments = const_cast<zps_call&>(call).arg;  // dispatch's own
#pragma GCC unroll 6
  for (unsigned i = 0; i < 6; i++) {
    if ((pointers.all >> i & 1) == 0) continue;
    const uint64_t none = (pointers.followed >> i & 1) == 0;  // NULL is none
    if (static_cast<uint64_t>(arguments[i]) - none < kPageZeroEnd - none) [[unlikely]] arguments[i] += static_cast<int64_t>(kPageZeroEnd);
  }
  return handler(call);
}

// For the calls with an array of parts: true if one of `count` parts is in page 0 and not empty. An array that cannot be read is the
// kernel's to refuse.
[[nodiscard]] bool has_part_in_page_zero(int64_t parts, int64_t count) noexcept;

// ---- which arguments

consteval PointerArguments pointer_arguments(int nr, const char* letters) noexcept {
  PointerArguments found{};
  if (nr == SYS_fcntl || nr == SYS_ioctl) return found;  // their last argument may be a number
  for (int i = 0; letters[i] != '\0'; i++) {
    const char letter = letters[i];
    const bool is_pointer = letter == 'p' || letter == 's' || letter == 'v' || letter == 'a' || letter == 't';
    if (is_pointer) found.all = static_cast<uint8_t>(found.all | 1 << i);
  }
  switch (nr) {
    case SYS_read:
    case SYS_write:
    case SYS_readv:
    case SYS_writev:
    case SYS_preadv2:
    case SYS_pwritev2:
    case SYS_sendto:
    case SYS_recvfrom:
    case SYS_sendmsg:
    case SYS_recvmsg:
    case SYS_sendmmsg:
    case SYS_recvmmsg:
    case SYS_bind:
    case SYS_connect:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2: found.followed = 1 << 1; break;
    case SYS_getsockname:
    case SYS_getpeername: found.followed = 1 << 1 | 1 << 2; break;
    case SYS_setsockopt: found.followed = 1 << 3; break;
    case SYS_getsockopt: found.followed = 1 << 3 | 1 << 4; break;
    case SYS_poll:
    case SYS_ppoll: found.followed = 1 << 0; break;
    default: break;
  }
  return found;
}

}  // namespace shim
