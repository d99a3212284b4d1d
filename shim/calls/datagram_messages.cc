// The calls that move datagrams, each as a message.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/socket.h>

#include <climits>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/calls/datagram_calls.h"
#include "shim/family/family.h"
#include "shim/files/datagram_io.h"
#include "shim/files/fd_table.h"
#include "shim/files/stream_io.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr unsigned kMostMessages = 1024;

msghdr message_of(const iovec* parts, int count) noexcept {
  msghdr header{};
  header.msg_iov = const_cast<iovec*>(parts);
  header.msg_iovlen = static_cast<size_t>(count);
  return header;
}

// A message of the program's in our memory, its parts checked and copied. A name of no bytes is none (copy_msghdr_from_user()).
class Message {
 public:
  [[nodiscard]] long load(const msghdr* user) noexcept {
    if (long error = copy_in(&header, user, sizeof header); error != 0) return error;
    if (static_cast<int>(header.msg_namelen) < 0) return -EINVAL;
    if (header.msg_iovlen > IOV_MAX) return -EMSGSIZE;
    if (header.msg_control == nullptr) header.msg_controllen = 0;
    if (long error = parts_.load(header.msg_iov, static_cast<long>(header.msg_iovlen)); error != 0) return error;
    user_parts_ = header.msg_iov;
    header.msg_iov = const_cast<iovec*>(parts_.data());
    return 0;
  }
  // What recvmsg() writes back.
  [[nodiscard]] long store(msghdr* user) noexcept {
    header.msg_iov = user_parts_;
    return copy_out(user, &header, sizeof header);
  }
  msghdr header;

 private:
  Parts parts_;
  iovec* user_parts_ = nullptr;
};

bool is_served(int64_t fd) noexcept { return is_datagram(peek(fd)) && !static_cast<const DatagramSocket*>(peek(fd))->kernel_only; }

// One buffer as the program passed it. 0 or -EFAULT.
long one_part(int64_t memory, int64_t bytes, iovec* out) noexcept {
  constexpr size_t kMostBytes = 0x7fff'f000;
  const size_t size = static_cast<size_t>(bytes) < kMostBytes ? static_cast<size_t>(bytes) : kMostBytes;
  *out = {reinterpret_cast<void*>(memory), size};
  return size != 0 && !plausible(out->iov_base, size) ? -EFAULT : 0;
}

long receive_message(int fd, msghdr* user, int flags, bool* is_kernels) noexcept {
  Message message;
  *is_kernels = false;
  if (long error = message.load(user); error != 0) return error;
  const long result = receive_datagram(fd, &message.header, flags);
  *is_kernels = result == kPass;
  if (result < 0) return result;
  const long error = message.store(user);
  return error != 0 ? error : result;
}

long send_message(int fd, const msghdr* user, int flags) noexcept {
  Message message;
  if (long error = message.load(user); error != 0) return error;
  if (message.header.msg_namelen == 0) message.header.msg_name = nullptr;
  return send_datagram(fd, message.header, flags);
}

// As many messages as go without waiting, by the stack, in one hold of the lock. -EAGAIN or kPass in *last: why it ends here.
unsigned receive_together(int fd, mmsghdr* messages, unsigned count, int flags, long* last) noexcept {
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  *last = kPass;
  if (socket == nullptr || socket->endpoint == nullptr) return 0;
  for (unsigned i = 0; i < count; i++) {
    Message message;
    if (i > 0 && !socket->endpoint->readable()) return *last = -EAGAIN, i;
    *last = message.load(&messages[i].msg_hdr);
    if (*last == 0) *last = receive_one(socket, &message.header, flags);
    if (*last < 0) return i;
    const unsigned bytes = static_cast<unsigned>(*last);
    if (long error = message.store(&messages[i].msg_hdr); error != 0) return *last = error, i;
    if (long error = copy_out(&messages[i].msg_len, &bytes, sizeof bytes); error != 0) return *last = error, i;
  }
  return count;
}

unsigned send_together(int fd, mmsghdr* messages, unsigned count, int flags, long* last) noexcept {
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  *last = kPass;
  if (socket == nullptr || socket->endpoint == nullptr) return 0;
  for (unsigned i = 0; i < count; i++) {
    Message message;
    *last = message.load(&messages[i].msg_hdr);
    if (*last != 0) return i;
    if (message.header.msg_namelen == 0) message.header.msg_name = nullptr;
    *last = send_one(socket, guard.stack(), message.header, flags);
    if (*last < 0) return i;
    const unsigned bytes = static_cast<unsigned>(*last);
    if (long error = copy_out(&messages[i].msg_len, &bytes, sizeof bytes); error != 0) return *last = error, i;
  }
  return count;
}

// Whether an error is pending, which the next call is to tell (do_recvmmsg()).
bool error_is_pending(int fd) noexcept {
  Guard guard;
  const DatagramSocket* const socket = datagram_at(fd);
  return socket != nullptr && socket->endpoint != nullptr && (socket->endpoint->ready() & EPOLLERR) != 0;
}

long load_timeout(int64_t user, uint64_t* end) noexcept {
  *end = UINT64_MAX;
  if (user == 0) return 0;
  timespec timeout;
  if (long error = copy_in(&timeout, reinterpret_cast<void*>(user), sizeof timeout); error != 0) return error;
  if (timeout.tv_sec < 0 || timeout.tv_nsec < 0 || timeout.tv_nsec >= 1'000'000'000) return -EINVAL;
  *end = base::monotonic_ns() + static_cast<uint64_t>(timeout.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(timeout.tv_nsec);
  return 0;
}

// What is left of it: __sys_recvmmsg() tells.
long store_timeout(int64_t user, uint64_t end) noexcept {
  const uint64_t now = base::monotonic_ns(), left = now < end ? end - now : 0;
  const timespec timeout{static_cast<time_t>(left / 1'000'000'000), static_cast<long>(left % 1'000'000'000)};
  return copy_out(reinterpret_cast<void*>(user), &timeout, sizeof timeout);
}

long receive_many(int fd, mmsghdr* messages, unsigned count, int flags, uint64_t end) noexcept {
  const bool wait_for_one = (flags & MSG_WAITFORONE) != 0;
  flags &= ~MSG_WAITFORONE;
  for (unsigned done = 0; done < count;) {
    long last;
    if (done > 0 && error_is_pending(fd)) return done;
    const bool late = end != UINT64_MAX && base::monotonic_ns() >= end;  // looked at after each message only, as Linux does
    done += receive_together(fd, messages + done, late ? 1 : count - done, flags, &last);
    if (done == count || (done > 0 && base::monotonic_ns() >= end)) return done;
    if (done > 0 && wait_for_one) flags |= MSG_DONTWAIT;
    bool is_kernels = false;
    if (last == kPass || last == -EAGAIN) last = receive_message(fd, &messages[done].msg_hdr, flags, &is_kernels);
    if (is_kernels) {
      if (done == 0) return kPass;
      last = kernel_call(SYS_recvmsg, fd, as_arg(&messages[done].msg_hdr), flags);
    }
    if (last == kRestart && done == 0) return last;
    if (last < 0) return done > 0 ? static_cast<long>(done) : last;
    const unsigned bytes = static_cast<unsigned>(last);
    if (long error = copy_out(&messages[done].msg_len, &bytes, sizeof bytes); error != 0) return done > 0 ? static_cast<long>(done) : error;
    done++;
    if (base::monotonic_ns() >= end) return done;
    if (wait_for_one) flags |= MSG_DONTWAIT;
  }
  return count;
}

}  // namespace

long datagram_read(int fd, const iovec* parts, int count, int flags) noexcept {
  if (!is_served(fd)) return kPass;
  msghdr header = message_of(parts, count);
  return receive_datagram(fd, &header, flags);
}

long datagram_write(int fd, const iovec* parts, int count, int flags) noexcept {
  if (!is_served(fd)) return kPass;
  return send_datagram(fd, message_of(parts, count), flags);
}

long datagram_recvfrom(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (!is_served(fd)) return kPass;
  iovec part;
  if (long error = one_part(call.arg[1], call.arg[2], &part); error != 0) return error;
  msghdr header = message_of(&part, 1);
  auto* const user_bytes = reinterpret_cast<socklen_t*>(call.arg[5]);
  header.msg_name = reinterpret_cast<void*>(call.arg[4]);
  if (header.msg_name != nullptr) {
    int room = 0;
    if (copy_in(&room, user_bytes, sizeof room) == 0 && room > 0) header.msg_namelen = static_cast<socklen_t>(room);
    if (room < 0) header.msg_namelen = 0;
  }
  const long result = receive_datagram(fd, &header, static_cast<int>(call.arg[3]));
  if (result < 0 || header.msg_name == nullptr) return result;
  int room = 0;  // move_addr_to_user() looks when the datagram is taken
  if (long error = copy_in(&room, user_bytes, sizeof room); error != 0) return error;
  if (room < 0) return -EINVAL;
  const long error = copy_out(user_bytes, &header.msg_namelen, sizeof header.msg_namelen);
  return error != 0 ? error : result;
}

long datagram_sendto(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (!is_served(fd)) return kPass;
  iovec part;
  if (long error = one_part(call.arg[1], call.arg[2], &part); error != 0) return error;
  msghdr header = message_of(&part, 1);
  header.msg_name = reinterpret_cast<void*>(call.arg[4]);
  header.msg_namelen = static_cast<socklen_t>(call.arg[5]);
  return send_datagram(fd, header, static_cast<int>(call.arg[3]));
}

long datagram_recvmsg(const zps_call& call) noexcept {
  if (!is_served(call.arg[0])) return kPass;
  bool is_kernels;
  return receive_message(static_cast<int>(call.arg[0]), reinterpret_cast<msghdr*>(call.arg[1]), static_cast<int>(call.arg[2]), &is_kernels);
}

long datagram_sendmsg(const zps_call& call) noexcept {
  if (!is_served(call.arg[0])) return kPass;
  return send_message(static_cast<int>(call.arg[0]), reinterpret_cast<const msghdr*>(call.arg[1]), static_cast<int>(call.arg[2]));
}

long datagram_sendmmsg(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]), flags = static_cast<int>(call.arg[3]);
  if (!is_served(fd)) return kPass;
  auto* const messages = reinterpret_cast<mmsghdr*>(call.arg[1]);
  const unsigned count = static_cast<unsigned>(call.arg[2]) < kMostMessages ? static_cast<unsigned>(call.arg[2]) : kMostMessages;
  for (unsigned done = 0; done < count;) {
    long last;
    done += send_together(fd, messages + done, count - done, flags, &last);
    if (done == count) break;
    // What the stack does not send at once: to the kernel's side, or when there is room.
    if (last == kPass || last == -EAGAIN) last = send_message(fd, &messages[done].msg_hdr, flags);
    if (last == kPass) last = kernel_call(SYS_sendmsg, fd, as_arg(&messages[done].msg_hdr), flags);
    if (last == kRestart && done == 0) return last;
    if (last < 0) return done > 0 ? static_cast<long>(done) : last;
    const unsigned bytes = static_cast<unsigned>(last);
    if (long error = copy_out(&messages[done].msg_len, &bytes, sizeof bytes); error != 0) return done > 0 ? static_cast<long>(done) : error;
    done++;
  }
  return count;
}

long datagram_recvmmsg(const zps_call& call) noexcept {
  const int fd = static_cast<int>(call.arg[0]);
  if (!is_served(fd)) return kPass;
  uint64_t end;
  if (long error = load_timeout(call.arg[4], &end); error != 0) return error;
  auto* const messages = reinterpret_cast<mmsghdr*>(call.arg[1]);
  const long done = receive_many(fd, messages, static_cast<unsigned>(call.arg[2]), static_cast<int>(call.arg[3]), end);
  const long error = done > 0 && call.arg[4] != 0 ? store_timeout(call.arg[4], end) : 0;
  return error != 0 ? error : done;
}

}  // namespace shim
