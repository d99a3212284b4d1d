// Probes of what the wires need that share an interface with the kernel.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "apps/zpstack/probes/probes.h"
#include "apps/zpstack/probes/trial.h"

namespace tool {
namespace {

constexpr uint32_t kTcxIngress = 46;  // BPF_TCX_INGRESS of Linux 6.6
constexpr int kLoopback = 1;          // in a fresh namespace
constexpr int kNoNamespace = 255;

int bpf(int command, bpf_attr& attributes) { return static_cast<int>(syscall(SYS_bpf, command, &attributes, sizeof attributes)); }

// Loads a program that passes everything, and links it to the loopback of a throw-away namespace: 0, an errno, or the above, if only the
// latter could not be tried.
int link_program(uint32_t type, uint32_t attach, uint32_t flags) {
  const int verdict = type == BPF_PROG_TYPE_XDP ? int{XDP_PASS} : -1;
  const bpf_insn code[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, verdict}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  bpf_attr attributes{};
  attributes.prog_type = type;
  attributes.insns = reinterpret_cast<uint64_t>(code);
  attributes.insn_cnt = sizeof code / sizeof *code;
  attributes.license = reinterpret_cast<uint64_t>("BSD");
  const int program = bpf(BPF_PROG_LOAD, attributes);
  if (program < 0) return errno;
  if (unshare(CLONE_NEWNET) != 0) return kNoNamespace;
  attributes = {};
  attributes.link_create.prog_fd = static_cast<uint32_t>(program);
  attributes.link_create.target_ifindex = kLoopback;
  attributes.link_create.attach_type = attach;
  attributes.link_create.flags = flags;
  return bpf(BPF_LINK_CREATE, attributes) < 0 ? errno : 0;
}

std::string mend_link(int error) {
  if (error == EPERM || error == EACCES)
    return "run as root of the initial user namespace, or give the program CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF";
  return error == EINVAL || error == ENOSYS ? "a kernel from Linux 6.6 on, with CONFIG_BPF_SYSCALL" : "";
}

std::string interface_of(const base::Config& config) {
  const std::string wire = config.wire;
  const size_t colon = wire.find(':');
  return colon == std::string::npos ? "" : wire.substr(colon + 1, wire.find(',', colon) - colon - 1);
}

// What is wrong with an interface, or nothing. `needs_address`: it must have one of IPv4.
std::string fault_of(const std::string& name, bool needs_address) {
  ifreq request{};
  if (name.size() >= sizeof request.ifr_name) return "there is no such interface here";
  strcpy(request.ifr_name, name.c_str());
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  std::string fault;
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) fault = "there is no such interface here";
  else if ((request.ifr_flags & IFF_LOOPBACK) != 0) fault = "it is the loopback interface, which leads to no network";
  else if ((request.ifr_flags & IFF_UP) == 0) fault = "it is down";
  else if (ioctl(fd, SIOCGIFHWADDR, &request) == 0 && request.ifr_hwaddr.sa_family != ARPHRD_ETHER) fault = "it is no Ethernet";
  else if (needs_address && ioctl(fd, SIOCGIFADDR, &request) != 0) fault = "it has no IPv4 address to share";
  close(fd);
  return fault;
}

}  // namespace

Finding probe_host_wire(const Needs& needs) {
  const int error = in_child([] { return link_program(BPF_PROG_TYPE_SCHED_CLS, kTcxIngress, 0); });
  if (error == 0) return {"sharing (tcx)", State::ok, "a program was linked to an interface, and is gone again: host:interface works", ""};
  if (error == kNoNamespace) return {"sharing (tcx)", State::ok, "a program can be loaded; none was linked: no namespace to try it in", ""};
  return {"sharing (tcx)", lack(needs.host), fmt::format("no program can be linked to an interface: {}; no wire host", strerror(error)),
          mend_link(error)};
}

Finding probe_af_xdp(const Needs& needs) {
  const int error = in_child([] {
    if (socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0) < 0) return errno;
    return link_program(BPF_PROG_TYPE_XDP, BPF_XDP, XDP_FLAGS_SKB_MODE);
  });
  if (error == 0) {
    return {"AF_XDP", State::ok,
            "a socket was made, a program was linked, both are gone again: af_xdp:interface works; native or not is the driver's to say",
            ""};
  }
  if (error == kNoNamespace)
    return {"AF_XDP", State::ok, "a socket can be made, a program loaded; none was linked: no namespace to try it in", ""};
  return {"AF_XDP", lack(needs.xdp), fmt::format("{}: no wire af_xdp", strerror(error)),
          error == EAFNOSUPPORT ? "a kernel with CONFIG_XDP_SOCKETS" : mend_link(error)};
}

Finding probe_interface(const base::Config& config, const Needs& needs) {
  const std::string name = interface_of(config);
  if (!needs.interface || name.empty()) return {"interface", State::ok, "the wire names none", ""};
  const std::string fault = fault_of(name, needs.host || needs.xdp);
  if (fault.empty()) return {"interface", State::ok, name + " can be used", ""};
  return {"interface", State::missing, fmt::format("{}: {}", name, fault), "`ip address` shows what there is"};
}

}  // namespace tool
