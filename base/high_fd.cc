// Moves descriptors into the hidden range.
#include "base/high_fd.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/resource.h>

#include "base/syscall.h"

namespace base {
namespace {

int floor_fd = 0;

// Runs `move` with the soft limit at the hard one, and puts the soft limit back.
template <class F>
long with_raised_limit(F move) noexcept {
  rlimit old{};
  (void)kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, as_arg(&old));
  rlimit raised = old;
  raised.rlim_cur = raised.rlim_max;
  (void)kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, as_arg(&raised), 0);
  const long result = move();
  (void)kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, as_arg(&old), 0);
  return result;
}

}  // namespace

// A high number costs kernel memory (8 bytes a slot, copied by fork), so the range is at the end of 32 Ki slots at most.
int fd_floor() noexcept {
  if (floor_fd == 0) {
    rlimit limit{};
    (void)kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, as_arg(&limit));
    constexpr unsigned long kCeiling = 32768;
    const unsigned long end = limit.rlim_max < kCeiling ? limit.rlim_max : kCeiling;
    floor_fd = end > 2 * kHighFdCount ? static_cast<int>(end) - kHighFdCount : static_cast<int>(end / 2);
  }
  return floor_fd;
}

int move_fd_high(int fd) noexcept {
  const long moved = with_raised_limit([&] { return kernel_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd_floor()); });
  if (moved < 0) return static_cast<int>(moved);
  (void)kernel_call(SYS_close, fd);
  return static_cast<int>(moved);
}

int move_fd_to(int fd, int number) noexcept {
  const long moved = with_raised_limit([&] { return kernel_call(SYS_dup3, fd, number, O_CLOEXEC); });
  if (moved < 0) return static_cast<int>(moved);
  (void)kernel_call(SYS_close, fd);
  return static_cast<int>(moved);
}

}  // namespace base
