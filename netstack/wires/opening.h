// What the openers of the kinds of wires share: the request, addresses as text, pool sizes.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/arena.h"
#include "base/result.h"
#include "netstack/wires/dpdk_wire.h"
#include "netstack/wires/frame_pool.h"
#include "netstack/wires/open_wire.h"

namespace netstack {

struct Opening {
  const StackConfig& config;
  const char* argument;  // what follows "kind:"; empty if nothing
  base::Arena* arena;
  WireAddress* out;
};

// The default network of the N-th wire of this host is 198.18.N.0/24: kernel or first peer .1, stack .2.
inline constexpr uint32_t kDefaultNetwork = 198U << 24 | 18U << 16;

[[nodiscard]] constexpr uint32_t swap_to_wire(uint32_t host) noexcept { return __builtin_bswap32(host); }

[[nodiscard]] uint32_t power_of_two(uint32_t at_least) noexcept;
// The configured bound of what the stack may add to the RSS, or its default.
[[nodiscard]] uint32_t memory_mb(const StackConfig& config) noexcept;

// "198.18.0.2" into `out` (16 bytes).
void format_address(uint32_t address_be, char* out) noexcept;
// The default IPv6 network of the N-th wire is fdc6:1200:0:N::/64 (RFC 4193), and the hosts of it have the same numbers.
[[nodiscard]] IpNetwork default_network6(int number, uint32_t host) noexcept;
// What the wire gets of IPv6: as configured, or `otherwise`.
void choose_addresses6(const Opening& opening, const IpNetwork& otherwise) noexcept;
// Some other host of the network: ::1, or ::2 if the address is that.
[[nodiscard]] IpAddress neighbour_of(const IpNetwork& network) noexcept;
// Some other host address of the network of address/prefix: .1, or .2 if the address is that.
[[nodiscard]] uint32_t neighbour_of(uint32_t address_be, uint8_t prefix) noexcept;
// A random locally administered unicast address.
void random_mac(uint8_t* mac) noexcept;

// Holds the name of a link of this host for as long as a member of the family lives. A descriptor, or -EADDRINUSE if another family has it.
[[nodiscard]] int hold_link_name(const char* link) noexcept;
// Whether anybody does.
[[nodiscard]] bool holds_link_name(const char* link) noexcept;
// Writes addresses, prefixes, gateways and reach of a wire whose other side is link zps<number> of this host; returns that side's IPv4
// address.
[[nodiscard]] uint32_t choose_host_addresses(const Opening& opening, int number) noexcept;

// The pool for a wire whose frames need `room` bytes for data, as large as the configuration says or allows.
base::Result<FramePool*> make_pool(const Opening& opening, uint32_t room) noexcept;
// The same in chunks of so many bytes, a power of two.
base::Result<FramePool*> make_chunk_pool(const Opening& opening, uint32_t chunk) noexcept;
// `wire` with the tags of the configured VLAN.
base::Result<Wire*> tag_in_software(const Opening& opening, Wire& wire) noexcept;
// Says in the wire's description that it is of that VLAN.
void describe_vlan(const Opening& opening, const char* who) noexcept;
// Memory for a Wire of type T and for its queue of frames to send.
struct WireMemory {
  void* object;
  rte_mbuf** queue;
  uint32_t queue_capacity;
};
base::Result<WireMemory> wire_memory(const Opening& opening, size_t object_bytes, const FramePool& pool) noexcept;

}  // namespace netstack
