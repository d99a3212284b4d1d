// poll, ppoll, select and pselect6.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/select.h>

#include <cstring>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim/files/poll_files.h"
#include "shim/files/user_memory.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

constexpr int kMostInScratch = kScratchBytes / sizeof(pollfd);
constexpr int kFew = 64;

uint64_t in_ns(const timespec& time) noexcept {
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

// Reads a timespec (null: forever) into a deadline. 0, -EFAULT or -EINVAL.
long read_deadline(const void* user, uint64_t* out) noexcept {
  *out = kForever;
  if (user == nullptr) return 0;
  timespec time;
  if (long error = copy_in(&time, user, sizeof time); error != 0) return error;
  if (time.tv_sec < 0 || time.tv_nsec < 0 || time.tv_nsec >= 1'000'000'000) return -EINVAL;
  *out = deadline_after(time.tv_sec > INT32_MAX ? kForever : in_ns(time));
  return 0;
}

// What is left until a deadline, written back as Linux does for ppoll, select and pselect6.
void write_remaining(void* user, uint64_t deadline_ns, bool microseconds) noexcept {
  if (user == nullptr || deadline_ns == kForever) return;
  const uint64_t now = base::monotonic_ns();
  const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
  const long parts[2] = {static_cast<long>(left / 1'000'000'000u), static_cast<long>(left % 1'000'000'000u / (microseconds ? 1000 : 1))};
  (void)copy_out(user, parts, sizeof parts);
}

// Runs a poll() over a copy of the program's array; kPass if it names nothing of ours.
long do_poll(const zps_call& call, uint64_t deadline_ns, const void* mask, long mask_bytes) noexcept {
  pollfd* user = reinterpret_cast<pollfd*>(call.arg[0]);
  const unsigned long count = static_cast<unsigned>(call.arg[1]);
  if (the_stack() == nullptr || count > kMaxFd) return kPass;
  pollfd few[2 * kFew];
  pollfd* fds = few;
  int room = kFew;
  if (count + kOwnFds > kFew) {
    fds = static_cast<pollfd*>(thread_scratch());
    room = kMostInScratch / 2;
    if (fds == nullptr || count + kOwnFds > static_cast<unsigned long>(room)) return -ENOMEM;
  }
  if (copy_in(fds, user, count * sizeof *fds) != 0) return -EFAULT;
  if (!any_ours(fds, static_cast<int>(count))) return kPass;
  const long result = poll_files({fds, static_cast<int>(count), fds + room, deadline_ns, mask, mask_bytes});
  if (result < 0) return result;
  for (unsigned long i = 0; i < count; i++) {
    if (copy_out(&user[i].revents, &fds[i].revents, sizeof fds[i].revents) != 0) return -EFAULT;
  }
  return result;
}

constexpr short kWants[3] = {POLLIN | POLLRDNORM | POLLRDBAND, POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI};
constexpr short kMeans[3] = {POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR, POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR, POLLPRI};

constexpr int kMostSelected = 4096;

// Copies of the three sets of select().
struct SelectSets {
  unsigned long* user[3];
  int count;  // numbers to look at
  unsigned long words[3][kMostSelected / 64];

  [[nodiscard]] size_t bytes() const noexcept { return static_cast<size_t>(count + 63) / 64 * 8; }
  [[nodiscard]] bool has(int set, int fd) const noexcept { return user[set] != nullptr && (words[set][fd / 64] >> (fd % 64) & 1) != 0; }
  [[nodiscard]] short wants(int fd) const noexcept {
    short events = 0;
    for (int set = 0; set < 3; set++) events = static_cast<short>(events | (has(set, fd) ? kWants[set] : 0));
    return events;
  }
  [[nodiscard]] bool any_of_ours() const noexcept {
    for (int fd = 0; fd < count; fd++) {
      if (wants(fd) != 0 && peek(fd) != nullptr) return true;
    }
    return false;
  }
  // 0 or -EFAULT.
  [[nodiscard]] long load(const zps_call& call) noexcept {
    for (int set = 0; set < 3; set++) {
      user[set] = reinterpret_cast<unsigned long*>(call.arg[1 + set]);
      if (user[set] != nullptr && copy_in(words[set], user[set], bytes()) != 0) return -EFAULT;
    }
    return 0;
  }
  [[nodiscard]] long store() const noexcept {
    for (int set = 0; set < 3; set++) {
      if (user[set] != nullptr && copy_out(user[set], words[set], bytes()) != 0) return -EFAULT;
    }
    return 0;
  }
};

// Writes the answers into the sets. The number of bits, -EBADF or -EFAULT.
long answer(SelectSets& sets, const pollfd* fds, int count) noexcept {
  for (int i = 0; i < count; i++) {
    if ((fds[i].revents & POLLNVAL) != 0) return -EBADF;
  }
  long bits = 0;
  for (int i = 0; i < count; i++) {
    for (int set = 0; set < 3; set++) {
      if (!sets.has(set, fds[i].fd)) continue;
      if ((fds[i].revents & kMeans[set]) != 0) {
        bits++;
      } else {
        sets.words[set][fds[i].fd / 64] &= ~(1ul << (fds[i].fd % 64));
      }
    }
  }
  const long stored = sets.store();
  return stored != 0 ? stored : bits;
}

long do_select(SelectSets& sets, uint64_t deadline_ns, const void* mask, long mask_bytes) noexcept {
  pollfd* fds = static_cast<pollfd*>(thread_scratch());
  if (fds == nullptr) return -ENOMEM;
  int count = 0;
  for (int fd = 0; fd < sets.count; fd++) {
    const short events = sets.wants(fd);
    if (events == 0) continue;
    if (count == kMostInScratch / 2 - 2) return -ENOMEM;
    fds[count++] = {fd, events, 0};
  }
  const PollRequest request{fds, count, fds + kMostInScratch / 2, deadline_ns, mask, mask_bytes};
  const long result = poll_files(request);
  return result < 0 ? result : answer(sets, fds, count);
}

// Loads the sets of a select() that is ours; kPass if it is the kernel's alone, 0 otherwise or a negative errno. Programs that
// select over more than kMostSelected numbers are left to the kernel.
long load_sets(const zps_call& call, SelectSets* sets) noexcept {
  const int count = static_cast<int>(call.arg[0]);
  if (the_stack() == nullptr || count < 0 || count > kMostSelected) return kPass;
  sets->count = count;
  if (sets->load(call) != 0) return -EFAULT;
  return sets->any_of_ours() ? 0 : kPass;
}

}  // namespace

long shim_poll(const zps_call& call) noexcept {
  const int timeout_ms = static_cast<int>(call.arg[2]);
  return do_poll(call, timeout_ms < 0 ? kForever : deadline_after(static_cast<uint64_t>(timeout_ms) * 1'000'000u), nullptr, 8);
}

long shim_ppoll(const zps_call& call) noexcept {
  uint64_t deadline_ns;
  if (long error = read_deadline(reinterpret_cast<void*>(call.arg[2]), &deadline_ns); error != 0) return error;
  const long result = do_poll(call, deadline_ns, reinterpret_cast<void*>(call.arg[3]), call.arg[4]);
  if (result != kPass) write_remaining(reinterpret_cast<void*>(call.arg[2]), deadline_ns, false);
  return result;
}

long shim_select(const zps_call& call) noexcept {
  SelectSets sets;
  if (const long loaded = load_sets(call, &sets); loaded != 0) return loaded;
  uint64_t deadline_ns = kForever;
  if (call.arg[4] != 0) {
    timeval time;
    if (long error = copy_in(&time, reinterpret_cast<void*>(call.arg[4]), sizeof time); error != 0) return error;
    if (time.tv_sec < 0 || time.tv_usec < 0) return -EINVAL;
    deadline_ns = deadline_after(time.tv_sec > INT32_MAX
                                     ? kForever
                                     : static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_usec) * 1000u);
  }
  const long result = do_select(sets, deadline_ns, nullptr, 8);
  write_remaining(reinterpret_cast<void*>(call.arg[4]), deadline_ns, true);
  return result;
}

long shim_pselect6(const zps_call& call) noexcept {
  SelectSets sets;
  if (const long loaded = load_sets(call, &sets); loaded != 0) return loaded;
  uint64_t deadline_ns;
  if (long error = read_deadline(reinterpret_cast<void*>(call.arg[4]), &deadline_ns); error != 0) return error;
  struct {
    const void* mask;
    long bytes;
  } mask{nullptr, 8};
  if (call.arg[5] != 0) {
    if (long error = copy_in(&mask, reinterpret_cast<void*>(call.arg[5]), sizeof mask); error != 0) return error;
  }
  const long result = do_select(sets, deadline_ns, mask.mask, mask.bytes);
  write_remaining(reinterpret_cast<void*>(call.arg[4]), deadline_ns, false);
  return result;
}

}  // namespace shim
