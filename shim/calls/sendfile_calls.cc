// sendfile from a file to a stack socket.
// SPDX-License-Identifier: BSD-3-Clause
//
// The file is read at a position into the thread's bounded buffer and written to the stream; only what the stream took
// counts, so offset and file position are exact after a short write.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/stream_io.h"
#include "shim/files/user_memory.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr size_t kMostBytes = 0x7fff'f000;

// Moves up to `wanted` bytes from `in` at *position to the stream. Count or negative errno.
long pump(int out, int in, off_t* position, size_t wanted) noexcept {
  void* buffer = thread_scratch();
  if (buffer == nullptr) return -ENOMEM;
  size_t done = 0;
  while (done < wanted) {
    const size_t left = wanted - done;
    const long got = kernel_call(SYS_pread64, in, as_arg(buffer), static_cast<long>(left < kScratchBytes ? left : kScratchBytes), *position);
    if (got < 0) return done > 0 ? static_cast<long>(done) : got;
    if (got == 0) break;
    const iovec part{buffer, static_cast<size_t>(got)};
    const bool more = done + static_cast<size_t>(got) < wanted && static_cast<size_t>(got) == kScratchBytes;
    const long sent = send_parts(out, &part, 1, more ? MSG_MORE : 0);
    if (sent < 0) return done > 0 ? static_cast<long>(done) : sent;
    *position += sent;
    done += static_cast<size_t>(sent);
    if (sent < got) break;
  }
  return static_cast<long>(done);
}

}  // namespace

long shim_sendfile(const zps_call& call) noexcept {
  const int out = static_cast<int>(call.arg[0]);
  const int in = static_cast<int>(call.arg[1]);
  // From a connection it is a splice() if it goes into a pipe, else refused, by the kernel too.
  if (is_stream(in)) return call.arg[2] == 0 ? splice_to_pipe(in, out, static_cast<size_t>(call.arg[3]), 0) : kPass;
  if (!is_stream(out)) return kPass;
  off_t* user_offset = reinterpret_cast<off_t*>(call.arg[2]);
  size_t wanted = static_cast<size_t>(call.arg[3]);
  if (wanted > kMostBytes) wanted = kMostBytes;
  const long mode = kernel_call(SYS_fcntl, in, F_GETFL);
  if (mode < 0) return mode;
  if ((mode & O_ACCMODE) == O_WRONLY) return -EBADF;
  off_t position;
  if (user_offset != nullptr) {
    if (long error = copy_in(&position, user_offset, sizeof position); error != 0) return error;
    if (position < 0) return -EINVAL;
  } else {
    position = kernel_call(SYS_lseek, in, 0, SEEK_CUR);
    if (position < 0) return -EINVAL;
  }
  const long done = pump(out, in, &position, wanted);
  if (done < 0) return done;
  if (user_offset != nullptr) {
    if (long error = copy_out(user_offset, &position, sizeof position); error != 0) return error;
  } else {
    (void)kernel_call(SYS_lseek, in, position, SEEK_SET);
  }
  return done;
}

}  // namespace shim
