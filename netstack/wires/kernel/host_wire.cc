// The host wire: an interface of the host and its address, shared with the kernel.
// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel keeps the address, its neighbours, its routes and every port that no prefixed program has; two programs in the kernel
// (steering_program.h) bring the frames of ours to the stack's end of a veth pair and take what it sends from there to the interface. So
// the wire itself is a packet wire like the default one, on a pair whose other end has no address.
//
// What the family holds, and what goes with its last member: the packet sockets, and with them the namespace of the stack's end and the
// pair; the links, and with them the programs. Nothing is pinned.
#include <cerrno>
#include <cstring>
#include <new>

#include "base/high_fd.h"
#include "base/log.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/kernel/kernel_routes.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/link_broker.h"
#include "netstack/wires/kernel/packet_wire.h"
#include "netstack/wires/kernel/rtnetlink.h"
#include "netstack/wires/kernel/shared_interface.h"
#include "netstack/wires/kernel/steering_program.h"
#include "netstack/wires/kernel/veth_links.h"
#include "netstack/wires/opening.h"

namespace netstack {
namespace {

// What comes may be as long as a segment gets, whatever the interface's MTU, and that may change.
constexpr uint32_t kPairMtu = 65500;
constexpr uint32_t kFrameHeader = 14;

class HostWire final : public PacketWire {
 public:
  HostWire(const PacketParts& parts, const SharedInterface& device, const IpNetwork& address, PortSteering* steering,
           const KernelRoutes& routes) noexcept
      : PacketWire(parts), steering_(steering), longest_(parts.shape.frame_room - kFrameHeader), device_(device), routes_(routes) {
    fill_shared_facts(device, address, facts_);
    follow();
  }

  [[nodiscard]] PortSteering* steering() const noexcept override { return steering_; }
  [[nodiscard]] bool leads_to(const IpAddress& address) const noexcept override { return routes_.lead_to(address); }
  [[nodiscard]] int control_fd() noexcept override { return routes_.changes_fd(); }
  void run_control() noexcept override {
    if (routes_.take_changes(nullptr, nullptr) && routes_.read() == 0) follow();
  }
  void follow() noexcept { follow_interface(routes_, longest_, device_, *steering_, facts_); }

 private:
  PortSteering* const steering_;
  const uint32_t longest_;  // IP packet that fits a frame of the pool
  SharedInterface device_;
  KernelRoutes routes_;
};

base::Result<bool> steer(const SharedInterface& device, VethLinks& links) noexcept {
  const base::Error pair = base::make_error("zps%d", links.number);
  const SteeringPath path{device.index, link_index(pair.text), links.in_namespace ? -1 : links.interface};
  const char* what = nullptr;
  const long error = link_steering(path, &links.steering, &what);
  if (error == 0) return true;
  return refused(device, what, error);
}

void unmake(const VethLinks& links) noexcept {
  close_steering(links.steering);
  remove_veth_links(links);
}

// All that takes rights.
base::Result<VethLinks> make_links(const Opening& opening) noexcept {
  auto device = find_interface("host", opening.argument);
  if (!device) return device.error();
  if (!has_link_rights()) return refused(*device, "make links", -EPERM);
  auto links = make_bare_links(opening, kPairMtu);
  if (!links) return links.error();
  if (auto steered = steer(*device, *links); !steered) {
    unmake(*links);
    return steered.error();
  }
  return links;
}

base::Result<Wire*> open_on(const Opening& opening, const SharedInterface& device, const KernelRoutes& routes, const IpNetwork& address,
                            const VethLinks& links, PacketSockets& sockets, uint32_t mtu) noexcept {
  if (auto started = start_eal(); !started) return started.error();
  auto parts = prepare_packet_wire(opening, links.interface, true, mtu, sockets, sizeof(HostWire));
  if (!parts) return parts.error();
  PortSteering* const steering = map_steering(links.steering.board);
  if (steering == nullptr) return base::make_error("wire host:%s: no address space for its ports", device.name);
  for (int i = 0; i < kMostIp6Addresses; i++) memcpy(steering->words_be[i], opening.out->ip6[i].address.words_be, 16);
  auto* const wire = new (parts->memory.object) HostWire(*parts, device, address, steering, routes);
  wire->mutable_facts().name_fd = links.name_fd;
  return wire;
}

base::Result<Wire*> open_sharing(const Opening& opening, const SharedInterface& device, const KernelRoutes& routes) noexcept {
  auto address = find_address(opening, device, routes);
  if (!address) return address.error();
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : routes.mtu();
  auto links = has_link_broker() ? ask_link_broker(opening.out) : make_links(opening);
  if (!links && has_link_rights()) links = make_links(opening);
  if (!links) return links.error();
  say_where(opening, *address, routes);
  memcpy(opening.out->wire, base::make_error("host %s (zps%d)", device.name, links->number).text, sizeof opening.out->wire);
  const RingShape shape = ring_shape(opening, mtu);
  PacketSockets sockets(links->packets, shape.block_bytes, shape.slot_bytes, shape.slots);
  auto wire = open_on(opening, device, routes, *address, *links, sockets, mtu);
  if (!wire) unmake(*links);
  return wire;
}

}  // namespace

base::Result<Wire*> open_host(const Opening& opening) noexcept {
  auto device = find_interface("host", opening.argument);
  if (!device) return device.error();
  KernelRoutes routes;
  if (const long error = routes.open(device->index); error != 0) return refused(*device, "read its addresses and routes", error);
  auto wire = open_sharing(opening, *device, routes);
  if (!wire) routes.close();
  return wire;
}

void keep_host_rights(const StackConfig& config) noexcept { start_link_broker(config, make_links); }

}  // namespace netstack
