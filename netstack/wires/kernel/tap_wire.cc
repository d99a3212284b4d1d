// The tap wire: where a veth cannot be had but /dev/net/tun can. A system call per frame: the last resort.
// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's tap driver learns of frames by a real-time signal, which belongs to the program; it is told that every signal is in use
// (redirect_net_tap.syms) and then reads whenever it is asked. It keeps one frame of the pool at all times, the next to read into, and that
// is the one it took last: recover() leaves it alone. It also wants a pool for segments that it never cuts here, and gets the wire's own.
#include <csignal>
#include <cstring>
#include <new>

#include "base/syscall.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/rtnetlink.h"
#include "netstack/wires/opening.h"
#include "netstack/wires/redirected.h"

namespace netstack {
namespace {

constexpr int kMostLinks = 256;
constexpr uint32_t kDefaultMtu = 1500;
constexpr uint32_t kLeastRoom = 2048;

rte_mempool* segment_pool = nullptr;  // for the driver that is being opened

class TapWire final : public DpdkWire {
 public:
  using DpdkWire::DpdkWire;
  void recover() noexcept override {
    forget_all_frames_but([this](const void* frame) { return frame == pool_->last_for_driver(); });
  }
};

// The lowest number that no link and no other tap wire has; its name is held from here on.
int free_number() noexcept {
  for (int n = 0; n < kMostLinks; n++) {
    const base::Error name = base::make_error("zps%d", n);
    if (link_index(name.text) < 0 && hold_link_name(name.text) >= 0) return n;
  }
  return -1;
}

base::Error refused(const char* link) noexcept {
  return base::make_error(
      "wire tap: cannot make the link %s: it needs CAP_NET_ADMIN and /dev/net/tun; run as root, or use ZPS_WIRE=memif:/path", link);
}

}  // namespace

base::Result<Wire*> open_tap(const Opening& opening) noexcept {
  if (auto started = start_eal(); !started) return started.error();
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : kDefaultMtu;
  auto pool = make_pool(opening, mtu + 18 < kLeastRoom ? kLeastRoom : mtu + 18);
  if (!pool) return pool.error();
  auto memory = wire_memory(opening, sizeof(TapWire), **pool);
  if (!memory) return memory.error();
  const int number = free_number();
  if (number < 0) return base::make_error("wire tap: the names zps0 to zps%d are all taken", kMostLinks - 1);

  const base::Error link = base::make_error("zps%d", number);
  const base::Error device = base::make_error("net_tap%d", number);
  const base::Error arguments = base::make_error("iface=%s", link.text);
  segment_pool = (*pool)->mempool();
  auto port = start_port(device.text, arguments.text, *pool, 1, mtu);
  if (!port) return refused(link.text);

  auto* wire = new (memory->object) TapWire(*port, *pool, nullptr, last_dpdk_fd(), memory->queue, memory->queue_capacity);
  WireFacts& facts = wire->mutable_facts();
  memcpy(facts.name, "tap", 4);
  facts.ends_here = true;
  random_mac(facts.mac);
  facts.mtu = static_cast<uint16_t>(mtu);
  facts.link_needs_checksum = true;

  RtNetlink netlink;
  switch_offloads_off(link.text);
  const uint32_t kernel_be = choose_host_addresses(opening, number);
  const bool untagged = opening.config.vlan == 0;  // else whoever takes the VLAN off the link has its addresses
  long result = untagged ? netlink.add_address(link.text, kernel_be, opening.out->prefix) : 0;
  if (untagged && result == 0 && mtu >= 1280) result = add_host_addresses6(opening, netlink, link.text);
  if (result == 0) result = netlink.set_up(link.text, nullptr, mtu);
  if (result != 0) return refused(link.text);
  if (!untagged) {
    char text[16];
    format_address(opening.out->address_be, text);
    const base::Error reach = base::make_error("%s from VLAN %u of %s", text, opening.config.vlan, link.text);
    memcpy(opening.out->reach, reach.text, sizeof opening.out->reach - 1);
  }
  memcpy(opening.out->wire, base::make_error("tap %s", link.text).text, sizeof opening.out->wire);
  return wire;
}

}  // namespace netstack

extern "C" {

rte_mempool* zps_tap_pool_create(const char*, unsigned, unsigned, uint16_t, uint16_t, int) { return netstack::segment_pool; }

int zps_tap_sigaction(int, const struct sigaction*, struct sigaction* old) {
  if (old != nullptr) {
    *old = {};
    old->sa_handler = SIG_IGN;
  }
  return 0;
}

}  // extern "C"
