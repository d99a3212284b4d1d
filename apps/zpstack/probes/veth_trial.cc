// The trial of the default wire: a veth pair in a throw-away network namespace, asked for by hand over rtnetlink(7).
// SPDX-License-Identifier: BSD-3-Clause
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "apps/zpstack/probes/trial.h"

namespace tool {
namespace {

constexpr int kNamespaceRefused = 255;  // no errno is that high

// An RTM_NEWLINK message under construction: attributes are appended, nested ones closed by hand.
class LinkMessage {
 public:
  LinkMessage() {
    header()->nlmsg_len = NLMSG_LENGTH(sizeof(ifinfomsg));
    header()->nlmsg_type = RTM_NEWLINK;
    header()->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
  }
  nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(bytes_); }

  rtattr* add(unsigned short type, const void* data, size_t length) {
    auto* attribute = reinterpret_cast<rtattr*>(bytes_ + NLMSG_ALIGN(header()->nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = static_cast<unsigned short>(RTA_LENGTH(length));
    if (length > 0) memcpy(RTA_DATA(attribute), data, length);
    header()->nlmsg_len = NLMSG_ALIGN(header()->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
  }
  rtattr* open(unsigned short type) { return add(type, nullptr, 0); }
  void close(rtattr* nest) {
    const char* end = bytes_ + NLMSG_ALIGN(header()->nlmsg_len);
    nest->rta_len = static_cast<unsigned short>(end - reinterpret_cast<char*>(nest));
  }
  void add_interface_header() {
    const ifinfomsg peer{};
    memcpy(bytes_ + NLMSG_ALIGN(header()->nlmsg_len), &peer, sizeof peer);
    header()->nlmsg_len = NLMSG_ALIGN(header()->nlmsg_len) + static_cast<uint32_t>(sizeof peer);
  }

 private:
  alignas(NLMSG_ALIGNTO) char bytes_[512] = {};
};

// The kernel's answer to `message`: 0 or an errno.
int exchange(LinkMessage& message) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return errno;
  alignas(NLMSG_ALIGNTO) char answer[1024];
  int error = 0;
  if (send(fd, message.header(), message.header()->nlmsg_len, 0) < 0 || recv(fd, answer, sizeof answer, 0) < 0) {
    error = errno;
  } else {
    const auto* header = reinterpret_cast<const nlmsghdr*>(answer);
    if (header->nlmsg_type == NLMSG_ERROR) error = -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
  }
  close(fd);
  return error;
}

int make_pair_in_new_namespace() {
  if (unshare(CLONE_NEWNET) != 0) return kNamespaceRefused;
  LinkMessage message;
  message.add(IFLA_IFNAME, "trial0", sizeof "trial0");
  rtattr* info = message.open(IFLA_LINKINFO);
  message.add(IFLA_INFO_KIND, "veth", 4);
  rtattr* data = message.open(IFLA_INFO_DATA);
  rtattr* peer = message.open(VETH_INFO_PEER);
  message.add_interface_header();
  message.add(IFLA_IFNAME, "trial1", sizeof "trial1");
  message.close(peer);
  message.close(data);
  message.close(info);
  return exchange(message);
}

}  // namespace

int try_veth(bool* namespace_refused) {
  const int result = in_child(make_pair_in_new_namespace);
  *namespace_refused = result == kNamespaceRefused;
  if (result == kNamespaceRefused) return EPERM;
  return result < 0 ? EIO : result;
}

}  // namespace tool
