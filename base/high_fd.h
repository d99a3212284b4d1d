// Our own descriptors, kept out of the program's sight: numbers the program never gets, the same in every member of a family.
//
// The kernel gives the lowest free number and the program counts on that, so what we open is moved to
// high numbers at once, with O_CLOEXEC. The range lies under the hard limit of RLIMIT_NOFILE; the soft limit is
// raised for the moment of the move only (the kernel looks at it when it hands a number out, not later).
#pragma once

namespace base {

// The lowest number of the hidden range (kHighFdCount numbers long). Fixed by the first call in a process and inherited by fork.
inline constexpr int kHighFdCount = 1024;
[[nodiscard]] int fd_floor() noexcept;
[[nodiscard]] inline bool is_high_fd(long fd) noexcept { return fd >= fd_floor() && fd < fd_floor() + kHighFdCount; }

// Moves `fd` into the hidden range (the old number is closed) and returns the new one, or a negative errno (fd stays open).
[[nodiscard]] int move_fd_high(int fd) noexcept;
// Moves `fd` to exactly `number` of the hidden range (closing what was there): to give another member's descriptor the number it has there.
[[nodiscard]] int move_fd_to(int fd, int number) noexcept;

}  // namespace base
