// read, write and their relatives without message headers.
// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "base/syscall.h"
#include "shim/files/address.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/calls/page_zero_pointers.h"
#include "shim/files/fd_table.h"
#include "shim/files/stream_io.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

constexpr size_t kMostBytes = 0x7fff'f000;

bool is_no_stream(int64_t fd) noexcept {
  const File* file = peek(fd);
  return file != nullptr && file->kind != FileKind::socket;
}
bool is_epoll(int64_t fd) noexcept {
  const File* file = peek(fd);
  return file != nullptr && file->kind == FileKind::epoll;
}

// One buffer as the program passed it. 0 or -EFAULT.
long one_part(int64_t memory, int64_t bytes, iovec* out) noexcept {
  size_t size = static_cast<size_t>(bytes);
  if (size > kMostBytes) size = kMostBytes;
  *out = {reinterpret_cast<void*>(memory), size};
  return size != 0 && !plausible(out->iov_base, size) ? -EFAULT : 0;
}

// The call of a descriptor that is no stream's, when the kernel has no say in it.
long beside_streams(const zps_call& call, bool receive) noexcept {
  iovec part;
  if (long error = one_part(call.arg[1], call.arg[2], &part); error != 0) return is_datagram(peek(call.arg[0])) ? error : kPass;
  const int fd = static_cast<int>(call.arg[0]);
  if (receive && part.iov_len == 0) return kPass;
  return receive ? datagram_read(fd, &part, 1, 0) : datagram_write(fd, &part, 1, 0);
}

// The kernel's, unless a part is the sled.
long pass_vector(const zps_call& call) noexcept {
  return page_zero_is_hooks() && has_part_in_page_zero(call.arg[1], call.arg[2]) ? -EFAULT : kPass;
}

long vector_call(const zps_call& call, bool receive, int flags) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  const long count = static_cast<long>(static_cast<unsigned long>(call.arg[2]) > INT32_MAX ? -1 : call.arg[2]);
  Parts parts;
  if (long error = parts.load(reinterpret_cast<const iovec*>(call.arg[1]), count); error != 0) return error;
  // Nothing to move does not reach the socket (vfs_readv(), vfs_writev()), whatever its state.
  if (std::all_of(parts.data(), parts.data() + parts.count(), [](const iovec& part) { return part.iov_len == 0; })) return 0;
  if (is_datagram(peek(fd))) [[unlikely]] {
    return receive ? datagram_read(fd, parts.data(), parts.count(), flags) : datagram_write(fd, parts.data(), parts.count(), flags);
  }
  return receive ? receive_parts(fd, parts.data(), parts.count(), flags) : send_parts(fd, parts.data(), parts.count(), flags);
}

// preadv2 and pwritev2: an offset is for files; of the flags only RWF_NOWAIT (and RWF_HIPRI) has a meaning here.
long positioned_call(const zps_call& call, bool receive) noexcept {
  if (peek(call.arg[0]) == nullptr || is_epoll(call.arg[0])) return pass_vector(call);
  const int64_t offset = call.arg[3];
  const int flags = static_cast<int>(call.arg[5]);
  if (offset != -1) return -ESPIPE;
  if ((flags & ~(RWF_NOWAIT | RWF_HIPRI)) != 0) return -EOPNOTSUPP;
  return vector_call(call, receive, (flags & RWF_NOWAIT) != 0 ? MSG_DONTWAIT : 0);
}

}  // namespace

long shim_read(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr) return kPass;
  if (is_no_stream(call.arg[0])) [[unlikely]] return beside_streams(call, true);
  iovec part;
  if (long error = one_part(call.arg[1], call.arg[2], &part); error != 0) return error;
  if (part.iov_len == 0) return 0;  // as sock_read_iter()
  return receive_parts(static_cast<int>(call.arg[0]), &part, 1, 0);
}

long shim_write(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr) return kPass;
  if (is_no_stream(call.arg[0])) [[unlikely]] return beside_streams(call, false);
  iovec part;
  if (long error = one_part(call.arg[1], call.arg[2], &part); error != 0) return error;
  return send_parts(static_cast<int>(call.arg[0]), &part, 1, 0);
}

long shim_readv(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr || is_epoll(call.arg[0])) return pass_vector(call);
  return vector_call(call, true, 0);
}

long shim_writev(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr || is_epoll(call.arg[0])) return pass_vector(call);
  return vector_call(call, false, 0);
}

long shim_preadv2(const zps_call& call) noexcept { return positioned_call(call, true); }

long shim_pwritev2(const zps_call& call) noexcept { return positioned_call(call, false); }

// A stream ignores the address that sendto names.
long shim_sendto(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr) return kPass;
  if (is_no_stream(call.arg[0])) [[unlikely]] return datagram_sendto(call);
  iovec part;
  if (long error = one_part(call.arg[1], call.arg[2], &part); error != 0) return error;
  return send_parts(static_cast<int>(call.arg[0]), &part, 1, static_cast<int>(call.arg[3]));
}

// A stream gives no address: the length becomes 0.
long shim_recvfrom(const zps_call& call) noexcept {
  if (peek(call.arg[0]) == nullptr) return kPass;
  if (is_no_stream(call.arg[0])) [[unlikely]] return datagram_recvfrom(call);
  iovec part;
  const int flags = static_cast<int>(call.arg[3]);
  if (long error = one_part(call.arg[1], call.arg[2], &part); error != 0 && (flags & MSG_TRUNC) == 0) return error;
  int message_flags = 0;
  const bool urgent = (flags & (MSG_OOB | MSG_ERRQUEUE)) == MSG_OOB;
  const long result = urgent ? receive_urgent(static_cast<int>(call.arg[0]), &part, 1, flags, &message_flags)
                             : receive_with_flags(static_cast<int>(call.arg[0]), &part, 1, flags);
  if (result >= 0 && call.arg[4] != 0) {
    const socklen_t none = 0;
    if (long error = copy_out(reinterpret_cast<void*>(call.arg[5]), &none, sizeof none); error != 0) return error;
  }
  return result;
}

}  // namespace shim
