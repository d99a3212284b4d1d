// Which arguments are pointers, by call number, and for which of them NULL is one as well.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/page_zero_pointers.h"

#include <sys/syscall.h>
#include <sys/uio.h>

#include <bit>

#include "shim/calls/syscall_table.h"
#include "shim/files/user_memory.h"

namespace shim {

PointerArguments pointer_arguments[ZPS_NR_COUNT];

namespace {

bool noted = false;

// Bits of the arguments that the kernel always follows: NULL is no "none" for them.
constexpr uint8_t always_followed(int nr) {
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
    case SYS_epoll_pwait2: return 1 << 1;
    case SYS_getsockname:
    case SYS_getpeername: return 1 << 1 | 1 << 2;
    case SYS_setsockopt: return 1 << 3;
    case SYS_getsockopt: return 1 << 3 | 1 << 4;
    case SYS_poll:
    case SYS_ppoll: return 1 << 0;
    default: return 0;
  }
}

bool is_pointer(char letter) noexcept { return letter == 'p' || letter == 's' || letter == 'v' || letter == 'a' || letter == 't'; }

}  // namespace

void note_pointers(const SyscallRow& row) noexcept {
  if (row.nr == SYS_fcntl || row.nr == SYS_ioctl) return;  // their last argument may be a number
  PointerArguments& pointers = pointer_arguments[row.nr];
  for (int i = 0; row.arguments[i] != '\0'; i++) {
    if (is_pointer(row.arguments[i])) pointers.all = static_cast<uint8_t>(pointers.all | 1 << i);
  }
  pointers.followed = always_followed(row.nr);
  pointers.lone = std::popcount(pointers.all) > 1 ? kSeveral : static_cast<uint8_t>(std::bit_width(pointers.all));
  noted = true;
}

bool page_zero_is_hooks() noexcept { return noted; }

bool has_part_in_page_zero(int64_t parts, int64_t count) noexcept {
  constexpr int64_t kAtOnce = 8;
  iovec some[kAtOnce];
  const auto* user = reinterpret_cast<const iovec*>(parts);
  for (int64_t done = 0; done < count && done < 1024; done += kAtOnce) {
    const int64_t left = count - done < kAtOnce ? count - done : kAtOnce;
    if (!plausible(user + done, static_cast<size_t>(left) * sizeof *user) || copy_in(some, user + done, static_cast<size_t>(left) * sizeof *user) != 0) return false;
    for (int64_t i = 0; i < left; i++) {
      if (some[i].iov_len != 0 && reinterpret_cast<uint64_t>(some[i].iov_base) < kPageZeroEnd) return true;
    }
  }
  return false;
}

}  // namespace shim
