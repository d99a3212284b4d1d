// put_cmsg(), and the times of arrival.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/control_writer.h"

#include <time.h>

#include "base/clock.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

// The wall clock's time of an instant of the monotonic clock.
timespec wall_time(uint64_t monotonic_ns) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const uint64_t wall_ns = static_cast<uint64_t>(now.tv_sec) * kSecondNs + static_cast<uint64_t>(now.tv_nsec);
  const uint64_t ago_ns = base::monotonic_ns() - monotonic_ns;
  const uint64_t then_ns = wall_ns - (ago_ns < wall_ns ? ago_ns : 0);
  return {static_cast<time_t>(then_ns / kSecondNs), static_cast<long>(then_ns % kSecondNs)};
}

}  // namespace

long ControlWriter::put(int level, int type, const void* data, size_t bytes) noexcept {
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

// The old and the new layouts are one where time_t has 64 bits.
long ControlWriter::put_times(uint64_t came_ns, int timestamp_type, int timestamping) noexcept {
  if (timestamp_type == 0 && timestamping == 0) return 0;
  const timespec came = wall_time(came_ns);
  const bool in_ns = timestamp_type == SO_TIMESTAMPNS_OLD || timestamp_type == SO_TIMESTAMPNS_NEW;
  const int64_t stamp[2] = {came.tv_sec, in_ns ? came.tv_nsec : came.tv_nsec / 1000};
  long error = timestamp_type != 0 ? put(SOL_SOCKET, timestamp_type, stamp, sizeof stamp) : 0;
  if (error != 0 || timestamping == 0) return error;
  const timespec stamps[3] = {came, {}, {}};  // software; none; hardware
  return put(SOL_SOCKET, timestamping, stamps, sizeof stamps);
}

}  // namespace shim
