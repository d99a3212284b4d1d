// Control messages of recvmsg() in the program's memory.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>

namespace shim {

class ControlWriter {
 public:
  explicit ControlWriter(msghdr* header) noexcept : header_(header), left_(header->msg_controllen) {}

  // put_cmsg(): what there is no room for is cut, and MSG_CTRUNC says so. 0 or -EFAULT.
  long put(int level, int type, const void* data, size_t bytes) noexcept;
  // When data came, as base::monotonic_ns(): SO_TIMESTAMP or one of its kin, and SO_TIMESTAMPING or its twin; 0: not asked for.
  long put_times(uint64_t came_ns, int timestamp_type, int timestamping) noexcept;
  [[nodiscard]] size_t used() const noexcept { return used_; }

 private:
  msghdr* header_;
  size_t left_;
  size_t used_ = 0;
};

}  // namespace shim
