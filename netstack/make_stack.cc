// A wire and a stack on it, sized by the configuration.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/make_stack.h"

#include <cstring>

#include "base/arena.h"
#include "base/clock.h"
#include "base/syscall.h"
#include "netstack/lwip/build_stack.h"
#include "netstack/lwip/image_loader.h"
#include "netstack/wires/open_wire.h"

namespace netstack {
namespace {

constexpr size_t kMegabyte = 1 << 20;
constexpr size_t kWireArenaBytes = 8 * kMegabyte;  // reserved only; the wire's own objects are a few hundred kilobytes
constexpr size_t kFrameBytes = 2432;               // a frame of the usual MTU with its headroom and DPDK's header
constexpr size_t kTablesBytes = 4 * kMegabyte;     // connection and port tables and a few thousand endpoints
constexpr size_t kCodeBytes = 5 * kMegabyte;       // pages of our libraries and of the second libc that a working stack touches
constexpr size_t kRingsShare = 6;                  // the wire keeps its rings to this part of the bound
constexpr size_t kSmallestArena = 4 * kMegabyte;

size_t arena_bytes(const StackConfig& config, const Wire& wire) noexcept {
  const size_t bound = (config.memory_mb != 0 ? config.memory_mb : 48) * kMegabyte;
  const size_t frames = static_cast<size_t>(wire.total_frames()) * kFrameBytes;
  const size_t spent = frames + bound / kRingsShare + kTablesBytes + kCodeBytes;
  return bound > spent + kSmallestArena ? bound - spent : kSmallestArena;
}

bool in_network(uint32_t address_be, const WireAddress& of) noexcept {
  const uint32_t mask_be = of.prefix == 0 ? 0 : __builtin_bswap32(~uint32_t{0} << (32 - of.prefix));
  return ((address_be ^ of.address_be) & mask_be) == 0;
}

constexpr unsigned kLeastMtu6 = 1280;

bool reaches_gateway6(const WireAddress& address) noexcept {
  if (address.gateway6 == IpAddress{} || address.gateway6.is_link_local()) return true;
  for (const IpNetwork& network : address.ip6) {
    if (network.holds_v6(address.gateway6)) return true;
  }
  return false;
}

// Lets the stack work alone until `done` says so, `longest_ns` at most.
template <class Done>
bool await(Stack& stack, uint64_t longest_ns, Done done) noexcept {
  constexpr timespec kPause{0, 1'000'000};
  for (const uint64_t begin_ns = base::monotonic_ns(); !done(); (void)base::kernel_call(SYS_nanosleep, base::as_arg(&kPause), 0)) {
    if (base::monotonic_ns() - begin_ns >= longest_ns) return false;
    stack.run_control();
    (void)stack.poll(base::monotonic_ns());
  }
  return true;
}

// Who connects first shall have an address to do so from, if there is somebody who advertises.
void await_routers(Stack& stack) noexcept {
  constexpr uint64_t kLongestNs = 3'000'000'000;
  IpAddress somewhere;
  somewhere.words_be[0] = __builtin_bswap32(0x2000'0000);  // 2000::/3: the Internet
  (void)await(stack, kLongestNs, [&] { return stack.routes(somewhere); });
}

uint32_t address_be(const Stack& stack) noexcept { return stack.source_for(IpAddress::v4(1)).v4_be(); }

// And who listens, one to listen at. A link that comes up and a server that looks around first take some seconds each.
void await_lease(Stack& stack) noexcept {
  constexpr uint64_t kLongestNs = 12'000'000'000;
  if (!await(stack, kLongestNs, [&] { return address_be(stack) != 0; }))
    base::log(base::LogLevel::warn, "DHCP: no address after %lu seconds; the program goes on without, and it is asked for",
              kLongestNs / 1'000'000'000);
}

}  // namespace

base::Result<Stack*> make_stack(const StackConfig& config, StackPlace* place) noexcept {
  base::Arena* wire_arena = base::Arena::map_shared(kWireArenaBytes);
  if (wire_arena == nullptr) return base::make_error("no memory for a wire of %zu bytes", kWireArenaBytes);
  WireAddress address;
  base::Result<Wire*> wire = open_wire(config, wire_arena, &address);
  if (!wire) {
    base::Arena::unmap_shared(wire_arena);  // the program may go on without a stack
    return wire.error();
  }

  if (config.dhcp) {
    address.address_be = 0;
    address.prefix = 32;
  } else if (const uint32_t gateway_be = address.gateway_be; gateway_be != 0 && !in_network(gateway_be, address)) {
    return base::make_error("the gateway is not in the stack's network: give ZPS_IP an address of the gateway's network");
  }
  if (!reaches_gateway6(address))
    return base::make_error("the gateway is in none of the stack's IPv6 networks: give ZPS_IP an address of the gateway's network");
  const uint16_t mtu = config.mtu != 0 && config.mtu < (*wire)->facts().mtu ? config.mtu : (*wire)->facts().mtu;
  if (mtu < kLeastMtu6) {
    if (config.ip6[0].prefix != 0)
      return base::make_error("IPv6 needs an MTU of %u at least (RFC 8200), this wire has %u", kLeastMtu6, mtu);
    address.ip6[0].prefix = 0;
  }

  StackPlan plan;
  plan.wire = *wire;
  plan.address_be = address.address_be;
  plan.prefix = address.prefix;
  plan.gateway_be = address.gateway_be;
  memcpy(plan.ip6, address.ip6, sizeof plan.ip6);
  plan.gateway6 = address.gateway6;
  plan.link_local6 = config.link_local6;
  plan.autoconfigure = config.autoconfigure && mtu >= kLeastMtu6 && !(*wire)->facts().shared;
  plan.dhcp = config.dhcp;
  plan.mtu = config.mtu;
  if (config.time_wait_ms != 0) plan.time_wait_ms = config.time_wait_ms;
  plan.ports = config.ports;
  plan.arena_bytes = arena_bytes(config, **wire);
  base::Result<Stack*> stack = build_stack(plan);
  if (!stack) return stack;
  if (plan.dhcp) await_lease(**stack);
  if (plan.autoconfigure) await_routers(**stack);

  place->address_be = plan.dhcp ? address_be(**stack) : address.address_be;
  place->prefix = address.prefix;
  place->gateway_be = address.gateway_be;
  memcpy(place->ip6, address.ip6, sizeof place->ip6);
  place->gateway6 = address.gateway6;
  memcpy(place->wire, address.wire, sizeof place->wire);
  memcpy(place->reach, address.reach, sizeof place->reach);
  return stack;
}

void open_files() noexcept { open_stack_image(); }

StackCode stack_code() noexcept {
  const ImagePlace place = image_place();
  return {place.base, place.build};
}

base::Result<bool> load_code_again(const StackCode& code) noexcept {
  if (!prepare_frame_pools()) return base::make_error("cannot register the frame pool with DPDK");
  return load_image_again({code.image_base, code.image_build});
}

const char* image_file() noexcept { return stack_image_path(); }
void use_image_file(const char* path) noexcept { use_stack_image_path(path); }

}  // namespace netstack
