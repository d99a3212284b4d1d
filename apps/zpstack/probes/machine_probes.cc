// Probes of processor, kernel and memory.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>
#include <gnu/libc-version.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "apps/zpstack/paths.h"
#include "apps/zpstack/probes/probes.h"
#include "apps/zpstack/probes/trial.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u
#endif

namespace tool {
namespace {

constexpr size_t kPageBytes = 4096;

// A value of a "Name:   123 kB" file such as /proc/meminfo; -1 if there is no such line.
long named_number(const std::string& file, const std::string& name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::strtol(line.c_str() + name.size() + 1, nullptr, 10);
  }
  return -1;
}

// Maps page 0 as the hook engine does: written, then made executable. 0 or an errno.
int map_page_zero() {
  // The address is computed so that no compiler reasons about a null pointer.
  volatile uintptr_t zero = 0;
  void* wanted = reinterpret_cast<void*>(zero);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  if (mmap(wanted, kPageBytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) return errno;
  return mprotect(wanted, kPageBytes, PROT_READ | PROT_EXEC) == 0 ? 0 : errno;
}

int arm_dispatch() {
  static volatile char selector = 0;  // SYSCALL_DISPATCH_FILTER_ALLOW
  return prctl(PR_SET_SYSCALL_USER_DISPATCH, 1 /* on */, 0, 0, &selector) == 0 ? 0 : errno;
}

// The stack's image is written to a memory file and mapped executable from there. 0 or an errno.
int execute_from_memfd() {
  long fd = syscall(SYS_memfd_create, "zpstack-trial", MFD_CLOEXEC | MFD_EXEC);
  if (fd < 0 && errno == EINVAL) fd = syscall(SYS_memfd_create, "zpstack-trial", MFD_CLOEXEC);  // kernels before 6.3
  if (fd < 0) return errno;
  if (ftruncate(static_cast<int>(fd), kPageBytes) != 0) return errno;
  return mmap(nullptr, kPageBytes, PROT_READ | PROT_EXEC, MAP_PRIVATE, static_cast<int>(fd), 0) == MAP_FAILED ? errno : 0;
}

std::string reason(int error) { return error < 0 ? "the trial died" : strerror(error); }

}  // namespace

std::string first_line(const std::string& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

bool has_capability(int number) {
  std::ifstream stream("/proc/self/status");
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind("CapEff:", 0) == 0) return (std::strtoull(line.c_str() + 7, nullptr, 16) >> number & 1) != 0;
  }
  return false;
}

std::string mend_capability(const std::string& capability) {
  return fmt::format(
      "run as root, or `setpriv --inh-caps +{0} --ambient-caps +{0} PROGRAM`; in a container: --cap-add {0}; systemd: AmbientCapabilities=",
      capability);
}

Finding probe_libraries() {
  const Libraries found = find_libraries();
  const std::string mend = "build it, or install the package again";
  if (found.preload.empty()) return {"libraries", State::missing, "libzpstack.so is not in " + found.searched, mend};
  if (!found.missing.empty()) return {"libraries", State::missing, found.missing + " is not beside " + found.preload, mend};
  return {"libraries", State::ok, found.preload, ""};
}

Finding probe_versions() {
  utsname kernel;
  uname(&kernel);
  const std::string dpdk = ZPS_DPDK_VERSION;
  const std::string detail = fmt::format("zpstack {}, kernel {}, glibc {}, DPDK {}", ZPS_VERSION, kernel.release, gnu_get_libc_version(),
                                         dpdk.empty() ? "unknown" : dpdk);
  int major = 0;
  int minor = 0;
  std::sscanf(kernel.release, "%d.%d", &major, &minor);
  const bool old = major < 5 || (major == 5 && minor < 11);
  return {"versions", old ? State::absent : State::ok, detail, old ? "kernels from 5.11 on have all that zpstack uses" : ""};
}

Finding probe_processor() {
  // Debian's DPDK is built for this level and ends the process on a processor without it.
  const bool ok = __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("popcnt") != 0;
  return {"processor", ok ? State::ok : State::missing, ok ? "has SSE4.2, as DPDK wants" : "lacks SSE4.2, which DPDK wants", ""};
}

Finding probe_page_zero(const Needs& needs) {
  const std::string minimum = first_line("/proc/sys/vm/mmap_min_addr");
  const int error = in_child(map_page_zero);
  if (error == 0) return {"page 0", State::ok, fmt::format("can be mapped (vm.mmap_min_addr is {})", minimum), ""};
  const bool capable = has_capability(CAP_SYS_RAWIO);
  return {
      "page 0", lack(needs.page_zero),
      fmt::format("cannot be mapped: {} (vm.mmap_min_addr is {}, CAP_SYS_RAWIO {}){}", reason(error), minimum,
                  capable ? "is there" : "is not there", needs.page_zero_is_wanted ? "; hook mode nopage0 it will be" : ""),
      capable ? "see SELinux below, or `sysctl vm.mmap_min_addr=0`" : "`sysctl vm.mmap_min_addr=0`, or " + mend_capability("sys_rawio")};
}

Finding probe_selinux(const Needs& needs) {
  if (first_line("/sys/fs/selinux/enforce") != "1") return {"SELinux", State::ok, "not enforcing", ""};
  const bool allowed = first_line("/sys/fs/selinux/booleans/mmap_low_allowed").rfind("1", 0) == 0;
  if (allowed) return {"SELinux", State::ok, "enforcing, and mmap_low_allowed is on", ""};
  if (in_child(map_page_zero) == 0) return {"SELinux", State::ok, "enforcing, and this domain may map page 0", ""};
  return {"SELinux", lack(needs.page_zero), "enforcing, and mmap_low_allowed is off", "`setsebool mmap_low_allowed on`"};
}

Finding probe_dispatch(const Needs& needs) {
  const int error = in_child(arm_dispatch);
  if (error == 0) return {"syscall dispatch", State::ok, "Syscall User Dispatch works: hook mode sud can be had", ""};
  return {"syscall dispatch", lack(needs.dispatch), "no Syscall User Dispatch: " + reason(error) + "; hook mode sud cannot be had",
          needs.dispatch ? "Linux 5.11 or later, or ZPS_HOOK=auto" : ""};
}

Finding probe_memfd() {
  const int error = in_child(execute_from_memfd);
  if (error == 0) return {"memory files", State::ok, "memfd_create works and its pages may be executed", ""};
  return {"memory files", State::missing, "the stack's image cannot be mapped from a memory file: " + reason(error),
          "`sysctl vm.memfd_noexec=0`, and no seccomp filter on memfd_create"};
}

Finding probe_memory(const base::Config& config) {
  const long available_mb = named_number("/proc/meminfo", "MemAvailable") / 1024;
  const bool enough = available_mb >= static_cast<long>(config.memory_mb);
  rlimit space;
  getrlimit(RLIMIT_AS, &space);
  if (space.rlim_cur != RLIM_INFINITY && (space.rlim_cur >> 20) < config.memory_mb * 4ul) {
    return {"memory", State::missing, fmt::format("the address space is limited to {} MB", space.rlim_cur >> 20), "`ulimit -v unlimited`"};
  }
  return {"memory", enough ? State::ok : State::missing,
          fmt::format("{} MB available, a stack takes up to {} MB", available_mb, config.memory_mb),
          enough ? "" : "free some memory, or lower ZPS_MEMORY_MB"};
}

Finding probe_hugepages() {
  const long free_pages = named_number("/proc/meminfo", "HugePages_Free");
  if (free_pages > 0) return {"huge pages", State::ok, fmt::format("{} of 2 MB are free", free_pages), ""};
  return {"huge pages", State::absent, "none free; ordinary pages are used", "optional: `sysctl vm.nr_hugepages=64`"};
}

Finding probe_memlock() {
  rlimit limit;
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const std::string size = limit.rlim_cur == RLIM_INFINITY ? "unlimited" : fmt::format("{} KB", limit.rlim_cur >> 10);
  return {"locked memory", State::ok, size + "; the wires lock none", ""};
}

Finding probe_cpu_sleep() {
  const char* const device = "/dev/cpu_dma_latency";
  if (access(device, W_OK) == 0)
    return {"light sleep", State::ok, fmt::format("{} may be asked while a client here is answered at once", device), ""};
  return {"light sleep", State::absent, fmt::format("no use of {}: a client here waits for its own wake-up", device), ""};
}

}  // namespace tool
