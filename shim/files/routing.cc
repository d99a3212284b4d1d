// The routing rules and the making of the stack.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/routing.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/eventfd.h>

#include <cstring>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/family_memory.h"
#include "shim/family/locked_memory.h"
#include "shim/family/processors.h"
#include "shim/family/keeper.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"
#include "shim/files/address.h"
#include "shim/files/local_ports.h"
#include "shim/files/ports.h"

namespace shim {
namespace {

static_assert(base::kMostIp6Settings == netstack::kMostIp6Addresses);

using base::as_arg;
using base::kernel_call;
using netstack::IpAddress;

bool in_network(uint32_t address_be, uint32_t network, int prefix) noexcept {
  return (ntohl(address_be) >> (32 - prefix)) == (network >> (32 - prefix));
}
// 198.18.0.0/15 and fdc6:1200::/48.
bool is_default_range(const IpAddress& address) noexcept {
  if (address.is_v4()) return in_network(address.v4_be(), 0xc612'0000, 15);
  return address.words_be[0] == htonl(0xfdc6'1200) && ntohl(address.words_be[1]) >> 16 == 0;
}

// True if an interface of the kernel has `address` itself or a network of the default range that reaches it.
bool kernel_reaches(const IpAddress& address) noexcept {
  const int domain = address.is_v4() ? AF_INET : AF_INET6;
  const long probe = kernel_call(SYS_socket, domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return true;
  sockaddr_in6 name{};
  socklen_t bytes = make_address(domain, {address, htons(9)}, &name);
  ParsedAddress own;
  bool reaches = kernel_call(SYS_connect, probe, as_arg(&name), bytes) == 0 &&
                 kernel_call(SYS_getsockname, probe, as_arg(&name), as_arg(&bytes)) == 0 &&
                 parse_address(domain, &name, bytes, &own) == 0 && is_default_range(own.address.address);
  (void)kernel_call(SYS_close, probe);
  return reaches;
}

constexpr uint8_t kNoGateway6[16] = {};

// What the settings say of an IPv6 address; `exactly`: is it one of the stack's own, else whether the stack is the way to it.
bool is_configured6(const IpAddress& address, bool exactly) noexcept {
  if (!exactly && memcmp(config.gateway6, kNoGateway6, sizeof kNoGateway6) != 0) return true;
  for (const base::Ip6Setting& each : config.ip6) {
    netstack::IpNetwork network{{}, each.prefix};
    memcpy(network.address.words_be, each.address, sizeof each.address);
    if (each.prefix != 0 && (exactly ? network.address == address : network.holds_v6(address))) return true;
  }
  return false;
}

// Is `address` reason enough to make a stack and ask it?
bool worth_a_stack(const IpAddress& address) noexcept {
  if (!address.is_v4() && config.ip6[0].prefix != 0) return is_configured6(address, false);
  if (address.is_v4() && config.address_be != 0) {
    if (config.gateway_be != 0) return true;
    return in_network(address.v4_be(), ntohl(config.address_be), config.prefix);
  }
  return is_default_range(address) && !kernel_reaches(address);
}

// The same for an address that a socket would be bound to.
bool worth_a_stack_at(const IpAddress& address) noexcept {
  if (!address.is_v4() && config.ip6[0].prefix != 0) return is_configured6(address, true);
  if (address.is_v4() && config.address_be != 0) return address.v4_be() == config.address_be;
  return worth_a_stack(address) || (is_default_range(address) && netstack::is_left_over(address));
}

int hidden_eventfd(unsigned count) noexcept {
  const long made = kernel_call(SYS_eventfd2, count, EFD_NONBLOCK | EFD_CLOEXEC);
  return made < 0 ? static_cast<int>(made) : base::move_fd_high(static_cast<int>(made));
}

// As many as there are numbers for, and half of them at most: sleepers without one look around by themselves.
void make_wake_fds() noexcept {
  const base::RaisedFdLimit raised;
  int& made = family->wake_fds;
  for (const int most = base::high_fd_count() / 2; made < kWakeSlots && made < most; made++) {
    family->wake_fd[made] = hidden_eventfd(0);
    if (family->wake_fd[made] < 0) break;
  }
}

[[noreturn]] void give_up(const char* reason) noexcept {
  base::log(base::LogLevel::error, "%s", reason);
  kernel_call(SYS_exit_group, 127);
  __builtin_unreachable();
}

netstack::StackConfig stack_config() noexcept {
  netstack::StackConfig wanted;
  wanted.wire = config.wire;
  wanted.address_be = config.address_be;
  wanted.prefix = config.prefix;
  wanted.gateway_be = config.gateway_be;
  for (int i = 0; i < base::kMostIp6Settings; i++) {
    memcpy(wanted.ip6[i].address.words_be, config.ip6[i].address, sizeof wanted.ip6[i].address.words_be);
    wanted.ip6[i].prefix = config.ip6[i].prefix;
  }
  memcpy(wanted.gateway6.words_be, config.gateway6, sizeof wanted.gateway6.words_be);
  wanted.mtu = static_cast<uint16_t>(config.mtu);
  wanted.frames = config.frames;
  wanted.memory_mb = config.memory_mb;
  wanted.time_wait_ms = config.time_wait_ms;
  wanted.hugepages = config.hugepages;
  wanted.ports = read_local_ports();
  return wanted;
}

bool refused = false;  // a stack could not be made and the kernel serves instead

// What a family needs beside its stack; nullptr, or why it cannot be had.
const char* prepare_family() noexcept {
  if (!share_family()) return "no address space for what the family shares: raise ulimit -v";
  family->kick_fd = hidden_eventfd(1);
  if (family->kick_fd < 0) return "no descriptors left: raise RLIMIT_NOFILE (ulimit -Hn)";
  if (!service_prepare()) return "no memory file for the service: memfd_create failed";
  make_wake_fds();
  return nullptr;
}

// With the family's own lock held.
netstack::Stack* make_it() noexcept {
  leave_future_unlocked();
  auto made = netstack::make_stack(stack_config(), &family->place);
  const char* reason = made ? prepare_family() : made.error().text;
  if (reason != nullptr) {
    if (config.fallback != base::Fallback::kernel) give_up(reason);
    base::log(base::LogLevel::warn, "%s; going on with the kernel's network (ZPS_FALLBACK=kernel)", reason);
    refused = true;
    return nullptr;
  }
  measure_spinning();
  prepare_processors((*made)->wire());
  (*made)->wire().allow_departures();
  const netstack::StackPlace& place = family->place;
  if (place.reach[0] != '\0') base::log(base::LogLevel::info, "%s: %s", place.wire, place.reach);
  return *made;
}

}  // namespace

netstack::Stack* ensure_stack() noexcept {
  if (netstack::Stack* stack = the_stack()) return stack;
  netstack::Stack* stack;
  {
    Guard guard;
    stack = guard.stack();
    if (stack != nullptr || refused) return stack;
    const bool favour = base::BiasedLock::prepare_favour();  // at once while the process has one thread; the service would need a turn
    stack = make_it();
    if (stack == nullptr) return nullptr;
    adopt_bound_sockets(stack);
    if (favour) stack->lock.allow_favour();  // a family without a stack is one process
    // Whoever waits for the family's own lock sees this when it gets it, and goes on to the stack's.
    family->stack.store(stack, std::memory_order_release);
    if (engine->thread()->vfork_child == 0) start_keeper();
  }
  service_start();
  return stack;
}

// A child of vfork is about to become another program.
void rights_are_leaving() noexcept {
  if (the_stack() != nullptr || refused || engine->thread()->vfork_child != 0) return;
  keep_processors();
  netstack::keep_rights(stack_config());
}

void root_is_changing() noexcept {
  if (the_stack() != nullptr || refused || engine->thread()->vfork_child != 0) return;
  rights_are_leaving();
  netstack::open_files();
  (void)read_local_ports();
}

bool is_loopback(const IpAddress& address) noexcept {
  constexpr IpAddress kLoopback6{{0, 0, 0, __builtin_bswap32(1)}};
  return address.is_v4() ? in_network(address.v4_be(), 0x7f00'0000, 8) : address == kLoopback6;
}

netstack::Stack* stack_towards(const IpAddress& address) noexcept {
  if (address.is_any() || is_loopback(address) || address.is_link_local()) return nullptr;
  netstack::Stack* stack = the_stack();
  if (stack == nullptr) {
    if (!worth_a_stack(address)) return nullptr;
    stack = ensure_stack();
    if (stack == nullptr) return nullptr;
  }
  Guard guard;
  return stack->routes(address) || stack->owns(address) ? stack : nullptr;
}

netstack::Stack* stack_at(const IpAddress& address) noexcept {
  if (address.is_any() || is_loopback(address) || address.is_link_local()) return nullptr;
  netstack::Stack* stack = the_stack();
  if (stack == nullptr) {
    if (!worth_a_stack_at(address)) return nullptr;
    stack = ensure_stack();
    if (stack == nullptr) return nullptr;
  }
  Guard guard;
  return stack->owns(address) ? stack : nullptr;
}

}  // namespace shim
