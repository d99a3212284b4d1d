// Walks /proc/self/maps, and locks what lies between our ranges.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/locked_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>

#include "base/log.h"
#include "base/syscall.h"
#include "shim/family/own_memory.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

bool is_locked = false;     // it has asked for any of it
bool locks_future = false;  // the program has asked for it; fork() leaves it behind (mm_init_owner(), VM_INIT_DEF_MASK)

// Reads the ranges of /proc/self/maps one by one.
class Maps {
 public:
  Maps() noexcept : fd_(kernel_call(SYS_openat, AT_FDCWD, as_arg("/proc/self/maps"), O_RDONLY | O_CLOEXEC)) {}
  ~Maps() {
    if (fd_ >= 0) (void)kernel_call(SYS_close, fd_);
  }
  Maps(const Maps&) = delete;
  Maps& operator=(const Maps&) = delete;

  // False at the end, and if there is no such file. What lies in the kernel's half ([vsyscall]) is left out.
  [[nodiscard]] bool next(Range* out) noexcept {
    while (true) {
      const bool complete = read_number('-', &out->begin) && read_number(' ', &out->end);
      if (!complete) return false;
      for (int c = next_char(); c >= 0 && c != '\n';) c = next_char();
      if (static_cast<intptr_t>(out->begin) >= 0) return true;
    }
  }

 private:
  int next_char() noexcept {
    if (at_ == length_) {
      length_ = fd_ >= 0 ? kernel_call(SYS_read, fd_, as_arg(text_), sizeof text_) : 0;
      at_ = 0;
      if (length_ <= 0) return length_ = 0, -1;
    }
    return static_cast<unsigned char>(text_[at_++]);
  }
  bool read_number(char end, uintptr_t* out) noexcept {
    *out = 0;
    for (int c = next_char(); c >= 0; c = next_char()) {
      if (c == end) return true;
      *out = *out << 4 | static_cast<uintptr_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return false;
  }

  const long fd_;
  long at_ = 0, length_ = 0;
  char text_[1024];
};

// Calls `use` with each part of what is mapped that is not ours.
template <class Use>
void for_each_of_program(Use use) noexcept {
  Maps maps;
  for (Range all; maps.next(&all);) {
    while (all.begin < all.end) {
      Range part = all;
      uintptr_t next = all.end;
      for (const Range& own : own_memory()) {
        if (own.end <= part.begin || own.begin >= part.end) continue;
        if (own.begin <= part.begin) {
          part.end = part.begin;
          next = own.end;
        } else {
          part.end = next = own.begin;
        }
      }
      if (part.begin < part.end) use(part);
      all.begin = next;
    }
  }
}

bool program_fits() noexcept {
  rlimit limit{};
  if (kernel_call(SYS_prlimit64, 0, RLIMIT_MEMLOCK, 0, as_arg(&limit)) != 0) return false;
  uintptr_t bytes = 0;
  for_each_of_program([&](Range part) { bytes += part.end - part.begin; });
  return bytes > 0 && bytes <= limit.rlim_cur;
}

// Whether what a stack maps can be locked, by limit or by right.
bool has_room() noexcept {
  constexpr long kStackBytes = 384 << 20;
  const long probe = kernel_call(SYS_mmap, 0, kStackBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (probe >= 0 || probe < -4095) (void)kernel_call(SYS_munmap, probe, kStackBytes);
  return probe != -EAGAIN;
}

// What the kernel cannot fill it ignores here too (apply_mlockall_flags()).
void lock_present(long flags) noexcept {
  const long on_fault = (flags & MCL_ONFAULT) != 0 ? MLOCK_ONFAULT : 0;
  for_each_of_program([&](Range part) {
    (void)kernel_call(SYS_mlock2, static_cast<long>(part.begin), static_cast<long>(part.end - part.begin), on_fault);
  });
}

}  // namespace

long lock_all_memory(long flags) noexcept {
  const bool future = (flags & MCL_FUTURE) != 0;
  long result = kernel_call(SYS_mlockall, flags);
  if (result == -ENOMEM && (flags & MCL_CURRENT) != 0 && program_fits()) {
    result = future ? kernel_call(SYS_mlockall, flags & ~long{MCL_CURRENT}) : kernel_call(SYS_munlockall);
    if (result == 0) lock_present(flags);
  }
  if (result == 0) is_locked = true;
  if (result == 0) locks_future = future;
  return result;
}

bool memory_is_locked() noexcept { return is_locked; }

long unlock_all_memory() noexcept {
  is_locked = locks_future = false;
  return kernel_call(SYS_munlockall);
}

void forget_locked_memory() noexcept {
  if (is_locked) is_locked = locks_future = false;
}

void leave_future_unlocked() noexcept {
  if (!locks_future || has_room()) return;
  locks_future = false;
  (void)kernel_call(SYS_munlockall);
  lock_present(MCL_ONFAULT);
  base::log(base::LogLevel::warn, "the stack's memory is more than RLIMIT_MEMLOCK: what is mapped from now on is not locked");
}

}  // namespace shim
