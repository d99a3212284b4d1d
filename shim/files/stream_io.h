// Moving bytes between the program and a stream of the stack: the part that read, recv, write, send and their kin share.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/uio.h>

#include <cstddef>

#include "netstack/stack.h"
#include "zpoline/hook.h"

namespace shim {

// Flags are those of recv(2) and send(2); MSG_DONTWAIT is added by the socket's own mode. Results as recv and send give them, or
// ZPS_PASS when the descriptor is not a stack stream's. `parts` is in our memory and checked. SIGPIPE is raised here.
[[nodiscard]] long receive_parts(int fd, const iovec* parts, int count, int flags) noexcept;
// The same for recv, recvfrom and recvmsg, which differ from read in two points: asking for nothing asks whether something is
// there, and MSG_TRUNC throws bytes away without touching the program's memory.
[[nodiscard]] long receive_with_flags(int fd, const iovec* parts, int count, int flags) noexcept;
// With MSG_OOB in `flags`: the urgent byte. Never waits. `message_flags` gets what recvmsg() says of it.
[[nodiscard]] long receive_urgent(int fd, const iovec* parts, int count, int flags, int* message_flags) noexcept;
[[nodiscard]] long send_parts(int fd, const iovec* parts, int count, int flags) noexcept;
// The same of up to `wanted` bytes of a source, which is asked with the lock held. What it has given is counted: less than `wanted` also
// where it has no more now.
[[nodiscard]] long send_from(int fd, netstack::ByteSource& source, size_t wanted) noexcept;

// Whether `fd` is a connection of the stack, made or in the making.
[[nodiscard]] bool is_stream(int64_t fd) noexcept;
void raise_sigpipe() noexcept;

// A copy of the program's array of parts, checked: small ones in place, large ones in the thread's scratch buffer.
class Parts {
 public:
  // 0 if every part can be the program's memory and the sum is a count; -EFAULT, -EINVAL, -ENOMEM.
  [[nodiscard]] long load(const iovec* user, long count) noexcept;
  [[nodiscard]] const iovec* data() const noexcept { return parts_; }
  [[nodiscard]] int count() const noexcept { return count_; }

 private:
  static constexpr int kFew = 16;
  iovec few_[kFew];
  iovec* parts_ = few_;
  int count_ = 0;
};

}  // namespace shim
