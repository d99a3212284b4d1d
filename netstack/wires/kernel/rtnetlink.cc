// Builds rtnetlink requests and reads their acknowledgements.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/rtnetlink.h"

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/high_fd.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

// One request under construction.
struct Request {
  alignas(nlmsghdr) char bytes[1024] = {};
  size_t length = NLMSG_HDRLEN;

  Request(uint16_t type, uint16_t flags) noexcept {
    header().nlmsg_type = type;
    header().nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    header().nlmsg_seq = 1;
  }

  [[nodiscard]] nlmsghdr& header() noexcept { return *reinterpret_cast<nlmsghdr*>(bytes); }

  void append(const void* what, size_t count) noexcept {
    CHECK(NLMSG_ALIGN(length) + count <= sizeof bytes);
    memcpy(bytes + NLMSG_ALIGN(length), what, count);
    length = NLMSG_ALIGN(length) + count;
    header().nlmsg_len = static_cast<uint32_t>(length);
  }
  void attribute(uint16_t type, const void* value, size_t count) noexcept {
    const rtattr head{static_cast<uint16_t>(RTA_LENGTH(count)), type};
    append(&head, sizeof head);
    append(value, count);
  }
  void attribute(uint16_t type, const char* text) noexcept { attribute(type, text, strlen(text) + 1); }
  void attribute(uint16_t type, uint32_t value) noexcept { attribute(type, &value, sizeof value); }

  rtattr* open_nest(uint16_t type) noexcept {
    auto* nest = reinterpret_cast<rtattr*>(bytes + NLMSG_ALIGN(length));
    const rtattr head{0, type};
    append(&head, sizeof head);
    return nest;
  }
  void close_nest(rtattr* nest) noexcept {
    length = NLMSG_ALIGN(length);
    header().nlmsg_len = static_cast<uint32_t>(length);
    nest->rta_len = static_cast<uint16_t>(bytes + length - reinterpret_cast<char*>(nest));
  }
};

// Runs an interface ioctl on a throw-away socket.
long interface_call(unsigned long command, ifreq* request) noexcept {
  const long fd = kernel_call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fd;
  const long result = kernel_call(SYS_ioctl, fd, static_cast<long>(command), as_arg(request));
  (void)kernel_call(SYS_close, fd);
  return result;
}

ifreq named(const char* name) noexcept {
  ifreq request{};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return request;
}

}  // namespace

RtNetlink::RtNetlink() noexcept
    : fd_(base::move_fd_high(static_cast<int>(kernel_call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)))) {}

RtNetlink::~RtNetlink() {
  if (fd_ >= 0) (void)base::close_high_fd(fd_);
}

long RtNetlink::exchange(void* request) noexcept {
  if (fd_ < 0) return fd_;
  const long sent = kernel_call(SYS_sendto, fd_, as_arg(request), static_cast<nlmsghdr*>(request)->nlmsg_len, 0, 0, 0);
  if (sent < 0) return sent;
  alignas(nlmsghdr) char answer[1024];
  const long length = kernel_call(SYS_recvfrom, fd_, as_arg(answer), sizeof answer, 0, 0, 0);
  if (length < 0) return length;
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer);
  if (length < static_cast<long>(NLMSG_LENGTH(sizeof(nlmsgerr))) || header->nlmsg_type != NLMSG_ERROR) return -EPROTO;
  return static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
}

long RtNetlink::make_veth(const VethRequest& veth) noexcept {
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  const ifinfomsg link{};
  request.append(&link, sizeof link);
  request.attribute(IFLA_IFNAME, veth.name);
  request.attribute(IFLA_MTU, veth.mtu);
  rtattr* info = request.open_nest(IFLA_LINKINFO);
  request.attribute(IFLA_INFO_KIND, "veth", 4);
  rtattr* data = request.open_nest(IFLA_INFO_DATA);
  rtattr* peer = request.open_nest(VETH_INFO_PEER);
  request.append(&link, sizeof link);
  request.attribute(IFLA_IFNAME, veth.peer_name);
  request.attribute(IFLA_MTU, veth.mtu);
  request.attribute(IFLA_ADDRESS, veth.peer_mac, 6);
  if (veth.peer_namespace_fd >= 0) request.attribute(IFLA_NET_NS_FD, static_cast<uint32_t>(veth.peer_namespace_fd));
  request.close_nest(peer);
  request.close_nest(data);
  request.close_nest(info);
  return exchange(request.bytes);
}

long RtNetlink::remove_link(const char* name) noexcept {
  Request request(RTM_DELLINK, 0);
  const ifinfomsg link{};
  request.append(&link, sizeof link);
  request.attribute(IFLA_IFNAME, name);
  return exchange(request.bytes);
}

long RtNetlink::set_up(const char* name, const uint8_t* mac, uint32_t mtu) noexcept {
  Request request(RTM_NEWLINK, 0);
  ifinfomsg link{};
  link.ifi_flags = link.ifi_change = IFF_UP;
  request.append(&link, sizeof link);
  request.attribute(IFLA_IFNAME, name);
  if (mac != nullptr) request.attribute(IFLA_ADDRESS, mac, 6);
  if (mtu != 0) request.attribute(IFLA_MTU, mtu);
  return exchange(request.bytes);
}

long RtNetlink::add_address(const char* name, int family, const void* address, size_t bytes, uint8_t prefix) noexcept {
  Request request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
  ifaddrmsg message{};
  message.ifa_family = static_cast<uint8_t>(family);
  message.ifa_prefixlen = prefix;
  message.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
  const int index = link_index(name);
  if (index < 0) return index;
  message.ifa_index = static_cast<uint32_t>(index);
  request.append(&message, sizeof message);
  request.attribute(IFA_LOCAL, address, bytes);
  request.attribute(IFA_ADDRESS, address, bytes);
  return exchange(request.bytes);
}

long RtNetlink::add_address(const char* name, uint32_t address_be, uint8_t prefix) noexcept {
  return add_address(name, AF_INET, &address_be, sizeof address_be, prefix);
}

long RtNetlink::add_address(const char* name, const IpNetwork& address) noexcept {
  return add_address(name, AF_INET6, address.address.words_be, sizeof address.address.words_be, address.prefix);
}

int open_rtnetlink(uint32_t groups) noexcept {
  const long made = kernel_call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (made < 0) return static_cast<int>(made);
  sockaddr_nl name{};
  name.nl_family = AF_NETLINK;
  name.nl_groups = groups;
  const long bound = kernel_call(SYS_bind, made, as_arg(&name), sizeof name);
  if (bound == 0) return base::move_fd_high(static_cast<int>(made));
  (void)kernel_call(SYS_close, made);
  return static_cast<int>(bound);
}

namespace {

// A message is no longer than the longest read of the socket was, of which the kernel counts no more than this (netlink_recvmsg()).
constexpr size_t kAnswerBytes = 32768;

struct AnswerMemory {
  AnswerMemory() noexcept
      : bytes(reinterpret_cast<char*>(
            kernel_call(SYS_mmap, 0, kAnswerBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~AnswerMemory() { (void)kernel_call(SYS_munmap, as_arg(bytes), kAnswerBytes); }
  AnswerMemory(const AnswerMemory&) = delete;
  AnswerMemory& operator=(const AnswerMemory&) = delete;

  char* const bytes;
};

long dump_into(char* answer, int fd, uint16_t type, uint8_t family, NetlinkVisit visit, void* context) noexcept {
  const auto serial = static_cast<uint32_t>(base::monotonic_ns());  // not that of a member which has died behind its request
  struct {
    nlmsghdr header{};
    rtgenmsg family{};
  } request;
  request.header = {NLMSG_LENGTH(sizeof request.family), type, NLM_F_REQUEST | NLM_F_DUMP, serial, 0};
  request.family.rtgen_family = family;
  while (kernel_call(SYS_recvfrom, fd, as_arg(answer), kAnswerBytes, MSG_DONTWAIT, 0, 0) >= 0) {
  }
  const long sent = kernel_call(SYS_sendto, fd, as_arg(&request), request.header.nlmsg_len, 0, 0, 0);
  if (sent < 0) return sent;
  while (true) {
    long left = kernel_call(SYS_recvfrom, fd, as_arg(answer), kAnswerBytes, MSG_TRUNC, 0, 0);
    if (left < 0) return left;
    if (left > static_cast<long>(kAnswerBytes)) return -EMSGSIZE;
    for (auto* at = reinterpret_cast<const nlmsghdr*>(answer); NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
      if (at->nlmsg_seq != serial) continue;
      if ((at->nlmsg_flags & NLM_F_DUMP_INTR) != 0) return -EAGAIN;
      if (at->nlmsg_type == NLMSG_ERROR) return static_cast<const nlmsgerr*>(NLMSG_DATA(at))->error;
      if (at->nlmsg_type == NLMSG_DONE) return at->nlmsg_len < NLMSG_LENGTH(sizeof(int)) ? 0 : *static_cast<const int*>(NLMSG_DATA(at));
      visit(context, *at);
    }
  }
}

}  // namespace

// The kernel has the first part of the answer ready when the request has been sent, and each next one when the one before is read.
long dump_rtnetlink(int fd, uint16_t type, uint8_t family, NetlinkVisit visit, void* context) noexcept {
  const AnswerMemory answer;
  if (reinterpret_cast<uintptr_t>(answer.bytes) > -uintptr_t{4096}) return -ENOMEM;
  return dump_into(answer.bytes, fd, type, family, visit, context);
}

int link_index(const char* name) noexcept {
  ifreq request = named(name);
  const long result = interface_call(SIOCGIFINDEX, &request);
  return result < 0 ? static_cast<int>(result) : request.ifr_ifindex;
}

long link_mac(const char* name, uint8_t* mac) noexcept {
  ifreq request = named(name);
  const long result = interface_call(SIOCGIFHWADDR, &request);
  if (result == 0) memcpy(mac, request.ifr_hwaddr.sa_data, 6);
  return result;
}

long link_name(int index, char* out) noexcept {
  ifreq request{};
  request.ifr_ifindex = index;
  const long result = interface_call(SIOCGIFNAME, &request);
  if (result == 0) memcpy(out, request.ifr_name, IFNAMSIZ);
  return result;
}

int link_type(const char* name) noexcept {
  ifreq request = named(name);
  const long result = interface_call(SIOCGIFHWADDR, &request);
  return result < 0 ? static_cast<int>(result) : request.ifr_hwaddr.sa_family;
}

int link_flags(const char* name) noexcept {
  ifreq request = named(name);
  const long result = interface_call(SIOCGIFFLAGS, &request);
  return result < 0 ? static_cast<int>(result) : static_cast<uint16_t>(request.ifr_flags);
}

int link_mtu(const char* name) noexcept {
  ifreq request = named(name);
  const long result = interface_call(SIOCGIFMTU, &request);
  return result < 0 ? static_cast<int>(result) : request.ifr_mtu;
}

bool is_veth(const char* name) noexcept {
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  ifreq request = named(name);
  request.ifr_data = reinterpret_cast<char*>(&driver);
  return interface_call(SIOCETHTOOL, &request) == 0 && strcmp(driver.driver, "veth") == 0;
}

void switch_offloads_off(const char* name) noexcept {
  for (const uint32_t command : {ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO}) {
    ethtool_value value{command, 0};
    ifreq request = named(name);
    request.ifr_data = reinterpret_cast<char*>(&value);
    (void)interface_call(SIOCETHTOOL, &request);
  }
}

}  // namespace netstack
