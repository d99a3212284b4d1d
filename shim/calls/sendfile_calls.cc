// sendfile from a file to a stack socket.
// SPDX-License-Identifier: BSD-3-Clause
//
// What the page cache has is read to where the stream keeps it until it is acknowledged: copied once, with the lock held, by reads that do
// not wait (RWF_NOWAIT). What has to be waited for, and what such a read refuses (files that have none, O_DIRECT), is read into the
// thread's bounded buffer without the lock, and written to the stream. Either way only what the stream took counts, so offset and file
// position are exact after a short write.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/permitted.h"
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

// What the page cache has of a file from a position on, which moves with what was taken.
class CachedFile final : public netstack::ByteSource {
 public:
  CachedFile(int fd, off_t* position) noexcept : fd_(fd), position_(position) {}
  long take(void* to, size_t bytes) noexcept override {
    const iovec part{to, bytes};
    const long got = kernel_call(SYS_preadv2, fd_, as_arg(&part), 1, *position_, 0, RWF_NOWAIT);
    if (got > 0) *position_ += got;
    last_ = got;
    return got;
  }
  // Why it has no more, but for the file's end; 0 if it has.
  [[nodiscard]] long error() const noexcept { return last_ < 0 ? last_ : 0; }

 private:
  const int fd_;
  off_t* const position_;
  long last_ = 0;
};

// Moves one piece of up to `wanted` bytes that may have to be waited for. *more: there may be more. Count or negative errno.
long pump_piece(int out, int in, off_t* position, size_t wanted, bool* more) noexcept {
  void* buffer = thread_scratch();
  if (buffer == nullptr) return -ENOMEM;
  const long got =
      kernel_call(SYS_pread64, in, as_arg(buffer), static_cast<long>(wanted < kScratchBytes ? wanted : kScratchBytes), *position);
  *more = false;
  if (got <= 0) return got;
  const iovec part{buffer, static_cast<size_t>(got)};
  const bool is_full = static_cast<size_t>(got) < wanted && static_cast<size_t>(got) == kScratchBytes;
  const long sent = send_parts(out, &part, 1, is_full ? MSG_MORE : 0);
  if (sent > 0) *position += sent;
  *more = sent == got;
  return sent;
}

// Moves up to `wanted` bytes from `in` at *position to the stream. Count or negative errno.
long pump(int out, int in, off_t* position, size_t wanted) noexcept {
  size_t done = 0;
  bool has_cache = base::may_call(SYS_preadv2);
  for (bool more = true; more && done < wanted;) {
    CachedFile file(in, position);
    long moved = has_cache ? send_from(out, file, wanted - done) : 0;
    if (moved >= 0 && (!has_cache || file.error() != 0)) {
      done += static_cast<size_t>(moved);
      has_cache = file.error() == -EAGAIN;
      moved = pump_piece(out, in, position, wanted - done, &more);
    } else {
      more = false;
    }
    if (moved < 0) return done > 0 ? static_cast<long>(done) : moved;
    done += static_cast<size_t>(moved);
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
