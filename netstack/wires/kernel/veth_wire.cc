// The veth wire: a pair whose kernel side is in the host's network and whose other end is driven through a packet socket.
//
// The other end lies in a network namespace that nobody can name: this thread makes it and opens the packet sockets in it, and when the
// thread ends the sockets alone keep it. When the last member of the family is gone, by kill -9 too, the kernel takes socket, namespace
// and pair away, so nothing is left behind and nothing has to be cleaned up.
//
// The stack's MAC address is not that of the device: the namespace's own IP layer sees every frame as another host's and
// drops it at once, after the packet socket took its copy.
//
// The kernel takes a namespace away some time after its last user died, and without the right to make one (CAP_SYS_ADMIN) both ends stay in the
// host's network and outlive a killed family. So an abstract socket named after the pair is held by the family, and a pair
// without one is stale and removed by the next wire that finds it: a server that is started again gets the address it had.
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <sched.h>

#include <fcntl.h>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/rtnetlink.h"
#include "netstack/wires/opening.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kMaxPairs = 256;
// Both ends are ours, so the MTU need not be Ethernet's. With a frame as large as a page a kernel
// redis-benchmark with 64 KB values got 1.4 to 2.8 times the requests it got with 1500 (4 and 50 clients, two rounds each), and with
// 3-byte values the same. It added 3 MB to the RSS, which a small stack does not have.
constexpr uint32_t kPageMtu = 3998;
constexpr uint32_t kEthernetMtu = 1500;
constexpr uint32_t kPageMtuFromMb = 32;
// The link itself lets larger frames through, the largest that a pbuf can hold: the kernel's TCP then thinks in segments of its loopback's size. In segments of a
// page its congestion control (BBR, which paces) starts with a tenth of the speed, and is held back later as well: redis-benchmark with 64 KB
// values set with four clients 1.8 times as many of them with this (20 000 requests), 1.4 times in the first 25 ms (1000).
constexpr uint32_t kLinkMtu = 65500;

// What is sent there needs no frame as long as it is (send_tcp_with()). A quarter of the link's, so that four travel together, and so that a peer's
// window is not one segment. What lwIP may send is bounded by TCP_MSS, which says the same.
constexpr uint16_t kLongSegment = 16320;

uint32_t default_mtu(const StackConfig& config) noexcept {
  return config.memory_mb == 0 || config.memory_mb >= kPageMtuFromMb ? kPageMtu : kEthernetMtu;
}

struct Pair {
  char name[16];       // the kernel side
  char peer_name[16];
  int number;
};

base::Error refused(const char* what, long error) noexcept {
  if (error == -EPERM || error == -EACCES) {
    return base::make_error("wire veth: cannot %s without CAP_NET_ADMIN and CAP_NET_RAW: run as root, give the program these capabilities "
                            "(setpriv --ambient-caps +net_admin,+net_raw), or use ZPS_WIRE=memif:/path",
                            what);
  }
  return base::make_error("wire veth: cannot %s: error %ld", what, -error);
}

// The two network namespaces that this thread works in: the host's, and the other end's (the same if none could be made).
class Spaces {
 public:
  // Without /proc there is no way back, so no namespace is made then.
  Spaces() noexcept : host_(here()) {
    if (host_ < 0 || kernel_call(SYS_unshare, CLONE_NEWNET) != 0) return;
    own_ = here();
    left_ = own_ >= 0 || kernel_call(SYS_setns, host_, CLONE_NEWNET) != 0;
    if (own_ < 0) return;
    // IPv6 would only send router solicitations.
    const long file = kernel_call(SYS_open, as_arg("/proc/sys/net/ipv6/conf/default/disable_ipv6"), O_WRONLY | O_CLOEXEC);
    if (file < 0) return;
    (void)kernel_call(SYS_write, file, as_arg("1"), 1);
    (void)kernel_call(SYS_close, file);
  }
  ~Spaces() {
    for (const int fd : {host_, own_}) {
      if (fd >= 0) (void)kernel_call(SYS_close, fd);
    }
  }
  Spaces(const Spaces&) = delete;
  Spaces& operator=(const Spaces&) = delete;

  [[nodiscard]] int own() const noexcept { return own_; }
  [[nodiscard]] long enter_host() const noexcept { return left_ ? kernel_call(SYS_setns, host_, CLONE_NEWNET) : 0; }
  [[nodiscard]] long enter_own() const noexcept { return own_ < 0 ? 0 : kernel_call(SYS_setns, own_, CLONE_NEWNET); }

 private:
  static int here() noexcept {
    return base::move_fd_high(static_cast<int>(kernel_call(SYS_open, as_arg("/proc/thread-self/ns/net"), O_RDONLY | O_CLOEXEC)));
  }

  int host_;
  int own_ = -1;
  bool left_ = false;
};

// Makes the pair with the lowest free number; the host's namespace is entered.
base::Result<Pair> make_pair(RtNetlink& host, int peer_space, uint32_t mtu) noexcept {
  Pair pair{};
  uint8_t device_mac[6];
  random_mac(device_mac);
  long result = -EEXIST;
  for (int n = 0; n < kMaxPairs && result == -EEXIST; n++) {
    pair.number = n;
    memcpy(pair.name, base::make_error("zps%d", n).text, sizeof pair.name);
    memcpy(pair.peer_name, base::make_error("zps%d-stack", n).text, sizeof pair.peer_name);
    const int name_fd = hold_link_name(pair.name);
    if (name_fd < 0) continue;
    const VethRequest request{pair.name, pair.peer_name, peer_space, device_mac, mtu};
    result = host.make_veth(request);
    if (result == -EEXIST && (peer_space >= 0 ? is_veth(pair.name) : link_index(pair.peer_name) >= 0)) {
      (void)host.remove_link(pair.name);
      result = host.make_veth(request);
    }
    if (result != 0) (void)kernel_call(SYS_close, name_fd);
  }
  if (result != 0) return refused("make a pair of links", result);
  return pair;
}

}  // namespace

base::Result<Wire*> open_veth(const Opening& opening) noexcept {
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : default_mtu(opening.config);
  const uint32_t link_mtu = opening.config.mtu == 0 && mtu == kPageMtu ? kLinkMtu : mtu;
  Spaces spaces;
  const RingShape shape = ring_shape(opening, mtu);
  PacketSockets sockets(shape.block_bytes, shape.slot_bytes, shape.slots);
  if (auto started = start_eal(); !started) return started.error();
  if (const long result = spaces.enter_host(); result != 0) return refused("return to the host's network namespace", result);
  RtNetlink host;
  auto pair = make_pair(host, spaces.own(), link_mtu);
  if (!pair) return pair.error();
  const uint32_t kernel_be = choose_host_addresses(opening, pair->number);
  memcpy(opening.out->wire, base::make_error("veth %s (af_packet)", pair->name).text, sizeof opening.out->wire);
  long result = host.add_address(pair->name, kernel_be, opening.out->prefix);
  if (result == 0) result = host.set_up(pair->name);
  if (result != 0) return refused("give its link an address", result);

  if (result = spaces.enter_own(); result != 0) return refused("enter its network namespace", result);
  RtNetlink own;
  if (result = own.set_up(pair->peer_name); result != 0) return refused("switch its link on", result);
  auto wire = open_packet_wire(opening, pair->peer_name, mtu, sockets);
  if (!wire) {
    (void)host.remove_link(pair->name);
    return wire.error();
  }
  WireFacts& facts = (*wire)->mutable_facts();
  memcpy(facts.name, "veth", 5);
  facts.ends_here = true;
  if (link_mtu != mtu) {
    facts.gro_max_size = static_cast<uint16_t>(link_mtu);
    facts.gso_max_size = kLongSegment;
    facts.host_be = kernel_be;
  }
  random_mac(facts.mac);
  return *wire;
}

}  // namespace netstack
