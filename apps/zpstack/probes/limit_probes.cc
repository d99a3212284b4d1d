// Probes of what others have limited: descriptors, the control group's memory, system calls.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>
#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "apps/zpstack/probes/probes.h"

namespace tool {
namespace {

// What a stack holds in the hidden range: the wake-ups of its sleepers, and some dozens of the wire.
constexpr rlim_t kHiddenDescriptors = 1024;
// And below that a program wants some of its own.
constexpr rlim_t kUsualDescriptors = 1024;

// A line of /proc/self/status without its name; empty if there is none.
std::string status_of(const std::string& name) {
  std::ifstream stream("/proc/self/status");
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind(name + ":", 0) == 0) return line.substr(line.find_first_not_of(" \t", name.size() + 1));
  }
  return "";
}

// The tightest memory.max on the way from this process's control group (version 2) up to the root, in MB; -1: none.
long group_limit_mb() {
  std::ifstream stream("/proc/self/cgroup");
  std::string path;
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind("0::/", 0) == 0) path = line.substr(3);
  }
  long tightest = -1;
  while (!path.empty() && path != "/") {
    const std::string limit = first_line("/sys/fs/cgroup" + path + "/memory.max");
    const long mb = limit.empty() || limit == "max" ? -1 : std::strtol(limit.c_str(), nullptr, 10) >> 20;
    if (mb >= 0 && (tightest < 0 || mb < tightest)) tightest = mb;
    path.erase(path.rfind('/'));
  }
  return tightest;
}

}  // namespace

Finding probe_descriptors() {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::string detail = fmt::format("{} at most, {} until the program raises it", limit.rlim_max, limit.rlim_cur);
  if (limit.rlim_max >= kHiddenDescriptors + kUsualDescriptors) return {"descriptors", State::ok, detail, ""};
  return {"descriptors", State::missing, detail + fmt::format("; a stack takes {} beside the program's", kHiddenDescriptors),
          fmt::format("`ulimit -Hn {}`; systemd: LimitNOFILE=", 4 * kHiddenDescriptors)};
}

Finding probe_group_memory(const base::Config& config) {
  const long limit_mb = group_limit_mb();
  if (limit_mb < 0) return {"control group", State::ok, "no limit of memory", ""};
  const bool enough = limit_mb >= static_cast<long>(config.memory_mb);
  return {"control group", enough ? State::ok : State::missing,
          fmt::format("{} MB of memory, a stack takes up to {} MB", limit_mb, config.memory_mb),
          enough ? "" : "raise memory.max, or lower ZPS_MEMORY_MB"};
}

Finding probe_seccomp() {
  const std::string mode = status_of("Seccomp");
  if (mode.empty() || mode == "0") return {"seccomp", State::ok, "no filter", ""};
  return {"seccomp", State::absent, "a filter is in force (" + status_of("Seccomp_filters") + "): what it refuses fails with its own error",
          ""};
}

}  // namespace tool
