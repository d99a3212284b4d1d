// sendmsg, recvmsg and their many-message forms.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/epoll.h>
#include <sys/socket.h>

#include <climits>

#include "base/clock.h"
#include "shim/calls/arrival_messages.h"
#include "shim/calls/calls.h"
#include "shim/calls/datagram_calls.h"
#include "shim/calls/page_zero_pointers.h"
#include "shim/calls/rights.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/stream_io.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

constexpr unsigned kMostMessages = 1024;

bool passes(int64_t fd) noexcept {
  const File* file = peek(fd);
  return file == nullptr || file->kind != FileKind::socket;
}

// The kernel's, unless a part is the sled.
long pass_message(const zps_call& call) noexcept {
  if (!page_zero_is_hooks()) return kPass;
  const auto* user = reinterpret_cast<const msghdr*>(call.arg[1]);
  msghdr header;
  if (!plausible(user, sizeof header) || copy_in(&header, user, sizeof header) != 0) return kPass;
  return has_part_in_page_zero(reinterpret_cast<int64_t>(header.msg_iov), static_cast<int64_t>(header.msg_iovlen)) ? -EFAULT : kPass;
}

long load_message(const msghdr* user, msghdr* header, Parts* parts) noexcept {
  if (long error = copy_in(header, user, sizeof *header); error != 0) return error;
  if (header->msg_iovlen > IOV_MAX) return -EMSGSIZE;
  return parts->load(header->msg_iov, static_cast<long>(header->msg_iovlen));
}

// Control messages to a TCP socket, as sock_cmsg_send() judges them: those of other levels and those that are for other sockets are
// ignored. What would ask for an answer that never comes (time stamps, zero copy) is refused.
long check_control(const msghdr& header) noexcept {
  if (header.msg_controllen > INT_MAX) return -ENOBUFS;
  const auto* const begin = static_cast<const char*>(header.msg_control);
  char last;
  if (long error = copy_in(&last, begin + header.msg_controllen - 1, 1); error != 0) return error;
  size_t left = header.msg_controllen;
  for (size_t at = 0; left >= sizeof(cmsghdr);) {
    cmsghdr message;
    if (long error = copy_in(&message, begin + at, sizeof message); error != 0) return error;
    if (message.cmsg_len < sizeof message || message.cmsg_len > left) return -EINVAL;
    if (message.cmsg_level == SOL_SOCKET) {
      const bool ignored = message.cmsg_type == SCM_RIGHTS || message.cmsg_type == SCM_CREDENTIALS;
      const bool one_word = message.cmsg_len == CMSG_LEN(sizeof(uint32_t));
      const bool kept = one_word && (message.cmsg_type == SO_MARK || message.cmsg_type == SO_PRIORITY);
      if (!ignored && !kept) return -EINVAL;
    }
    const size_t step = CMSG_ALIGN(message.cmsg_len);
    if (step > left) break;
    at += step;
    left -= step;
  }
  return 0;
}

long send_message(int fd, const msghdr* user, int flags) noexcept {
  msghdr header;
  Parts parts;
  if (long error = load_message(user, &header, &parts); error != 0) return error;
  if (header.msg_controllen != 0) {
    const long error = check_control(header);
    // A connection that is over says so first.
    if (const long state = error == -EINVAL ? send_parts(fd, nullptr, 0, flags) : 0; state != 0) return state;
    if (error != 0) return error;
  }
  return send_parts(fd, parts.data(), parts.count(), flags);
}

long receive_message(int fd, msghdr* user, int flags, int* message_flags) noexcept {
  msghdr header;
  Parts parts;
  if (long error = load_message(user, &header, &parts); error != 0) return error;
  const bool urgent = (flags & (MSG_OOB | MSG_ERRQUEUE)) == MSG_OOB;
  *message_flags = flags & MSG_CMSG_CLOEXEC;
  const long result = urgent ? receive_urgent(fd, parts.data(), parts.count(), flags, message_flags)
                             : receive_with_flags(fd, parts.data(), parts.count(), flags);
  if (result < 0) return result;
  // A stream has no name.
  if (header.msg_name != nullptr) header.msg_namelen = 0;
  header.msg_flags = *message_flags;
  if (long error = tell_arrival(fd, result, &header); error != 0) return error;
  if (long error = copy_out(user, &header, sizeof header); error != 0) return error;
  return result;
}

// The result of a many-message call: messages done, or the first one's error.
long so_far(unsigned done, long error) noexcept { return done > 0 ? static_cast<long>(done) : error; }

// recvmmsg() tells of an error before it takes any message, and leaves the one behind the messages it has for the next call.
long error_first(int fd) noexcept {
  Guard guard;
  Socket* socket = socket_at(fd);
  return socket != nullptr ? -socket->take_error() : 0;
}

bool only_error_is_left(int fd) noexcept {
  Guard guard;
  const Socket* socket = socket_at(fd);
  return socket != nullptr && socket->state == SocketState::stream && socket->stream->readable_bytes() == 0 &&
         (socket->stream->ready() & EPOLLERR) != 0;
}

}  // namespace

long shim_sendmsg(const zps_call& call) noexcept {
  if (passes(call.arg[0])) {
    long result = datagram_sendmsg(call);
    if (result == kPass) result = pass_message(call);
    return result == kPass ? send_rights(call) : result;
  }
  return send_message(static_cast<int>(call.arg[0]), reinterpret_cast<const msghdr*>(call.arg[1]), static_cast<int>(call.arg[2]));
}

long shim_recvmsg(const zps_call& call) noexcept {
  if (passes(call.arg[0])) {
    long result = datagram_recvmsg(call);
    if (result == kPass) result = pass_message(call);
    return result == kPass ? receive_rights(call) : result;
  }
  int message_flags;
  auto* const message = reinterpret_cast<msghdr*>(call.arg[1]);
  return receive_message(static_cast<int>(call.arg[0]), message, static_cast<int>(call.arg[2]), &message_flags);
}

long shim_sendmmsg(const zps_call& call) noexcept {
  if (passes(call.arg[0])) {
    const long result = datagram_sendmmsg(call);
    return result == kPass ? send_many_rights(call) : result;
  }
  mmsghdr* messages = reinterpret_cast<mmsghdr*>(call.arg[1]);
  const unsigned wanted = static_cast<unsigned>(call.arg[2]);
  const unsigned count = wanted < kMostMessages ? wanted : kMostMessages;
  for (unsigned i = 0; i < count; i++) {
    const long result = send_message(static_cast<int>(call.arg[0]), &messages[i].msg_hdr, static_cast<int>(call.arg[3]));
    if (result == kPass) return i == 0 ? kPass : static_cast<long>(i);
    if (result < 0) return so_far(i, result);
    const unsigned bytes = static_cast<unsigned>(result);
    if (long error = copy_out(&messages[i].msg_len, &bytes, sizeof bytes); error != 0) return so_far(i, error);
  }
  return count;
}

long shim_recvmmsg(const zps_call& call) noexcept {
  if (passes(call.arg[0])) {
    const long result = datagram_recvmmsg(call);
    return result == kPass ? receive_many_rights(call) : result;
  }
  mmsghdr* messages = reinterpret_cast<mmsghdr*>(call.arg[1]);
  const unsigned count = static_cast<unsigned>(call.arg[2]);
  int flags = static_cast<int>(call.arg[3]);
  uint64_t end = UINT64_MAX;
  if (call.arg[4] != 0) {
    timespec timeout;
    if (long error = copy_in(&timeout, reinterpret_cast<void*>(call.arg[4]), sizeof timeout); error != 0) return error;
    if (timeout.tv_sec < 0 || timeout.tv_nsec < 0 || timeout.tv_nsec >= 1'000'000'000) return -EINVAL;
    end = base::monotonic_ns() + static_cast<uint64_t>(timeout.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(timeout.tv_nsec);
  }
  if ((flags & MSG_ERRQUEUE) == 0) {
    if (const long error = error_first(static_cast<int>(call.arg[0])); error != 0) return error;
  }
  for (unsigned i = 0; i < count; i++) {
    if (i > 0 && only_error_is_left(static_cast<int>(call.arg[0]))) return i;
    int message_flags;
    const long result = receive_message(static_cast<int>(call.arg[0]), &messages[i].msg_hdr, flags & ~MSG_WAITFORONE, &message_flags);
    if (result == kPass) return i == 0 ? kPass : static_cast<long>(i);
    if (result < 0) return so_far(i, result);
    const unsigned bytes = static_cast<unsigned>(result);
    if (long error = copy_out(&messages[i].msg_len, &bytes, sizeof bytes); error != 0) return so_far(i, error);
    // As Linux: the timeout is looked at after each message only.
    if (base::monotonic_ns() >= end || (message_flags & MSG_OOB) != 0) return i + 1;
    if ((flags & MSG_WAITFORONE) != 0) flags |= MSG_DONTWAIT;
  }
  return count;
}

}  // namespace shim
