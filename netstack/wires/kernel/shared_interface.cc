// Finds the interface, its address, and the words for what is wrong with it.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/shared_interface.h"

#include <cerrno>
#include <cstring>
#include <linux/if_arp.h>

#include "base/log.h"
#include "netstack/wires/kernel/rtnetlink.h"

namespace netstack {

base::Error refused(const SharedInterface& device, const char* what, long error) noexcept {
  if (error == -EPERM || error == -EACCES) {
    return base::make_error("wire %s:%s: cannot %s without CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF in the initial user namespace: run as "
                            "root, or give the program these capabilities",
                            device.kind, device.name, what);
  }
  return base::make_error("wire %s:%s: cannot %s: error %ld", device.kind, device.name, what, -error);
}

// The interface that is named, or that of the default route.
base::Result<SharedInterface> find_interface(const char* kind, const char* name) noexcept {
  SharedInterface device{kind, {}, 0};
  if (*name == '\0') {
    device.index = default_interface();
    if (device.index <= 0 || link_name(device.index, device.name) != 0)
      return base::make_error("wire %s: there is no default route here: name the interface (%s:eth0)", kind, kind);
  } else {
    if (strlen(name) >= sizeof device.name || (device.index = link_index(name)) < 0)
      return base::make_error("wire %s: there is no network device \"%s\" here", kind, name);
    memcpy(device.name, name, strlen(name) + 1);
  }
  if ((link_flags(device.name) & IFF_LOOPBACK) != 0)
    return base::make_error("wire %s:%s: this is the loopback interface, which leads to no network: name one that does", kind,
                            device.name);
  if (link_type(device.name) != ARPHRD_ETHER) return base::make_error("wire %s:%s: this is not an Ethernet interface", kind, device.name);
  return device;
}

base::Result<IpNetwork> find_address(const Opening& opening, const SharedInterface& device, const KernelRoutes& routes) noexcept {
  const uint32_t wanted_be = opening.config.address_be;
  const IpNetwork address = routes.address(wanted_be);
  if (address.prefix == 0) return base::make_error("wire %s:%s: the interface has no IPv4 address to share", device.kind, device.name);
  if (wanted_be == 0 || address.address.v4_be() == wanted_be) return address;
  return base::make_error("wire %s:%s: the interface does not have the address that ZPS_IP names", device.kind, device.name);
}

namespace {

using base::log, base::LogLevel;

SharedInterface::State state_of(const KernelRoutes& routes, const IpNetwork& own) noexcept {
  using State = SharedInterface::State;
  if (!routes.is_there()) return State::gone;
  if (!routes.is_up()) return State::down;
  return own.prefix == 0 ? State::without_address : State::usual;
}

void tell(SharedInterface& device, SharedInterface::State state, uint32_t before_be, uint32_t now_be) noexcept {
  using State = SharedInterface::State;
  const bool other = state == State::usual && now_be != before_be;
  if (state == device.said && !other) return;
  device.said = state;
  char before[16], now[16];
  format_address(before_be, before);
  format_address(now_be, now);
  switch (state) {
    case State::gone:
      return log(LogLevel::warn, "the interface %s is gone: the network does not reach the program until it is started again", device.name);
    case State::down: return log(LogLevel::warn, "the interface %s is down: connections wait until it is up again", device.name);
    case State::without_address:
      return log(LogLevel::warn, "the interface %s has lost its address %s: connections wait for its return", device.name, before);
    case State::usual: return log(LogLevel::info, "the interface %s is up and has the address %s", device.name, now);
  }
}

}  // namespace

void say_where(const Opening& opening, const IpNetwork& address, const KernelRoutes& routes) noexcept {
  WireAddress& out = *opening.out;
  out.address_be = address.address.v4_be();
  out.prefix = address.prefix;
  routes.addresses6(out.ip6);
  char text[16];
  format_address(out.address_be, text);
  memcpy(out.reach, base::make_error("%s, shared with the kernel", text).text, sizeof out.reach);
}

void fill_shared_facts(const SharedInterface& device, const IpNetwork& address, WireFacts& facts) noexcept {
  memcpy(facts.name, device.kind, strlen(device.kind) + 1);
  facts.shared = true;
  facts.ends_here = is_veth(device.name);  // as to another namespace
  facts.interface = device.index;
  facts.address_be = address.address.v4_be();
}

void follow_interface(const KernelRoutes& routes, uint32_t longest, SharedInterface& device, PortSteering& steering,
                      WireFacts& facts) noexcept {
  const IpNetwork own = routes.address(facts.address_be);
  tell(device, state_of(routes, own), facts.address_be, own.prefix != 0 ? own.address.v4_be() : 0);
  if (own.prefix != 0) facts.address_be = own.address.v4_be();
  steering.address = own.prefix != 0 ? __builtin_bswap32(facts.address_be) : 0;
  const uint8_t* const mac = routes.mac();
  memcpy(facts.mac, mac, sizeof facts.mac);
  steering.station[0] = uint32_t{mac[0]} << 24 | uint32_t{mac[1]} << 16 | uint32_t{mac[2]} << 8 | mac[3];
  steering.station[1] = uint32_t{mac[4]} << 8 | mac[5];
  const uint32_t mtu = routes.mtu();
  if (mtu != 0) facts.mtu = static_cast<uint16_t>(mtu < longest ? mtu : longest);
}

}  // namespace netstack
