// The thread pointers and the name of a static program, as it asks for them.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/static_calls.h"

#include <cerrno>
#include <cstring>

#include "base/syscall.h"
#include "zpoline/life/copy.h"
#include "zpoline/life/static_program.h"
#include "zpoline/life/thread_pointer.h"

namespace zpoline {

int64_t program_arch_prctl(zps_call* call) noexcept {
  constexpr int64_t kSetGs = 0x1001, kSetFs = 0x1002, kGetFs = 0x1003, kGetGs = 0x1004;
  constexpr uint64_t kEnd = (uint64_t{1} << 47) - 4096;
  const auto wanted = static_cast<uint64_t>(call->arg[1]);
  const uint64_t fs = program_pointer(), none = 0;
  if (call->arg[0] == kSetFs && wanted < kEnd) set_program_pointer(wanted);
  if (call->arg[0] == kSetFs) return wanted < kEnd ? 0 : -EPERM;
  if (call->arg[0] == kSetGs) return wanted == 0 ? 0 : -EPERM;
  if (call->arg[0] == kGetFs || call->arg[0] == kGetGs) {
    return copy_out(wanted, call->arg[0] == kGetFs ? &fs : &none, sizeof fs) ? 0 : -EFAULT;
  }
  return ZPS_PASS;
}

int64_t program_readlink(zps_call* call) noexcept {
  constexpr char kExe[] = "/proc/self/exe";
  const int64_t* const arg = call->nr == SYS_readlinkat ? call->arg + 1 : call->arg;
  char path[sizeof kExe];
  const char* const program = static_program_path();
  if (program == nullptr || !copy_in(path, static_cast<uint64_t>(arg[0]), sizeof path) || memcmp(path, kExe, sizeof path) != 0)
    return ZPS_PASS;
  if (static_cast<int>(arg[2]) <= 0) return -EINVAL;
  const auto room = static_cast<size_t>(static_cast<int>(arg[2])), length = strlen(program);
  const size_t bytes = length < room ? length : room;
  return copy_out(static_cast<uint64_t>(arg[1]), program, bytes) ? static_cast<int64_t>(bytes) : -EFAULT;
}

}  // namespace zpoline
