// What recvmsg() tells about the data besides the data: TCP_INQ, SO_TIMESTAMP and its kin.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/socket.h>

namespace shim {

// Fills in msg_control as far as it reaches, msg_controllen (what of it is used) and MSG_CTRUNC in msg_flags, after `received` bytes have
// come from `fd` (0: its end). 0 or -EFAULT.
[[nodiscard]] long tell_arrival(int fd, long received, msghdr* header) noexcept;

}  // namespace shim
