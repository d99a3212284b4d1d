// Moves descriptors into the hidden range.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/high_fd.h"

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <fcntl.h>
#include <sys/resource.h>

#include "base/syscall.h"

namespace base {
namespace {

// Each fork copies the table of descriptors up to the highest, 8 bytes a number, and looks at each: with one at 32767 that takes as long as
// an eighth of the fork of a server of some megabytes. So the range begins where the program may not come unless it raises its limit, and
// for who may have so many numbers that some hundred are not missed, low among them.
constexpr unsigned long kCeiling = 32768;
constexpr unsigned long kLeastFloor = 1024;   // whoever has less often asks for so many
constexpr unsigned long kRoomyLimit = 16384;
constexpr unsigned long kRoomyFloor = 4096;
constexpr unsigned long kMostHidden = 1024;
constexpr unsigned long kLeastHidden = 64;

struct HiddenRange {
  int first, count;
};
HiddenRange range{0, 0};

// A bit for each number that is ours.
std::atomic<uint64_t> ours[kHighFdWords];
static_assert(kHighFdWords == kCeiling / 64);

void mark(int fd) noexcept { ours[fd / 64].fetch_or(uint64_t{1} << fd % 64, std::memory_order_relaxed); }
void unmark(int fd) noexcept { ours[fd / 64].fetch_and(~(uint64_t{1} << fd % 64), std::memory_order_relaxed); }

rlimit limit_now() noexcept {
  rlimit now{};
  (void)kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, as_arg(&now));
  return now;
}

long set_limit(const rlimit& wanted) noexcept { return kernel_call(SYS_prlimit64, 0, RLIMIT_NOFILE, as_arg(&wanted), 0); }

// An eighth of what there is, as little as it takes or as much as is of use; half of it where that is very little.
HiddenRange range_below(unsigned long end) noexcept {
  if (end > kCeiling) end = kCeiling;
  unsigned long count = end / 8;
  if (count > kMostHidden) count = kMostHidden;
  if (count < kLeastHidden) count = kLeastHidden < end / 2 ? kLeastHidden : end / 2;
  return {static_cast<int>(end - count), static_cast<int>(count)};
}

// For a program with this limit, where `end` is what we may use.
HiddenRange range_beyond(unsigned long limit, unsigned long end) noexcept {
  const unsigned long floor = limit >= kRoomyLimit ? kRoomyFloor : limit > kLeastFloor ? limit : kLeastFloor;
  return floor + kMostHidden <= end ? HiddenRange{static_cast<int>(floor), static_cast<int>(kMostHidden)} : range_below(end);
}

const HiddenRange& hidden_range() noexcept {
  if (range.count == 0) {
    const unsigned long limit = limit_now().rlim_cur;
    const RaisedFdLimit raised;
    range = range_beyond(limit, limit_now().rlim_max);
  }
  return range;
}

long move_above(int fd, int floor) noexcept {
  const long moved = kernel_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, floor);
  if (moved >= 0) return moved;
  const RaisedFdLimit raised;
  return kernel_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, floor);
}

}  // namespace

RaisedFdLimit::RaisedFdLimit() noexcept {
  const rlimit old = limit_now();
  soft_ = old.rlim_cur;
  hard_ = old.rlim_max;
  const unsigned long most = hard_ > kCeiling ? hard_ : kCeiling;
  if (set_limit({most, most}) != 0) (void)set_limit({hard_, hard_});
}

RaisedFdLimit::~RaisedFdLimit() { (void)set_limit({soft_, hard_}); }

int fd_floor() noexcept { return hidden_range().first; }
int high_fd_count() noexcept { return hidden_range().count; }

bool is_high_fd(long fd) noexcept {
  return fd >= 0 && static_cast<unsigned long>(fd) < kCeiling && (ours[fd / 64].load(std::memory_order_relaxed) >> fd % 64 & 1) != 0;
}

unsigned next_high_fd(unsigned fd) noexcept {
  for (; fd < kCeiling; fd = (fd / 64 + 1) * 64) {
    const uint64_t bits = ours[fd / 64].load(std::memory_order_relaxed) >> fd % 64;
    if (bits != 0) return fd + static_cast<unsigned>(__builtin_ctzll(bits));
  }
  return UINT_MAX;
}

int copy_fd_high(int fd) noexcept {
  long moved = move_above(fd, fd_floor());
  if (moved == -EINVAL && limit_now().rlim_max <= static_cast<unsigned long>(fd_floor())) {
    range = range_below(limit_now().rlim_max);  // what lies above stays open, and out of reach
    moved = move_above(fd, range.first);
  }
  if (moved < 0) return static_cast<int>(moved);
  if (moved < static_cast<long>(kCeiling)) mark(static_cast<int>(moved));
  return static_cast<int>(moved);
}

int move_fd_high(int fd) noexcept {
  if (fd < 0) return fd;
  const int moved = copy_fd_high(fd);
  if (moved >= 0) (void)kernel_call(SYS_close, fd);
  return moved;
}

int move_fd_to(int fd, int number) noexcept {
  long moved;
  {
    const RaisedFdLimit raised;
    moved = kernel_call(SYS_dup3, fd, number, O_CLOEXEC);
  }
  if (moved < 0) return static_cast<int>(moved);
  (void)kernel_call(SYS_close, fd);
  return static_cast<int>(moved);
}

void keep_across_exec(bool keep) noexcept {
  for (unsigned word = 0; word < kHighFdWords; word++) {
    for (uint64_t bits = ours[word].load(std::memory_order_relaxed); bits != 0; bits &= bits - 1)
      (void)kernel_call(SYS_fcntl, word * 64 + static_cast<unsigned>(__builtin_ctzll(bits)), F_SETFD, keep ? 0 : FD_CLOEXEC);
  }
}

void list_high_fds(uint64_t (&out)[kHighFdWords]) noexcept {
  for (unsigned word = 0; word < kHighFdWords; word++) out[word] = ours[word].load(std::memory_order_relaxed);
}

void adopt_fd_range(int first, int count) noexcept { range = {first, count}; }

void adopt_high_fd(int fd) noexcept {
  (void)kernel_call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
  if (fd >= 0 && static_cast<unsigned long>(fd) < kCeiling) mark(fd);
}

// Unmarked first: the number may be the program's as soon as it is closed.
long close_high_fd(int fd) noexcept {
  if (is_high_fd(fd)) unmark(fd);
  return kernel_call(SYS_close, fd);
}

}  // namespace base
