// Makes a veth pair, its other end in a namespace without a name, and packet sockets there.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/veth_links.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <initializer_list>
#include <sched.h>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/rtnetlink.h"
#include "netstack/wires/kernel/steering_program.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kMaxPairs = 256;
constexpr int kMostLooks = 50;
constexpr timespec kBetweenLooks{0, 1'000'000};

struct Pair {
  char name[16];       // the kernel side
  char peer_name[16];
  int number;
  int name_fd;
};

base::Error refused(const char* what, long error) noexcept {
  if (error == -EPERM || error == -EACCES) {
    return base::make_error("wire veth: cannot %s without CAP_NET_ADMIN and CAP_NET_RAW: run as root, give the program these capabilities "
                            "(setpriv --ambient-caps +net_admin,+net_raw), or use ZPS_WIRE=memif:/path",
                            what);
  }
  if (error == -EAFNOSUPPORT) {
    return base::make_error(
        "wire veth: cannot %s: sockets of AF_NETLINK or AF_PACKET are refused (RestrictAddressFamilies= of the service?); allow them, or "
        "use ZPS_WIRE=memif:/path",
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
      if (fd >= 0) (void)base::close_high_fd(fd);
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
    pair.name_fd = hold_link_name(pair.name);
    if (pair.name_fd < 0) continue;
    const VethRequest request{pair.name, pair.peer_name, peer_space, device_mac, mtu};
    result = host.make_veth(request);
    // The name is ours: what has it was the last program's. The kernel may be about to take it away, or through with it by now.
    for (int look = 0; look < kMostLooks && result == -EEXIST; look++) {
      if (!(peer_space >= 0 ? is_veth(pair.name) || link_index(pair.name) < 0 : link_index(pair.peer_name) >= 0)) break;
      if (look > 0) (void)kernel_call(SYS_nanosleep, as_arg(&kBetweenLooks), 0);
      (void)host.remove_link(pair.name);
      result = host.make_veth(request);
    }
    if (result != 0) (void)base::close_high_fd(pair.name_fd);
  }
  if (result != 0) return refused("make a pair of links", result);
  return pair;
}

// `addressed`: the host's end has addresses.
base::Result<VethLinks> make_links(const Opening& opening, uint32_t mtu, bool addressed) noexcept {
  Spaces spaces;
  const PacketFds packets = make_packet_fds();
  if (const long result = spaces.enter_host(); result != 0) return refused("return to the host's network namespace", result);
  RtNetlink host;
  auto pair = make_pair(host, spaces.own(), mtu);
  if (!pair) {
    close_packet_fds(packets);
    return pair.error();
  }
  const uint32_t host_be = addressed ? choose_host_addresses(opening, pair->number) : 0;
  VethLinks links{packets, pair->name_fd, 0, link_index(pair->name), pair->number, host_be, spaces.own() >= 0};
  memcpy(opening.out->wire, base::make_error("veth %s (af_packet)", pair->name).text, sizeof opening.out->wire);
  const char* what = "give its link an address";
  long result = addressed ? host.add_address(pair->name, links.host_be, opening.out->prefix) : 0;
  if (result == 0 && addressed) result = add_host_addresses6(opening, host, pair->name);
  if (result == 0) result = host.set_up(pair->name);
  if (result == 0) {
    what = "switch its link on";
    result = spaces.enter_own();
  }
  if (result == 0) result = RtNetlink().set_up(pair->peer_name);
  if (result == 0) links.interface = link_index(pair->peer_name);
  // The frames have the station of the host, so that the namespace would look for a route for each before it drops it.
  if (links.interface > 0 && links.in_namespace && !addressed) links.drop_fd = link_drop(links.interface);
  (void)spaces.enter_host();
  if (result == 0 && links.interface > 0) return links;
  close_packet_fds(packets);
  remove_veth_links(links);
  return refused(what, result);
}

}  // namespace

base::Result<VethLinks> make_veth_links(const Opening& opening, uint32_t mtu) noexcept { return make_links(opening, mtu, true); }
base::Result<VethLinks> make_bare_links(const Opening& opening, uint32_t mtu) noexcept { return make_links(opening, mtu, false); }

void remove_veth_links(const VethLinks& links) noexcept {
  (void)RtNetlink().remove_link(base::make_error("zps%d", links.number).text);
  if (links.drop_fd >= 0) (void)base::close_high_fd(links.drop_fd);
  (void)base::close_high_fd(links.name_fd);
}

}  // namespace netstack
