// ip_cmsg_send(), ip6_datagram_send_ctl() and udp_cmsg_send().
// SPDX-License-Identifier: BSD-3-Clause
//
// Which of the first two it is depends on where the datagram goes, not on the socket. Each ignores the other's level, with one exception:
// a socket of IPv6 says by IPV6_PKTINFO which address of IPv4 it sends from. Interfaces are not looked at: the wire is the only one.
// Extension headers cannot be sent.
#include "shim/files/datagram_control.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <cerrno>

#include "shim/files/user_memory.h"

namespace shim {
namespace {

using netstack::IpAddress;

// A control message: its data in the program's memory, its head in ours.
struct Message {
  const char* data;
  cmsghdr head;
  [[nodiscard]] bool is(int level, int type) const noexcept { return head.cmsg_level == level && head.cmsg_type == type; }
  // The data as a T, which they must be exactly. 0, -EINVAL or -EFAULT.
  template <class T>
  [[nodiscard]] long load(T* value) const noexcept {
    return head.cmsg_len == CMSG_LEN(sizeof *value) ? copy_in(value, data, sizeof *value) : -EINVAL;
  }
  // An int between two bounds.
  [[nodiscard]] long load_int(int least, int most, int* value) const noexcept {
    if (const long error = load(value); error != 0) return error;
    return *value < least || *value > most ? -EINVAL : 0;
  }
};

// What __sock_cmsg_send() knows: nothing that means anything here.
long ignore_for_socket(const Message& message) noexcept {
  const int type = message.head.cmsg_type;
  return type == SCM_RIGHTS || type == SCM_CREDENTIALS || type == SO_MARK || type == SO_PRIORITY ? 0 : -EINVAL;
}

long load_segment(const Message& message, SendControl* out) noexcept {
  uint16_t segment;
  if (message.head.cmsg_type != UDP_SEGMENT) return -EINVAL;
  const long error = message.load(&segment);
  if (error == 0) out->segment = segment;
  return error;
}

// `otherwise`: what the kernel says of an address that is not its own.
long load_source(const IpAddress& source, const netstack::Stack& stack, long otherwise, SendControl* out) noexcept {
  if (!source.is_any() && !stack.owns(source)) return otherwise;
  out->request.source = source;
  return 0;
}

// IP_PKTINFO, or IPV6_PKTINFO with an address of IPv4. No ip_route_output_key() finds a way from an address of somebody else's.
long load_source_v4(const Message& message, const netstack::Stack& stack, SendControl* out) noexcept {
  if (message.head.cmsg_level == IPPROTO_IP) {
    in_pktinfo info;
    const long error = message.load(&info);
    return error != 0 ? error : load_source(IpAddress::v4(info.ipi_spec_dst.s_addr), stack, -ENETUNREACH, out);
  }
  in6_pktinfo info;
  IpAddress source;
  if (const long error = message.load(&info); error != 0) return error;
  __builtin_memcpy(source.words_be, &info.ipi6_addr, sizeof source.words_be);
  return source.is_v4() ? load_source(source, stack, -ENETUNREACH, out) : -EINVAL;
}

long load_v4(const Message& message, SendControl* out) noexcept {
  int value = 0;
  switch (message.head.cmsg_type) {
    case IP_TTL:
      if (const long error = message.load_int(1, 255, &value); error != 0) return error;
      out->request.ttl = value;
      return 0;
    case IP_TOS: {
      uint8_t byte = 0;
      const bool is_byte = message.head.cmsg_len == CMSG_LEN(sizeof byte);
      if (const long error = is_byte ? message.load(&byte) : message.load_int(0, 255, &value); error != 0) return error;
      out->request.tos = is_byte ? byte : value;
      return 0;
    }
    default: return -EINVAL;
  }
}

// -1 means the socket's own value.
long load_v6(const Message& message, const netstack::Stack& stack, SendControl* out) noexcept {
  in6_pktinfo info;
  IpAddress source;
  switch (message.head.cmsg_type) {
    case IPV6_PKTINFO:
      if (const long error = message.load(&info); error != 0) return error;
      __builtin_memcpy(source.words_be, &info.ipi6_addr, sizeof source.words_be);
      return load_source(source, stack, -EINVAL, out);
    case IPV6_HOPLIMIT: return message.load_int(-1, 255, &out->request.ttl);
    case IPV6_TCLASS: return message.load_int(-1, 255, &out->request.tos);
    case IPV6_DONTFRAG: return message.load_int(0, 1, &out->request.dont_fragment);
    default: return -EINVAL;
  }
}

long load_message(const Message& message, int domain, bool by_v4, const netstack::Stack& stack, SendControl* out) noexcept {
  const int level = message.head.cmsg_level;
  if (level == SOL_SOCKET) return ignore_for_socket(message);
  if (level == IPPROTO_UDP) return load_segment(message, out);
  if (!by_v4) return level == IPPROTO_IPV6 ? load_v6(message, stack, out) : 0;
  if (message.is(IPPROTO_IP, IP_PKTINFO) || (domain == AF_INET6 && message.is(IPPROTO_IPV6, IPV6_PKTINFO)))
    return load_source_v4(message, stack, out);
  return level == IPPROTO_IP ? load_v4(message, out) : 0;
}

}  // namespace

long load_control(const msghdr& header, int domain, bool by_v4, const netstack::Stack& stack, SendControl* out) noexcept {
  const auto* const begin = static_cast<const char*>(header.msg_control);
  size_t left = header.msg_controllen;
  if (left > INT32_MAX) return -ENOBUFS;
  for (size_t at = 0; left >= sizeof(cmsghdr);) {
    Message message{begin + at + sizeof(cmsghdr), {}};
    if (long error = copy_in(&message.head, begin + at, sizeof message.head); error != 0) return error;
    if (message.head.cmsg_len < sizeof message.head || message.head.cmsg_len > left) return -EINVAL;
    if (long error = load_message(message, domain, by_v4, stack, out); error != 0) return error;
    const size_t step = CMSG_ALIGN(message.head.cmsg_len);
    if (step > left) break;
    at += step;
    left -= step;
  }
  return 0;
}

}  // namespace shim
