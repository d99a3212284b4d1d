// The name of a network: taking it, finding who has it, and what two programs want otherwise.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/network.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/log.h"
#include "base/syscall.h"
#include "shim/family/identity.h"
#include "shim/family/join.h"

namespace shim {

base::Origin config_origins[base::kConfigKeys];

namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kVisitors = 64;
constexpr uint64_t kAtMostNs = 10'000'000'000;
constexpr timespec kBetween{0, 2'000'000};

constexpr const char* kSettings[kStackSettings] = {"wire", "ip", "gateway", "vlan", "mtu", "frames", "memory_mb", "time_wait_ms"};

struct Name {
  sockaddr_un address{};
  unsigned bytes = 0;
};

Name own_name() noexcept {
  Name name;
  name.address.sun_family = AF_UNIX;
  const auto user = static_cast<uint32_t>(kernel_call(SYS_getuid));
  char* const text = name.address.sun_path + 1;  // the first byte is zero: an abstract one (unix(7))
  const int length = snprintf(text, sizeof name.address.sun_path - 1, "zpstack/%u/%s", user, config.network);
  name.bytes = static_cast<unsigned>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<size_t>(length));
  return name;
}

long make_socket() noexcept { return kernel_call(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

// FNV-1a of what a setting says; its index among all, or -1.
uint32_t hash_of(int index) noexcept {
  static char value[base::kMostValueBytes];
  base::print_config_value(config, index, value, sizeof value);
  uint32_t hash = 2166136261;
  for (const char* at = value; *at != '\0'; at++) hash = (hash ^ static_cast<uint8_t>(*at)) * 16777619;
  return hash;
}

int index_of(const char* name) noexcept {
  int index = 0;
  while (strcmp(base::config_key(index).name, name) != 0) index++;
  return index;
}

// In one line, what this program was told and the stack was not.
void tell_contradictions() noexcept {
  char names[200] = "";
  size_t length = 0;
  for (int i = 0; i < kStackSettings; i++) {
    const int index = index_of(kSettings[i]);
    if (config_origins[index] == base::Origin::by_default || hash_of(index) == family->settings[i]) continue;
    length += static_cast<size_t>(snprintf(names + length, sizeof names - length, "%s%s", length > 0 ? ", " : "", kSettings[i]));
  }
  if (length > 0) base::log(base::LogLevel::warn, "the stack of the network %s is as its first program has made it, not with this one's %s",
                            config.network, names);
}

// Whether who listens there is this user's or root: another user may have taken the name.
bool is_own(int over) noexcept {
  ucred peer{};
  unsigned bytes = sizeof peer;
  if (kernel_call(SYS_getsockopt, over, SOL_SOCKET, SO_PEERCRED, as_arg(&peer), as_arg(&bytes)) != 0) return false;
  return peer.uid == 0 || peer.uid == static_cast<uint32_t>(kernel_call(SYS_getuid));
}

// One visit; *again if who answers was not there yet, or is not any more.
const char* visit(int over, bool* again) noexcept {
  const Name name = own_name();
  const int on = 1;
  (void)kernel_call(SYS_setsockopt, over, SOL_SOCKET, SO_PASSCRED, as_arg(&on), sizeof on);
  const long connected = kernel_call(SYS_connect, over, as_arg(&name.address), name.bytes);
  *again = connected == -EAGAIN;
  if (connected == -ECONNREFUSED || *again) return nullptr;
  if (connected != 0) return "its name cannot be connected to";
  return is_own(over) ? join_over(over, again) : "another user's program has its name";
}

}  // namespace

void leave_network_of_file() noexcept {
  if (config_origins[index_of("network")] != base::Origin::environment) config.network[0] = '\0';
}

int take_network_name() noexcept {
  const long made = make_socket();
  if (made < 0) return static_cast<int>(made);
  const Name name = own_name();
  long error = kernel_call(SYS_bind, made, as_arg(&name.address), name.bytes);
  if (error == 0) error = kernel_call(SYS_listen, made, kVisitors);
  const int fd = error == 0 ? base::move_fd_high(static_cast<int>(made)) : static_cast<int>(error);
  if (fd < 0) (void)kernel_call(SYS_close, made);
  return fd;
}

void name_family(int fd) noexcept {
  family->network_fd = fd;
  family->rights = own_identity().permitted;
  for (int i = 0; i < kStackSettings; i++) family->settings[i] = hash_of(index_of(kSettings[i]));
}

void leave_network_name() noexcept {
  if (family->network_fd >= 0) (void)base::close_high_fd(family->network_fd);
}

const char* join_network() noexcept {
  const uint64_t end = base::monotonic_ns() + kAtMostNs;
  bool again = true;
  for (const char* why = nullptr; again && base::monotonic_ns() < end; (void)kernel_call(SYS_nanosleep, as_arg(&kBetween), 0)) {
    const long over = make_socket();
    if (over < 0) return "there is no descriptor left";
    why = visit(static_cast<int>(over), &again);
    (void)kernel_call(SYS_close, over);
    if (why != nullptr) return why;
    if (the_stack() != nullptr) tell_contradictions();
  }
  return again ? "nobody answered at its name" : nullptr;
}

}  // namespace shim
