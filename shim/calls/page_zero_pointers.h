// Pointers into page 0, which is mapped while the hook's trampoline lies there: for the kernel they must stay what they are for the program, bad.
// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel would read the sled where natively it finds nothing: write(fd, NULL, 16) would write sixteen bytes of it. So before anything else
// such pointers are moved up by a page, to memory that nobody has mapped either: whoever follows them, here or in the kernel, finds the same fault
// at the same point, after the checks that come before it. NULL itself means "none" for some arguments and stays.
//
// Known limits: calls that the hook does not claim (open, stat, pread64 ...) go to the kernel as they are; so do fcntl and ioctl, and pointers inside
// structures, but for the parts of an iovec array.
#pragma once

#include <cstdint>

#include "zpoline/hook.h"

namespace shim {

inline constexpr uint64_t kPageZeroEnd = 4096;

struct SyscallRow;

// Page 0 is the trampoline's: notes what this call's arguments are. At start, for each row of the table.
void note_pointers(const SyscallRow& row) noexcept;
// Whether any was noted.
[[nodiscard]] bool page_zero_is_hooks() noexcept;

// By call number, a bit per argument: those that are pointers, and those of them that are always followed.
struct PointerArguments {
  uint8_t all, followed;
  uint8_t lone;  // the one that alone is a pointer, as those of reads, writes and epoll_ctl() are, counted from 1; 0: none; else kSeveral
};
inline constexpr uint8_t kSeveral = 7;
extern PointerArguments pointer_arguments[ZPS_NR_COUNT];

// Moves what the call points to out of page 0. Uses no vector register; costs a load and a comparison per pointer.
inline void move_out_of_page_zero(zps_call* call) noexcept {
  const PointerArguments& pointers = pointer_arguments[call->nr];
  if (pointers.lone == 0 || (pointers.lone != kSeveral && static_cast<uint64_t>(call->arg[pointers.lone - 1]) >= kPageZeroEnd)) [[likely]] return;
  for (unsigned left = pointers.all; left != 0; left &= left - 1) {
    const int i = __builtin_ctz(left);
    const auto address = static_cast<uint64_t>(call->arg[i]);
    if (address >= kPageZeroEnd || (address == 0 && (pointers.followed >> i & 1) == 0)) [[likely]] continue;
    call->arg[i] = static_cast<int64_t>(address + kPageZeroEnd);
  }
}

// For the calls with an array of parts: true if one of `count` parts is in page 0 and not empty. An array that cannot be read is the kernel's to refuse.
[[nodiscard]] bool has_part_in_page_zero(int64_t parts, int64_t count) noexcept;

}  // namespace shim
