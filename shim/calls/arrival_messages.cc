// The control messages of a receive, as tcp_recv_timestamp(), tcp_inq_hint() and put_cmsg() have them.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/arrival_messages.h"

#include <netinet/in.h>
#include <linux/tcp.h>
#include <sys/epoll.h>
#include <time.h>

#include <cstdint>

#include "base/clock.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

// What is asked for, and the facts about the connection.
struct Arrival {
  ArrivalControl wanted;
  uint64_t came_ns = 0;  // base::monotonic_ns()
  int inq = 0;
};

// Without the lock for those who ask for nothing: they pay for two loads.
bool look(int fd, Arrival* out) noexcept {
  const File* const file = peek(fd);
  if (file == nullptr || file->kind != FileKind::socket || !static_cast<const Socket*>(file)->arrival.any()) return false;
  Guard guard;
  const Socket* const socket = socket_at(fd);
  if (socket == nullptr || socket->stream == nullptr) return false;
  out->wanted = socket->arrival;
  out->came_ns = socket->stream->received_ns();
  out->inq = static_cast<int>(socket->stream->readable_bytes());
  if (out->inq == 0 && (socket->stream->ready() & EPOLLRDHUP) != 0) out->inq = 1;
  return true;
}

class ControlWriter {
 public:
  explicit ControlWriter(msghdr* header) noexcept : header_(header), left_(header->msg_controllen) {}

  // put_cmsg(). 0 or -EFAULT.
  long put(int level, int type, const void* data, size_t bytes) noexcept {
    if (header_->msg_control == nullptr || left_ < sizeof(cmsghdr)) {
      header_->msg_flags |= MSG_CTRUNC;
      return 0;
    }
    cmsghdr head{};
    head.cmsg_level = level;
    head.cmsg_type = type;
    head.cmsg_len = CMSG_LEN(bytes);
    if (left_ < head.cmsg_len) {
      header_->msg_flags |= MSG_CTRUNC;
      head.cmsg_len = left_;
    }
    char* const at = static_cast<char*>(header_->msg_control) + used_;
    if (long error = copy_out(at, &head, sizeof head); error != 0) return error;
    if (long error = copy_out(at + sizeof head, data, head.cmsg_len - sizeof head); error != 0) return error;
    const size_t space = left_ < CMSG_SPACE(bytes) ? left_ : CMSG_SPACE(bytes);
    used_ += space;
    left_ -= space;
    return 0;
  }
  [[nodiscard]] size_t used() const noexcept { return used_; }

 private:
  msghdr* header_;
  size_t left_;
  size_t used_ = 0;
};

// The wall clock's time of an instant of the monotonic clock.
timespec wall_time(uint64_t monotonic_ns) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const uint64_t wall_ns = static_cast<uint64_t>(now.tv_sec) * kSecondNs + static_cast<uint64_t>(now.tv_nsec);
  const uint64_t ago_ns = base::monotonic_ns() - monotonic_ns;
  const uint64_t then_ns = wall_ns - (ago_ns < wall_ns ? ago_ns : 0);
  return {static_cast<time_t>(then_ns / kSecondNs), static_cast<long>(then_ns % kSecondNs)};
}

// The old and the new layouts are one where time_t has 64 bits.
long put_times(const Arrival& arrival, ControlWriter* writer) noexcept {
  const timespec came = wall_time(arrival.came_ns);
  const int type = arrival.wanted.timestamp_type;
  const bool in_ns = type == SO_TIMESTAMPNS_OLD || type == SO_TIMESTAMPNS_NEW;
  const int64_t stamp[2] = {came.tv_sec, in_ns ? came.tv_nsec : came.tv_nsec / 1000};
  long error = type != 0 ? writer->put(SOL_SOCKET, type, stamp, sizeof stamp) : 0;
  if (error != 0 || arrival.wanted.timestamping == 0) return error;
  const timespec stamps[3] = {came, {}, {}};  // software; none; hardware
  return writer->put(SOL_SOCKET, arrival.wanted.timestamping, stamps, sizeof stamps);
}

}  // namespace

long tell_arrival(int fd, long received, msghdr* header) noexcept {
  Arrival arrival;
  if (!look(fd, &arrival)) {
    header->msg_controllen = 0;
    return 0;
  }
  ControlWriter writer(header);
  if (received > 0 && arrival.came_ns != 0) {
    if (long error = put_times(arrival, &writer); error != 0) return error;
  }
  if (arrival.wanted.inq) {
    if (long error = writer.put(IPPROTO_TCP, TCP_CM_INQ, &arrival.inq, sizeof arrival.inq); error != 0) return error;
  }
  header->msg_controllen = writer.used();
  return 0;
}

}  // namespace shim
