// The ring, and sending.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/async_signals.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <csignal>

#include "base/syscall.h"
#include "shim/family/family.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

// fs/fcntl.c: band_table.
constexpr long kBands[] = {POLLIN | POLLRDNORM,           POLLOUT | POLLWRNORM | POLLWRBAND,
                           POLLIN | POLLRDNORM | POLLMSG, POLLERR,
                           POLLPRI | POLLRDBAND,          POLLHUP | POLLERR};

int own_pid() noexcept { return static_cast<int>(kernel_call(SYS_getpid)); }

// The effective user of another process, as its folder in /proc tells; -1 if there is none.
int64_t user_of(int32_t id) noexcept {
  char path[24] = "/proc/";
  char digits[12];
  int count = 0;
  for (uint32_t rest = static_cast<uint32_t>(id); rest != 0; rest /= 10) digits[count++] = static_cast<char>('0' + rest % 10);
  for (int i = 0; i < count; i++) path[6 + i] = digits[count - 1 - i];
  struct stat status{};
  return kernel_call(SYS_newfstatat, AT_FDCWD, as_arg(path), as_arg(&status), 0) == 0 ? int64_t{status.st_uid} : -1;
}

// The kernel judges by who sends: that is enough if he is who has set the owner, or that was root.
bool may_signal(const SignalOwner& owner) noexcept {
  if (owner.euid == 0 || kernel_call(SYS_geteuid) == long{owner.euid}) return true;
  if (owner.type != F_OWNER_PID || owner.id != own_pid()) {
    const int64_t user = user_of(owner.id);
    return user == owner.uid || user == owner.euid;
  }
  uint32_t real = 0, effective = 0, saved = 0;
  (void)kernel_call(SYS_getresuid, as_arg(&real), as_arg(&effective), as_arg(&saved));
  return owner.euid == saved || owner.euid == real || owner.uid == saved || owner.uid == real;
}

long queue(const SignalOwner& owner, siginfo_t* info) noexcept {
  const auto once = [&] {
    if (owner.type == F_OWNER_PID) return kernel_call(SYS_rt_sigqueueinfo, owner.id, info->si_signo, as_arg(info));
    if (owner.type == F_OWNER_TID) return kernel_call(SYS_rt_tgsigqueueinfo, own_pid(), owner.id, info->si_signo, as_arg(info));
    return long{-ESRCH};
  };
  const long result = once();
  if (result != -EPERM || info->si_code < 0) return result;
  info->si_code = SI_SIGIO;
  return once();
}

void send_plain(const SignalOwner& owner, int signal) noexcept {
  if (owner.type == F_OWNER_TID) {
    (void)kernel_call(SYS_tkill, owner.id, signal);
    return;
  }
  siginfo_t info{};
  info.si_signo = signal;
  info.si_code = SI_KERNEL;
  if (owner.type == F_OWNER_PID && owner.id == own_pid() && kernel_call(SYS_rt_sigqueueinfo, owner.id, signal, as_arg(&info)) == 0) return;
  (void)kernel_call(SYS_kill, owner.type == F_OWNER_PGRP ? -owner.id : owner.id, signal);
}

// send_sigurg() and send_sigio_to_task(): a queue that is full gets SIGIO without more.
void send(const AsyncSignal& signal) noexcept {
  const SignalOwner& owner = signal.owner;
  if (!may_signal(owner)) return;
  if (signal.reason == AsyncSignal::kUrgent) return send_plain(owner, SIGURG);
  if (owner.signum != 0) {
    siginfo_t info{};
    info.si_signo = owner.signum;
    info.si_code = signal.reason;
    info.si_band = kBands[signal.reason - POLL_IN];
    info.si_fd = signal.fd;
    if (owner.type == F_OWNER_PGRP) return send_plain(owner, owner.signum);
    const long result = queue(owner, &info);
    if (result == 0) return;
    if (result != -EAGAIN) return send_plain(owner, owner.signum);
  }
  send_plain(owner, SIGIO);
}

}  // namespace

uint64_t AsyncSignals::push(const AsyncSignal& signal) noexcept {
  const uint64_t number = pushed_.load(std::memory_order_relaxed);
  if (number - taken_.load(std::memory_order_acquire) >= kCapacity) return number;
  ring_[number % kCapacity] = signal;
  pushed_.store(number + 1, std::memory_order_release);
  return number;
}

// The slot is written again only when the index has moved on, and then the exchange fails.
bool AsyncSignals::pop(AsyncSignal* out) noexcept {
  uint64_t number = taken_.load(std::memory_order_acquire);
  while (number != pushed_.load(std::memory_order_acquire)) {
    *out = ring_[number % kCapacity];
    if (taken_.compare_exchange_strong(number, number + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void send_async_signals() noexcept {
  AsyncSignal signal;
  while (family->signals.pop(&signal)) send(signal);
}

}  // namespace shim
