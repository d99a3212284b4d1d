// What DPDK's archives call in place of libc, EAL's log and EAL's memory (see prelink.sh for who calls what; memif's own are in memif/).
// SPDX-License-Identifier: BSD-3-Clause
//
// Three rules that the originals break and these keep: a descriptor never stays among the program's numbers; nothing
// blocks, since the caller holds the stack's lock; memory that is taken after a fork comes from the arena, because the heads
// of EAL's heap are private to each process.
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <rte_malloc.h>
#include <rte_vfio.h>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/syscall.h"
#include "netstack/wires/control.h"
#include "netstack/wires/redirected.h"

using base::as_arg;
using base::kernel_call;
using netstack::Control;
using netstack::moved_high;
using netstack::to_libc;

namespace netstack {
namespace {

int last_fd = -1;
bool vfio_is_wanted = false;

}  // namespace

int last_dpdk_fd() noexcept { return last_fd; }
void let_vfio_in() noexcept { vfio_is_wanted = true; }

long to_libc(long result) noexcept {
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  return -1;
}

int moved_high(long fd) noexcept {
  if (fd < 0) return static_cast<int>(to_libc(fd));
  const int high = base::move_fd_high(static_cast<int>(fd));
  if (high >= 0) return last_fd = high;
  (void)kernel_call(SYS_close, fd);
  return static_cast<int>(to_libc(high));
}

}  // namespace netstack

// The drivers of devices are in a library of their own and call these too.
#pragma GCC visibility push(default)
extern "C" {

int zps_dpdk_socket(int domain, int type, int protocol) {
  return moved_high(kernel_call(SYS_socket, domain, type | SOCK_CLOEXEC, protocol));
}
int zps_dpdk_accept(int fd, sockaddr* address, socklen_t* length) {
  return moved_high(kernel_call(SYS_accept4, fd, as_arg(address), as_arg(length), SOCK_CLOEXEC));
}
int zps_dpdk_eventfd(unsigned value, int flags) { return moved_high(kernel_call(SYS_eventfd2, value, flags)); }
int zps_dpdk_memfd_create(const char* name, unsigned flags) {
  return moved_high(kernel_call(SYS_memfd_create, as_arg(name), flags | MFD_CLOEXEC));
}
int zps_dpdk_timerfd_create(int clock, int flags) { return moved_high(kernel_call(SYS_timerfd_create, clock, flags)); }
int zps_dpdk_close(int fd) { return static_cast<int>(to_libc(base::close_high_fd(fd))); }
int zps_dpdk_dup(int fd) { return moved_high(kernel_call(SYS_dup, fd)); }
int zps_dpdk_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int mode = va_arg(arguments, int);
  va_end(arguments);
  return moved_high(kernel_call(SYS_open, as_arg(path), flags | O_CLOEXEC, mode));
}

// EAL measures the TSC during one sleep of 100 ms where CPUID does not tell its frequency; 2 ms give the same result (it is
// rounded to 10 MHz). Any other sleep is what it says.
int zps_dpdk_nanosleep(const timespec* time, timespec* left) {
  constexpr long kCalibration = 100'000'000;
  timespec shorter{0, 2'000'000};
  if (time->tv_sec == 0 && time->tv_nsec == kCalibration) time = &shorter;
  return static_cast<int>(to_libc(kernel_call(SYS_nanosleep, as_arg(time), as_arg(left))));
}

// EAL raises the program's limit of open files, and wants a run-time folder though there is nothing to put into it.
// EAL looks for a thousand processors, and for each of them in 32 NUMA nodes. It may use those that the thread may use, be there a /sys or
// not (after chroot() there is none); without an answer about nodes it takes node 0, as we do.
int zps_dpdk_access(const char* path, int mode) {
  constexpr char kNodes[] = "/sys/devices/system/node/";
  constexpr char kProcessors[] = "/sys/devices/system/cpu/cpu";
  static cpu_set_t allowed;
  static bool known = kernel_call(SYS_sched_getaffinity, 0, sizeof allowed, as_arg(&allowed)) > 0;
  if (strncmp(path, kNodes, sizeof kNodes - 1) == 0) return static_cast<int>(to_libc(-ENOENT));
  if (known && strncmp(path, kProcessors, sizeof kProcessors - 1) == 0) {
    const long number = strtol(path + sizeof kProcessors - 1, nullptr, 10);
    return static_cast<int>(to_libc(number < CPU_SETSIZE && CPU_ISSET(number, &allowed) ? 0 : -ENOENT));
  }
  return static_cast<int>(to_libc(kernel_call(SYS_access, as_arg(path), mode)));
}
// Only a PCI device needs it.
int __wrap_rte_vfio_enable(const char* module) { return netstack::vfio_is_wanted ? rte_vfio_enable(module) : 0; }
// What EAL maps for its tables is anonymous, private and new, and empty without a page of it being written to.
void* zps_dpdk_clear_new(void* memory, int, size_t) { return memory; }
// No plugins, no threads, no connection to syslog.
void* zps_dpdk_dlopen(const char*, int) { return nullptr; }
int zps_dpdk_pthread_create(void*, const void*, void* (*)(void*), void*) { return EAGAIN; }
void zps_dpdk_openlog(const char*, int, int) {}
int zps_dpdk_setrlimit(int, const void*) { return 0; }
// Its threads stay where the program's run, and to ask for a place may be forbidden at the price of a life (seccomp).
int zps_dpdk_setaffinity(unsigned long, size_t, const void*) { return 0; }
int zps_dpdk_mkdir(const char*, unsigned) { return 0; }

// Formatted by libc, since DPDK uses all that printf can; only on request, because that may allocate.
int __wrap_rte_log(uint32_t, uint32_t, const char* format, ...) {
  if (base::log_level() != base::LogLevel::debug) return 0;
  char text[300];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length > 0 && static_cast<size_t>(length) < sizeof text && text[length - 1] == '\n') text[length - 1] = '\0';
  base::log(base::LogLevel::debug, "dpdk: %s", text);
  return 0;
}

// EAL says some failures on the program's own stderr, beside the result that we put into our one line.
int zps_dpdk_fprintf(FILE*, int, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char text[300];
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  base::log(base::LogLevel::debug, "dpdk: %s", text);
  return length;
}

// Without a Control nothing is made or freed after the open, and EAL's heap will do.
void* zps_dpdk_malloc(const char* type, size_t bytes, unsigned align) {
  Control* control = Control::current();
  return control == nullptr ? rte_malloc(type, bytes, align) : control->arena->allocate(bytes);
}
void* zps_dpdk_zmalloc(const char* type, size_t bytes, unsigned align) {
  void* piece = zps_dpdk_malloc(type, bytes, align);
  if (piece != nullptr) memset(piece, 0, bytes);
  return piece;
}
void zps_dpdk_free(void* piece) {
  Control* control = Control::current();
  if (control != nullptr) control->arena->release(piece);
  else rte_free(piece);
}

}  // extern "C"
#pragma GCC visibility pop
