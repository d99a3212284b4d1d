// The veth wire: a pair whose kernel side is in the host's network and whose other end is driven through a packet socket.
// SPDX-License-Identifier: BSD-3-Clause
//
// The other end lies in a network namespace that nobody can name: this thread makes it and opens the packet sockets in it, and when the
// thread ends the sockets alone keep it. When the last member of the family is gone, by kill -9 too, the kernel takes socket, namespace
// and pair away, so nothing is left behind and nothing has to be cleaned up.
//
// The stack's MAC address is not that of the device: the namespace's own IP layer sees every frame as another host's and
// drops it at once, after the packet socket took its copy.
//
// The kernel takes a namespace away some time after its last user died, and without the right to make one (CAP_SYS_ADMIN) both ends stay in
// the host's network and outlive a killed family. So an abstract socket named after the pair is held by the family, and a pair
// without one is stale and removed by the next wire that finds it: a server that is started again gets the address it had.
#include <cstring>

#include "netstack/wires/eal.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/link_broker.h"
#include "netstack/wires/kernel/veth_links.h"
#include "netstack/wires/opening.h"

namespace netstack {
namespace {

// Both ends are ours, so the MTU need not be Ethernet's. With a frame as large as a page a kernel
// redis-benchmark with 64 KB values got 1.4 to 2.8 times the requests it got with 1500 (4 and 50 clients, two rounds each), and with
// 3-byte values the same. It added 3 MB to the RSS, which a small stack does not have.
constexpr uint32_t kPageMtu = 3998;
constexpr uint32_t kEthernetMtu = 1500;
constexpr uint32_t kPageMtuFromMb = 32;
// The link itself lets larger frames through, the largest that a pbuf can hold: the kernel's TCP then thinks in segments of its loopback's
// size. In segments of a page its congestion control (BBR, which paces) starts with a tenth of the speed, and is held back later as well:
// redis-benchmark with 64 KB values set with four clients 1.8 times as many of them with this (20 000 requests), 1.4 times in the first 25
// ms (1000).
constexpr uint32_t kLinkMtu = 65500;

// What is sent there needs no frame as long as it is (send_tcp_with()). A quarter of the link's, so that four travel together, and so that
// a peer's window is not one segment. What lwIP may send is bounded by TCP_MSS, which says the same.
constexpr uint16_t kLongSegment = 16320;

uint32_t stack_mtu(const StackConfig& config) noexcept {
  if (config.mtu != 0) return config.mtu;
  return config.memory_mb == 0 || config.memory_mb >= kPageMtuFromMb ? kPageMtu : kEthernetMtu;
}

uint32_t link_mtu(const StackConfig& config, uint32_t mtu) noexcept { return config.mtu == 0 && mtu == kPageMtu ? kLinkMtu : mtu; }

}  // namespace

base::Result<Wire*> open_veth(const Opening& opening) noexcept {
  const uint32_t mtu = stack_mtu(opening.config);
  const uint32_t of_link = link_mtu(opening.config, mtu);
  // The broker sees /proc, which a process may have left behind.
  auto links = has_link_broker() ? ask_link_broker(opening.out) : make_veth_links(opening, of_link);
  if (!links && has_link_rights()) links = make_veth_links(opening, of_link);
  if (!links) return links.error();
  const RingShape shape = ring_shape(opening, mtu);
  PacketSockets sockets(links->packets, shape.block_bytes, shape.slot_bytes, shape.slots);
  auto started = start_eal();
  auto wire = started ? open_packet_wire(opening, links->interface, true, mtu, sockets) : base::Result<DpdkWire*>(started.error());
  if (!wire) {
    remove_veth_links(*links);
    return wire.error();
  }
  WireFacts& facts = (*wire)->mutable_facts();
  memcpy(facts.name, "veth", 5);
  facts.ends_here = true;
  if (links->host_interface > 0) facts.interface = links->host_interface;
  facts.name_fd = links->name_fd;
  if (of_link != mtu) {
    facts.gro_max_size = static_cast<uint16_t>(of_link);
    facts.gso_max_size = kLongSegment;
    facts.host_be = links->host_be;
  }
  random_mac(facts.mac);
  return *wire;
}

void keep_veth_rights(const StackConfig& config) noexcept {
  start_link_broker(config, [](const Opening& opening) noexcept {
    return make_veth_links(opening, link_mtu(opening.config, stack_mtu(opening.config)));
  });
}

}  // namespace netstack
