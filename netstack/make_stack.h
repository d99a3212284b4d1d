// Makes stacks: from a description of wire and addresses to a Stack that a family can drive.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "base/build_id.h"
#include "base/result.h"
#include "netstack/stack.h"

namespace netstack {

struct StackConfig {
  // "veth", "host[:dev]", "af_xdp[:dev]", "tap", "memif:/path[,role=server|client|auto]", "af_packet:dev"
  const char* wire = "veth";
  // The stack's IPv4 address in wire order and prefix length; 0: chosen by the wire (veth: 198.18.N.2/24, the kernel side is .1).
  uint32_t address_be = 0;
  uint8_t prefix = 24;
  uint32_t gateway_be = 0;
  // Its IPv6 addresses, the first ones with a prefix; none: chosen by the wire (veth: fdc6:1200:0:N::2/64, the kernel side is ::1).
  IpNetwork ip6[kMostIp6Addresses] = {};
  IpAddress gateway6;
  IpAddress link_local6;  // zeros: made of the hardware address
  bool autoconfigure = false;  // and what routers advertise (RFC 4862)
  bool dhcp = false;           // the IPv4 address and the router are a server's to say (RFC 2131)
  uint16_t vlan = 0;          // the number of the VLAN that its frames are of; 0: none
  uint16_t mtu = 0;           // 0: the wire's own
  uint32_t frames = 0;        // receive and send frames in the pool; 0: the wire's own
  uint32_t memory_mb = 0;     // upper bound of what the stack may add to the RSS; 0: 48
  uint32_t time_wait_ms = 0;  // 0: 2000
  LocalPorts ports;
  bool hugepages = false;     // use them when they are there
};

// What the caller prints or routes by, after the stack is there.
struct StackPlace {
  uint32_t address_be;
  uint8_t prefix;
  uint32_t gateway_be;
  IpNetwork ip6[kMostIp6Addresses];
  IpAddress gateway6;
  char wire[64];    // the wire as it came to be: "veth zps0 (af_packet)"
  char reach[128];  // how it can be reached: "198.18.0.2 from this host" ; empty if there is nothing to say
};

// Makes wire and stack. Called once per stack with no lock held, may block some tens of milliseconds, must not run in a vfork child.
// All memory the family will ever use for it is mapped when it returns. It uses threads of its own, whose signals are all blocked,
// leaves the caller's affinity, signal mask and network namespace as they were, and keeps no descriptor below fd_floor() (base/high_fd.h).
base::Result<Stack*> make_stack(const StackConfig& config, StackPlace* place) noexcept;

// Before the program runs: loads what a wire of this kind is made of beside the library, if that is anything.
base::Result<bool> prepare_wire(const char* wire) noexcept;

// For a process that is about to give up rights, and might make its stack later: keeps those that the wire takes, outside of the process
// (wires/kernel/link_broker.h). Without a lock, on any thread; costs a fork, or next to nothing where there is nothing to keep.
void keep_rights(const StackConfig& config) noexcept;
[[nodiscard]] bool has_kept_rights() noexcept;
// Whether an address of the default wires is that of one whose family is dead: its link may still be there for a moment, and who comes next
// has its number.
[[nodiscard]] bool is_left_over(const IpAddress& address) noexcept;
// For one that is about to change its root: what a stack is made of has to be at hand.
void open_files() noexcept;
// Before the process becomes another program.
void let_rights_go() noexcept;

// A stack in a program that was executed: its memory comes with base/shared_memory.h, its code and what DPDK has of its own with these.
struct StackCode {
  uintptr_t image_base;
  base::BuildId image_build;
};
[[nodiscard]] StackCode stack_code() noexcept;
// The same code at the same place, before the memory.
base::Result<bool> load_code_again(const StackCode& code) noexcept;
// The path of the stack's code, for a copy of this library, which ld.so does not know.
[[nodiscard]] const char* image_file() noexcept;
void use_image_file(const char* path) noexcept;

}  // namespace netstack
