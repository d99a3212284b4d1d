// The routing rules and the making of the stack.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/routing.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/reach.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/family_memory.h"
#include "shim/family/locked_memory.h"
#include "shim/family/processors.h"
#include "shim/family/keeper.h"
#include "shim/family/network.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"
#include "shim/files/datagram_sides.h"
#include "shim/files/local_ports.h"
#include "shim/files/ports.h"

// keep_everything.S
extern "C" long zps_keep_everything(long argument, long (*function)(long argument) noexcept) noexcept;

namespace shim {
namespace {

static_assert(base::kMostIp6Settings == netstack::kMostIp6Addresses);

using base::as_arg;
using base::kernel_call;
using netstack::IpAddress;

base::Reach reach_of(const IpAddress& address) noexcept {
  uint8_t bytes[sizeof address.words_be];
  memcpy(bytes, address.words_be, sizeof bytes);
  return base::reach_of(config, bytes);
}

// Is an address that a socket would be bound to reason enough to make a stack and ask it?
bool worth_a_stack_at(const IpAddress& address) noexcept {
  const base::Reach reach = reach_of(address);
  return reach == base::Reach::own || reach == base::Reach::wires || reach == base::Reach::shared ||
         (reach == base::Reach::kernel_has && netstack::is_left_over(address));
}

// The kernel's whatever the rules say.
bool is_never_the_stacks(const IpAddress& address) noexcept { return address.is_any() || is_loopback(address); }

base::Side side_by_default(int protocol) noexcept { return protocol == IPPROTO_UDP ? config.udp : base::Side::stack; }

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
  wanted.autoconfigure = config.autoconfigure;
  wanted.dhcp = config.dhcp;
  memcpy(wanted.gateway6.words_be, config.gateway6, sizeof wanted.gateway6.words_be);
  wanted.vlan = static_cast<uint16_t>(config.vlan);
  memcpy(wanted.link_local6.words_be, config.link_local6, sizeof wanted.link_local6.words_be);
  wanted.mtu = static_cast<uint16_t>(config.mtu);
  wanted.frames = config.frames;
  wanted.memory_mb = config.memory_mb;
  wanted.time_wait_ms = config.time_wait_ms;
  wanted.hugepages = config.hugepages && !has_network();  // they are in no file that another program could map
  wanted.ports = read_local_ports();
  return wanted;
}

constexpr int kMostTries = 200;

bool refused = false;  // a stack could not be made and the kernel serves instead

// What a family needs beside its stack; nullptr, or why it cannot be had.
const char* prepare_family() noexcept {
  if (!share_family()) return "no address space for what the family shares: raise ulimit -v";
  family->network_fd = -1;
  family->kick_fd = hidden_eventfd(1);
  if (family->kick_fd < 0) return "no descriptors left: raise RLIMIT_NOFILE (ulimit -Hn)";
  if (!service_prepare()) return "no memory file for the service: memfd_create failed";
  make_wake_fds();
  prepare_flights();
  return nullptr;
}

void go_without(const char* reason) noexcept {
  if (config.fallback != base::Fallback::kernel) give_up(reason);
  base::log(base::LogLevel::warn, "%s; going on with the kernel's network (ZPS_FALLBACK=kernel)", reason);
  refused = true;
}

void tell_network(const char* why) noexcept {
  static char line[250];
  (void)snprintf(line, sizeof line, "the stack of the network %s cannot be shared: %s", config.network, why);
  go_without(line);
}

// With the family's own lock held. `name` is its network's, or negative.
netstack::Stack* make_it(int name) noexcept {
  leave_future_unlocked();
  auto made = netstack::make_stack(stack_config(), &family->place);
  const char* reason = made ? prepare_family() : made.error().text;
  if (reason != nullptr) {
    go_without(reason);
    if (name >= 0) (void)base::close_high_fd(name);
    return nullptr;
  }
  if (has_network()) name_family(name);
  measure_spinning();
  prepare_processors((*made)->wire());
  (*made)->wire().allow_departures();
  const netstack::StackPlace& place = family->place;
  if (place.reach[0] != '\0') base::log(base::LogLevel::info, "%s: %s", place.wire, place.reach);
  return *made;
}

// *is_taken: no, others have the name of this program's network.
netstack::Stack* try_to_make(bool* is_taken) noexcept {
  netstack::Stack* stack;
  *is_taken = false;
  {
    Guard guard;
    stack = guard.stack();
    if (stack != nullptr || refused) return stack;
    const int name = has_network() ? take_network_name() : -1;
    *is_taken = name == -EADDRINUSE;
    if (name < 0 && has_network()) {
      if (!*is_taken) tell_network("its name cannot be taken (no Unix sockets, or no descriptor left)");
      return nullptr;
    }
    const bool favour = base::BiasedLock::prepare_favour();  // at once while the process has one thread; the service would need a turn
    stack = make_it(name);
    if (stack == nullptr) return nullptr;
    adopt_bound_sockets(stack);
    if (favour) stack->lock.allow_favour();  // a family without a stack is one process
    // Whoever waits for the family's own lock sees this when it gets it, and goes on to the stack's.
    family->stack.store(stack, std::memory_order_release);
    if (engine->thread()->vfork_child == 0) start_keeper();
  }
  service_start();
  if (engine->thread()->vfork_child == 0) join_all_unnamed();
  return stack;
}

}  // namespace

void enter_network() noexcept {
  if (!has_network() || the_stack() != nullptr || refused || engine->thread()->vfork_child != 0) return;
  const auto enter = [](long) noexcept { return static_cast<long>(ensure_stack() != nullptr); };
  (void)zps_keep_everything(0, enter);
}

netstack::Stack* ensure_stack() noexcept {
  netstack::Stack* stack = the_stack();
  for (int tries = 0; stack == nullptr && !refused; tries++) {
    bool is_taken;
    stack = try_to_make(&is_taken);
    if (!is_taken) return stack;
    const char* const why = tries < kMostTries ? join_network() : "its name is taken, and nobody is there";
    if (why != nullptr) tell_network(why);
    stack = the_stack();
  }
  return stack;
}

void make_stack_for_bound_sockets() noexcept {
  if (the_stack() == nullptr && !refused && engine->thread()->vfork_child == 0 && has_bound_socket()) (void)ensure_stack();
}

// A child of vfork is about to become another program.
void rights_are_leaving() noexcept {
  enter_network();
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

uint32_t wires_scope() noexcept { return static_cast<uint32_t>(the_stack()->wire().facts().interface); }

bool is_wires_scope(uint32_t scope) noexcept {
  constexpr uint32_t kLoopback = 1;  // of wires that are no interface of the kernel's
  if (const netstack::Stack* const stack = the_stack()) return scope == wires_scope() && !stack->wire().facts().shared;
  const size_t kind = strcspn(config.wire, ":");
  for (const char* each : {"memif", "vhost", "virtio-user", "tap", "device"}) {
    if (scope == kLoopback && strlen(each) == kind && memcmp(config.wire, each, kind) == 0) return true;
  }
  return false;
}

bool is_loopback(const IpAddress& address) noexcept {
  constexpr IpAddress kLoopback6{{0, 0, 0, __builtin_bswap32(1)}};
  return address.is_v4() ? ntohl(address.v4_be()) >> 24 == 127 : address == kLoopback6;
}

base::Side side_of(int protocol, uint16_t port_be, const IpAddress* peer) noexcept {
  uint8_t bytes[sizeof peer->words_be];
  if (peer != nullptr) memcpy(bytes, peer->words_be, sizeof bytes);
  const base::Rule* const rule = base::find_rule(config.rules, {protocol, ntohs(port_be), peer != nullptr ? bytes : nullptr});
  return rule != nullptr ? rule->side : side_by_default(protocol);
}

bool may_be_stacks(int protocol, uint16_t port_be) noexcept {
  return base::may_be_served_by(config.rules, base::Side::stack, side_by_default(protocol), protocol, ntohs(port_be));
}

bool serves_datagrams() noexcept {
  if (config.udp == base::Side::stack) return true;
  for (const base::Rule& rule : config.rules) {
    if (rule.side == base::Side::stack && rule.protocol != IPPROTO_TCP) return true;
  }
  return false;
}

netstack::Stack* stack_towards(int protocol, uint16_t port_be, const IpAddress& address) noexcept {
  if (is_never_the_stacks(address) || side_of(protocol, port_be, &address) == base::Side::kernel) return nullptr;
  netstack::Stack* stack = the_stack();
  if (stack == nullptr) {
    if (!address.is_link_local() && !base::is_stacks(reach_of(address))) return nullptr;
    stack = ensure_stack();
    if (stack == nullptr) return nullptr;
  }
  Guard guard;
  return stack->routes(address) ? stack : nullptr;
}

netstack::Stack* stack_at(const IpAddress& address) noexcept {
  if (is_never_the_stacks(address)) return nullptr;
  netstack::Stack* stack = the_stack();
  if (stack == nullptr) {
    if (!address.is_link_local() && !worth_a_stack_at(address)) return nullptr;
    stack = ensure_stack();
    if (stack == nullptr) return nullptr;
  }
  Guard guard;
  return stack->owns(address) ? stack : nullptr;
}

netstack::Stack* shared_stack_at(const IpAddress& address) noexcept {
  netstack::Stack* const stack = address.is_link_local() ? nullptr : stack_at(address);
  return stack != nullptr && stack->wire().facts().shared ? stack : nullptr;
}

}  // namespace shim
