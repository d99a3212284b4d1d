// The af_packet wire: a network device of the host, driven through a packet socket beside the kernel's own stack.
// SPDX-License-Identifier: BSD-3-Clause
#include <cerrno>
#include <cstring>

#include "netstack/wires/eal.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/rtnetlink.h"
#include "netstack/wires/opening.h"

namespace netstack {

base::Result<Wire*> open_packet(const Opening& opening) noexcept {
  const char* device = opening.argument;
  if (opening.config.address_be == 0 && !opening.config.dhcp)
    return base::make_error("wire af_packet:%s needs an IPv4 address: set ZPS_IP, to one or to dhcp", device);
  const int device_mtu = link_mtu(device);
  if (device_mtu < 0) return base::make_error("wire af_packet: there is no network device \"%s\" here", device);
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : static_cast<uint32_t>(device_mtu);
  const RingShape shape = ring_shape(opening, mtu);
  PacketSockets sockets(make_packet_fds(), shape.block_bytes, shape.slot_bytes, shape.slots);
  if (auto started = start_eal(); !started) return started.error();
  auto wire = open_packet_wire(opening, link_index(device), false, mtu, sockets);
  if (!wire) return wire.error();
  WireFacts& facts = (*wire)->mutable_facts();
  memcpy(facts.name, "af_packet", 10);
  (void)link_mac(device, facts.mac);
  opening.out->address_be = opening.config.address_be;
  opening.out->prefix = opening.config.prefix;
  opening.out->gateway_be = opening.config.gateway_be;
  choose_addresses6(opening, {});
  memcpy(opening.out->wire, base::make_error("af_packet %s", device).text, sizeof opening.out->wire);
  return *wire;
}

}  // namespace netstack
