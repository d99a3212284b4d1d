// Probes of what the wires need.
// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/capability.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "apps/zpstack/probes/probes.h"
#include "apps/zpstack/probes/trial.h"

namespace tool {
namespace {

// Whether such a socket can be made: 0 or an errno.
int try_socket(int family, int type) {
  const int fd = socket(family, type | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  close(fd);
  return 0;
}

constexpr int kNoDevice = 254;
constexpr int kNoNamespace = 255;

// A TAP interface in a throw-away namespace: 0, an errno, or one of the two above.
int make_tap() {
  const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) return kNoDevice;
  if (unshare(CLONE_NEWNET) != 0) return kNoNamespace;
  ifreq request{};
  strcpy(request.ifr_name, "trial0");
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  // The device takes the namespace of the moment it was opened, so it is opened again inside.
  const int inside = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (inside < 0) return kNoDevice;
  return ioctl(inside, TUNSETIFF, &request) == 0 ? 0 : errno;
}

}  // namespace

Needs Needs::of(const base::Config& config) {
  const std::string hook = config.hook;
  const std::string wire = config.wire;
  const auto is = [&wire](const char* kind) { return wire.rfind(kind, 0) == 0; };
  Needs needs{};
  needs.page_zero = hook == "zpoline";
  needs.page_zero_is_wanted = hook == "auto";
  needs.dispatch = hook == "sud";
  needs.veth = is("veth") || is("host");
  needs.tap = is("tap");
  needs.host = is("host");
  needs.xdp = is("af_xdp");
  needs.packet = needs.veth || needs.xdp || is("af_packet");
  needs.interface = needs.host || needs.xdp || is("af_packet");
  return needs;
}

Finding probe_net_admin(const Needs& needs) {
  const bool needed = needs.veth || needs.tap;
  if (has_capability(CAP_NET_ADMIN)) return {"CAP_NET_ADMIN", State::ok, "interfaces can be made", ""};
  return {"CAP_NET_ADMIN", lack(needed), "interfaces cannot be made: no veth or tap wire", mend_capability("net_admin")};
}

Finding probe_net_raw(const Needs& needs) {
  if (has_capability(CAP_NET_RAW)) return {"CAP_NET_RAW", State::ok, "frames can be sent and received through interfaces", ""};
  return {"CAP_NET_RAW", lack(needs.packet), "no veth or af_packet wire", mend_capability("net_raw")};
}

Finding probe_namespace() {
  const int error = in_child([] { return unshare(CLONE_NEWNET) == 0 ? 0 : errno; });
  if (error == 0) return {"network namespaces", State::ok, "the stack's end of a veth pair can be put out of sight", ""};
  return {"network namespaces", State::absent, "none can be made: the stack's end of a veth pair stays visible on the host",
          "optional: " + mend_capability("sys_admin")};
}

Finding probe_veth(const Needs& needs) {
  bool namespace_refused = false;
  const int error = try_veth(&namespace_refused);
  if (error == 0) return {"veth", State::ok, "a pair was made in a namespace of its own, and is gone again", ""};
  if (namespace_refused && has_capability(CAP_NET_ADMIN)) return {"veth", State::absent, "not tried: no namespace to try it in", ""};
  const std::string mend = error == EOPNOTSUPP ? "`modprobe veth`" : mend_capability("net_admin");
  return {"veth", lack(needs.veth), fmt::format("a pair cannot be made: {}", strerror(error)), mend};
}

Finding probe_af_packet(const Needs& needs) {
  const int error = try_socket(AF_PACKET, SOCK_RAW);
  if (error == 0) return {"AF_PACKET", State::ok, "sockets can be made", ""};
  return {"AF_PACKET", lack(needs.packet), strerror(error), error == EAFNOSUPPORT ? "`modprobe af_packet`" : mend_capability("net_raw")};
}

Finding probe_tap(const Needs& needs) {
  const int error = in_child(make_tap);
  if (error == 0) return {"/dev/net/tun", State::ok, "a TAP interface was made in a namespace of its own, and is gone again", ""};
  if (error == kNoDevice)
    return {"/dev/net/tun", lack(needs.tap), "cannot be opened: no tap wire", "`modprobe tun`; in a container: --device /dev/net/tun"};
  if (error == kNoNamespace)
    return {"/dev/net/tun", State::ok, "can be opened; a TAP interface was not tried: no namespace to try it in", ""};
  return {"/dev/net/tun", lack(needs.tap), fmt::format("no TAP interface: {}", strerror(error > 0 ? error : EIO)),
          mend_capability("net_admin")};
}

}  // namespace tool
