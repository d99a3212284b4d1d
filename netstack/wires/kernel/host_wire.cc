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
#include <linux/if_arp.h>
#include <linux/if.h>
#include <new>

#include "base/high_fd.h"
#include "base/log.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/kernel/kernel_routes.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/link_broker.h"
#include "netstack/wires/kernel/packet_wire.h"
#include "netstack/wires/kernel/rtnetlink.h"
#include "netstack/wires/kernel/steering_program.h"
#include "netstack/wires/kernel/veth_links.h"
#include "netstack/wires/opening.h"

namespace netstack {
namespace {

// What comes may be as long as a segment gets, whatever the interface's MTU, and that may change.
constexpr uint32_t kPairMtu = 65500;
constexpr uint32_t kFrameHeader = 14;

struct Device {
  char name[IFNAMSIZ];
  int index;
};

class HostWire final : public PacketWire {
 public:
  HostWire(const PacketParts& parts, const Device& device, const IpNetwork& address, PortSteering* steering,
           const KernelRoutes& routes) noexcept
      : PacketWire(parts), steering_(steering), longest_(parts.shape.frame_room - kFrameHeader), routes_(routes) {
    memcpy(facts_.name, "host", 5);
    facts_.shared = true;
    facts_.ends_here = is_veth(device.name);  // as to another namespace
    facts_.interface = device.index;
    facts_.address_be = address.address.v4_be();
    (void)link_mac(device.name, facts_.mac);
    follow();
  }

  [[nodiscard]] PortSteering* steering() const noexcept override { return steering_; }
  [[nodiscard]] bool leads_to(const IpAddress& address) const noexcept override { return routes_.lead_to(address); }
  [[nodiscard]] int control_fd() noexcept override { return routes_.changes_fd(); }
  void run_control() noexcept override {
    routes_.discard_changes();
    if (routes_.read() == 0) follow();
  }
  // The address may have gone, for good or for a moment: its frames are the kernel's then. Another one takes its place.
  void follow() noexcept {
    const IpNetwork own = routes_.address(facts_.address_be);
    if (own.prefix != 0) facts_.address_be = own.address.v4_be();
    steering_->address = own.prefix != 0 ? __builtin_bswap32(facts_.address_be) : 0;
    const uint32_t mtu = routes_.mtu();
    if (mtu != 0) facts_.mtu = static_cast<uint16_t>(mtu < longest_ ? mtu : longest_);
  }

 private:
  PortSteering* const steering_;
  const uint32_t longest_;  // IP packet that fits a frame of the pool
  KernelRoutes routes_;
};

base::Error refused(const char* device, const char* what, long error) noexcept {
  if (error == -EPERM || error == -EACCES) {
    return base::make_error("wire host:%s: cannot %s without CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF in the initial user namespace: run as "
                            "root, or give the program these capabilities",
                            device, what);
  }
  return base::make_error("wire host:%s: cannot %s: error %ld", device, what, -error);
}

// The interface that is named, or that of the default route.
base::Result<Device> find_device(const char* name) noexcept {
  Device device{};
  if (*name == '\0') {
    device.index = default_interface();
    if (device.index <= 0 || link_name(device.index, device.name) != 0)
      return base::make_error("wire host: there is no default route here: name the interface (host:eth0)");
  } else {
    if (strlen(name) >= sizeof device.name || (device.index = link_index(name)) < 0)
      return base::make_error("wire host: there is no network device \"%s\" here", name);
    memcpy(device.name, name, strlen(name) + 1);
  }
  if ((link_flags(device.name) & IFF_LOOPBACK) != 0)
    return base::make_error("wire host:%s: this is the loopback interface, which leads to no network: name one that does", device.name);
  if (link_type(device.name) != ARPHRD_ETHER) return base::make_error("wire host:%s: this is not an Ethernet interface", device.name);
  return device;
}

base::Result<IpNetwork> find_address(const Opening& opening, const Device& device, const KernelRoutes& routes) noexcept {
  const uint32_t wanted_be = opening.config.address_be;
  const IpNetwork address = routes.address(wanted_be);
  if (address.prefix == 0) return base::make_error("wire host:%s: the interface has no IPv4 address to share", device.name);
  if (wanted_be == 0 || address.address.v4_be() == wanted_be) return address;
  return base::make_error("wire host:%s: the interface does not have the address that ZPS_IP names", device.name);
}

void say_where(const Opening& opening, const Device& device, const VethLinks& links, const IpNetwork& address,
               const KernelRoutes& routes) noexcept {
  WireAddress& out = *opening.out;
  out.address_be = address.address.v4_be();
  out.prefix = address.prefix;
  routes.addresses6(out.ip6);
  char text[16];
  format_address(out.address_be, text);
  memcpy(out.wire, base::make_error("host %s (zps%d)", device.name, links.number).text, sizeof out.wire);
  memcpy(out.reach, base::make_error("%s, shared with the kernel", text).text, sizeof out.reach);
}

base::Result<PortSteering*> steer(const Device& device, const VethLinks& links) noexcept {
  const base::Error pair = base::make_error("zps%d", links.number);
  const SteeringPath path{device.index, link_index(pair.text), links.in_namespace ? -1 : links.interface};
  SteeringFds fds;
  const char* what = nullptr;
  const long error = link_steering(path, &fds, &what);
  PortSteering* const steering = error == 0 ? map_steering(fds.board) : nullptr;
  if (steering != nullptr) return steering;
  close_steering(fds);
  if (error != 0) return refused(device.name, what, error);
  return base::make_error("wire host:%s: no address space for its ports", device.name);
}

base::Result<Wire*> open_on(const Opening& opening, const Device& device, const KernelRoutes& routes, const IpNetwork& address,
                            const VethLinks& links, PacketSockets& sockets, uint32_t mtu) noexcept {
  if (auto started = start_eal(); !started) return started.error();
  auto parts = prepare_packet_wire(opening, links.interface, true, mtu, sockets, sizeof(HostWire));
  if (!parts) return parts.error();
  auto steering = steer(device, links);
  if (!steering) return steering.error();
  for (int i = 0; i < kMostIp6Addresses; i++) memcpy((*steering)->words_be[i], opening.out->ip6[i].address.words_be, 16);
  auto* const wire = new (parts->memory.object) HostWire(*parts, device, address, *steering, routes);
  wire->mutable_facts().name_fd = links.name_fd;
  return wire;
}

base::Result<Wire*> open_sharing(const Opening& opening, const Device& device, const KernelRoutes& routes) noexcept {
  auto address = find_address(opening, device, routes);
  if (!address) return address.error();
  if (!has_link_rights()) return refused(device.name, "make links", -EPERM);
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : routes.mtu();
  auto links = make_bare_links(opening, kPairMtu);
  if (!links) return links.error();
  say_where(opening, device, *links, *address, routes);
  const RingShape shape = ring_shape(opening, mtu);
  PacketSockets sockets(links->packets, shape.block_bytes, shape.slot_bytes, shape.slots);
  auto wire = open_on(opening, device, routes, *address, *links, sockets, mtu);
  if (!wire) remove_veth_links(*links);
  return wire;
}

}  // namespace

base::Result<Wire*> open_host(const Opening& opening) noexcept {
  auto device = find_device(opening.argument);
  if (!device) return device.error();
  KernelRoutes routes;
  if (const long error = routes.open(device->index); error != 0) return refused(device->name, "read its addresses and routes", error);
  auto wire = open_sharing(opening, *device, routes);
  if (!wire) routes.close();
  return wire;
}

}  // namespace netstack
