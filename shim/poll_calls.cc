// poll, ppoll, select and pselect6.
#include <sys/select.h>

#include <cstring>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/calls.h"
#include "shim/family.h"
#include "shim/poll_files.h"
#include "shim/user_memory.h"
#include "shim/wait.h"

namespace shim {
namespace {

constexpr int kMostInScratch = kScratchBytes / sizeof(pollfd);
constexpr int kOnStack = 64;

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

long do_poll(pollfd* fds, unsigned long count, uint64_t deadline_ns, const void* mask, long mask_bytes) noexcept {
  pollfd on_stack[kOnStack];
  PollRequest request{fds, static_cast<int>(count), on_stack, deadline_ns, mask, mask_bytes};
  if (count + 2 > kOnStack) {
    request.copies = static_cast<pollfd*>(thread_scratch());
    if (request.copies == nullptr || count + 2 > static_cast<unsigned long>(kMostInScratch)) return -ENOMEM;
  }
  return poll_files(request);
}

bool kernel_alone(const pollfd* fds, unsigned long count) noexcept {
  if (the_stack() == nullptr || count > kMaxFd || !plausible(fds, count * sizeof *fds)) return true;
  return !any_ours(fds, static_cast<int>(count));
}

constexpr short kWants[3] = {POLLIN | POLLRDNORM | POLLRDBAND, POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI};
constexpr short kMeans[3] = {POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR, POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR, POLLPRI};

// The three sets of select() as arrays of words.
struct SelectSets {
  unsigned long* user[3];
  int count;  // numbers to look at

  [[nodiscard]] bool has(int set, int fd) const noexcept { return user[set] != nullptr && (user[set][fd / 64] >> (fd % 64) & 1) != 0; }
  [[nodiscard]] short wants(int fd) const noexcept {
    short events = 0;
    for (int set = 0; set < 3; set++) events = static_cast<short>(events | (has(set, fd) ? kWants[set] : 0));
    return events;
  }
  [[nodiscard]] bool plausible_sets() const noexcept {
    for (unsigned long* words : user) {
      if (words != nullptr && !plausible(words, static_cast<size_t>(count + 63) / 64 * 8)) return false;
    }
    return true;
  }
  [[nodiscard]] bool any_of_ours() const noexcept {
    for (int fd = 0; fd < count; fd++) {
      if (wants(fd) != 0 && peek(fd) != nullptr) return true;
    }
    return false;
  }
};

// Writes the answers into the sets. The number of bits, or -EBADF.
long answer(const SelectSets& sets, const pollfd* fds, int count) noexcept {
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
        sets.user[set][fds[i].fd / 64] &= ~(1ul << (fds[i].fd % 64));
      }
    }
  }
  return bits;
}

long do_select(const SelectSets& sets, uint64_t deadline_ns, const void* mask, long mask_bytes) noexcept {
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

bool select_sets(const zps_call& call, SelectSets* sets) noexcept {
  const int count = static_cast<int>(call.arg[0]);
  if (the_stack() == nullptr || count < 0) return false;
  sets->count = count < static_cast<int>(kMaxFd) ? count : static_cast<int>(kMaxFd);
  // Numbers past the table are nobody's of ours.
  for (int set = 0; set < 3; set++) sets->user[set] = reinterpret_cast<unsigned long*>(call.arg[1 + set]);
  return sets->plausible_sets() && sets->any_of_ours();
}

}  // namespace

long shim_poll(const zps_call& call) noexcept {
  pollfd* fds = reinterpret_cast<pollfd*>(call.arg[0]);
  const unsigned long count = static_cast<unsigned>(call.arg[1]);
  if (kernel_alone(fds, count)) return kPass;
  const int timeout_ms = static_cast<int>(call.arg[2]);
  return do_poll(fds, count, timeout_ms < 0 ? kForever : deadline_after(static_cast<uint64_t>(timeout_ms) * 1'000'000u), nullptr, 8);
}

long shim_ppoll(const zps_call& call) noexcept {
  pollfd* fds = reinterpret_cast<pollfd*>(call.arg[0]);
  const unsigned long count = static_cast<unsigned>(call.arg[1]);
  if (kernel_alone(fds, count)) return kPass;
  uint64_t deadline_ns;
  if (long error = read_deadline(reinterpret_cast<void*>(call.arg[2]), &deadline_ns); error != 0) return error;
  const long result = do_poll(fds, count, deadline_ns, reinterpret_cast<void*>(call.arg[3]), call.arg[4]);
  write_remaining(reinterpret_cast<void*>(call.arg[2]), deadline_ns, false);
  return result;
}

long shim_select(const zps_call& call) noexcept {
  SelectSets sets;
  if (!select_sets(call, &sets)) return kPass;
  uint64_t deadline_ns = kForever;
  if (call.arg[4] != 0) {
    timeval time;
    if (long error = copy_in(&time, reinterpret_cast<void*>(call.arg[4]), sizeof time); error != 0) return error;
    if (time.tv_sec < 0 || time.tv_usec < 0) return -EINVAL;
    deadline_ns = deadline_after(time.tv_sec > INT32_MAX ? kForever : static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_usec) * 1000u);
  }
  const long result = do_select(sets, deadline_ns, nullptr, 8);
  write_remaining(reinterpret_cast<void*>(call.arg[4]), deadline_ns, true);
  return result;
}

long shim_pselect6(const zps_call& call) noexcept {
  SelectSets sets;
  if (!select_sets(call, &sets)) return kPass;
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
