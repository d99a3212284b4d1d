// Our own descriptors, kept out of the program's sight: numbers the program never gets, the same in every member of a family.
// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel gives the lowest free number and the program counts on that, so what we open is moved to
// high numbers at once, with O_CLOEXEC. The kernel looks at RLIMIT_NOFILE when it hands a number out, not later: both limits are
// raised for the moment of the move, the hard one where that is permitted (CAP_SYS_RESOURCE), and the range begins where the program's
// limit ends.
// Whoever raises that later, or may have very many, is given the numbers around it. Where there is nothing beyond the limit the range is
// the upper end of what it allows, and small if that is little.
#pragma once

#include <cstdint>

namespace base {

// Whether `fd` is one of ours: exactly, because a program with a low limit comes to numbers between ours. Async-signal-safe.
[[nodiscard]] bool is_high_fd(long fd) noexcept;
// The hidden range: where it begins, and how many there may be. Fixed by the first move in a process and inherited by fork; taken anew when
// the limit has been lowered below it.
[[nodiscard]] int fd_floor() noexcept;
[[nodiscard]] int high_fd_count() noexcept;
// The first of ours that is not below `fd`, or UINT_MAX.
[[nodiscard]] unsigned next_high_fd(unsigned fd) noexcept;

// Moves `fd` into the hidden range (the old number is closed) and returns the new one, or a negative errno (fd stays open, or was one
// itself).
[[nodiscard]] int move_fd_high(int fd) noexcept;
// The same, and `fd` stays open.
[[nodiscard]] int copy_fd_high(int fd) noexcept;
// Moves `fd` to exactly `number` of the hidden range (closing what was there): to give another member's descriptor the number it has there.
[[nodiscard]] int move_fd_to(int fd, int number) noexcept;
// Closes what was moved, or might have been. 0 or a negative errno.
long close_high_fd(int fd) noexcept;

// A bit for each number that is ours.
inline constexpr unsigned kHighFdWords = 512;
void list_high_fds(uint64_t (&out)[kHighFdWords]) noexcept;

// Whether all of ours survive an exec. Where it fails they must not do so any longer.
void keep_across_exec(bool keep) noexcept;
// In the next program: the same range, and a number that survived; it does not survive another exec.
void adopt_fd_range(int first, int count) noexcept;
void adopt_high_fd(int fd) noexcept;

// Raises RLIMIT_NOFILE as far as it goes for a scope in which numbers are handed out.
class RaisedFdLimit {
 public:
  RaisedFdLimit() noexcept;
  ~RaisedFdLimit();
  RaisedFdLimit(const RaisedFdLimit&) = delete;
  RaisedFdLimit& operator=(const RaisedFdLimit&) = delete;

 private:
  unsigned long soft_, hard_;
};

}  // namespace base
