// The keeper's birth and its whole life; see keeper.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/keeper.h"

#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/permitted.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/family_memory.h"
#include "shim/family/process.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr char kName[] = "zpstack-keeper";
constexpr uint64_t kAllSignals = ~uint64_t{0};

// Of the process that made it. A child of a fork has the pipe too, and is no parent of the keeper.
long keeper_pid = 0;
int pipe_of_members = -1;

// All but our own, and of those what ends with the program: its end of the pipe, the names of the wire and
// of the family, a request of the processors.
void close_descriptors(int pipe_end) noexcept {
  for (const int fd : {pipe_end, the_stack()->wire().facts().name_fd, family->processors.request_fd, family->network_fd}) {
    if (fd >= 0) (void)base::close_high_fd(fd);
  }
  for (unsigned from = 0; from != UINT_MAX;) {
    const unsigned next = base::next_high_fd(from);
    if (next > from) (void)kernel_call(SYS_close_range, from, next == UINT_MAX ? UINT_MAX : next - 1, 0);
    from = next == UINT_MAX ? next : next + 1;
  }
}

void give_up_rights() noexcept {
  (void)kernel_call(SYS_prctl, PR_SET_DUMPABLE, 0);
  (void)kernel_call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[2]{};
  (void)kernel_call(SYS_capset, as_arg(&header), as_arg(none));
}

// The place of the arguments, which is what others see as the command: fields 48 and 49 of proc(5)'s stat.
void rename_command() noexcept {
  char text[1024];
  const long fd = kernel_call(SYS_open, as_arg("/proc/self/stat"), O_RDONLY | O_CLOEXEC);
  const long length = fd < 0 ? -1 : kernel_call(SYS_read, fd, as_arg(text), sizeof text - 1);
  if (fd >= 0) (void)kernel_call(SYS_close, fd);
  if (length <= 0) return;
  text[length] = '\0';
  const char* at = strrchr(text, ')');
  for (int field = 2; at != nullptr && field < 48; field++) at = strchr(at + 1, ' ');
  if (at == nullptr) return;
  char* next;
  char* const begin = reinterpret_cast<char*>(strtoul(at, &next, 10));
  char* const end = reinterpret_cast<char*>(strtoul(next, nullptr, 10));
  if (begin == nullptr || end < begin + sizeof kName) return;
  memset(begin, 0, static_cast<size_t>(end - begin));
  memcpy(begin, kName, sizeof kName);
}

// What the program closes is closed, and gone from the kernel's epoll sets, only when the keeper has no copy of it any more.
void wait_until_apart() noexcept {
  constexpr timespec kAtMost{1, 0};
  (void)kernel_call(SYS_futex, as_arg(&family->keeper_apart), FUTEX_WAIT, 0, as_arg(&kAtMost));
}

void be_apart() noexcept {
  family->keeper_apart.store(1);
  (void)kernel_call(SYS_futex, as_arg(&family->keeper_apart), FUTEX_WAKE, 1);
}

[[noreturn]] void keep(int pipe_begin, int pipe_end) noexcept {
  close_descriptors(pipe_end);
  be_apart();
  (void)kernel_call(SYS_setsid);
  (void)kernel_call(SYS_chdir, as_arg("/"));
  (void)kernel_call(SYS_prctl, PR_SET_NAME, as_arg(kName));
  rename_command();
  give_up_rights();
  char nothing;
  while (kernel_call(SYS_read, pipe_begin, as_arg(&nothing), sizeof nothing) > 0) continue;
  settle_for_the_dead();
  for (;;) (void)kernel_call(SYS_exit_group, 0);
}

}  // namespace

void start_keeper() noexcept {
  int ends[2];
  if (kernel_call(SYS_pipe2, as_arg(ends), O_CLOEXEC) != 0) return;
  const int begin = base::move_fd_high(ends[0]), end = base::move_fd_high(ends[1]);
  if (begin < 0) (void)kernel_call(SYS_close, ends[0]);
  if (end < 0) (void)kernel_call(SYS_close, ends[1]);
  uint64_t before = 0;
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&kAllSignals), as_arg(&before), sizeof before);
  const long pid = begin < 0 || end < 0 || !map_what_may_come() ? -1 : kernel_call(SYS_clone, 0, 0, 0, 0, 0);
  if (pid == 0) keep(begin, end);
  unmap_what_may_come();
  if (pid > 0) wait_until_apart();
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&before), 0, sizeof before);
  if (begin >= 0) (void)base::close_high_fd(begin);
  pipe_of_members = end;
  keeper_pid = pid;
  if (pid > 0) return;
  end_keeper();
  base::log(base::LogLevel::info, "no process to tell the peers if this one is killed: they will not be told");
}

// Nobody else has the end that it reads.
void look_after_keeper() noexcept {
  constexpr uint32_t kMissed = 2;
  if (pipe_of_members < 0 || family->keeper_apart.load(std::memory_order_relaxed) == kMissed || !base::may_call(SYS_ppoll)) return;
  pollfd pipe{pipe_of_members, 0, 0};
  constexpr timespec kAtOnce{};
  if (kernel_call(SYS_ppoll, as_arg(&pipe), 1, as_arg(&kAtOnce), 0, 8) <= 0 || (pipe.revents & POLLERR) == 0) return;
  if (family->keeper_apart.exchange(kMissed) == kMissed) return;
  base::log(base::LogLevel::warn, "the process that tells the peers is gone: if this one is killed they will not be told");
}

KeeperOf keeper() noexcept { return {keeper_pid, pipe_of_members}; }

void adopt_keeper(const KeeperOf& of) noexcept {
  keeper_pid = of.pid;
  pipe_of_members = of.pipe;
}

void end_keeper() noexcept {
  constexpr int kMostLooks = 100;
  constexpr timespec kBetween{0, 100'000};
  if (pipe_of_members >= 0) (void)base::close_high_fd(pipe_of_members);
  pipe_of_members = -1;
  if (keeper_pid <= 0) return;
  for (int i = 0; i < kMostLooks && kernel_call(SYS_wait4, keeper_pid, 0, WNOHANG | __WALL, 0) == 0; i++) {
    (void)kernel_call(SYS_nanosleep, as_arg(&kBetween), 0);
  }
}

}  // namespace shim
