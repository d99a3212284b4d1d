// Sending datagrams, blocking or not, on both sides.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/clock.h"
#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim/files/address.h"
#include "shim/files/datagram_control.h"
#include "shim/files/datagram_io.h"
#include "shim/files/datagram_sides.h"
#include "shim/files/user_memory.h"
#include "zpoline/hook.h"

namespace shim {
namespace {

using netstack::SocketAddress;

constexpr long kNobody = 1;

// Where a message goes. 0; kNobody: it names nobody; -EFAULT; or ZPS_PASS: that is no address, as the kernel will say. A socket of IPv6
// takes the names of both families, and says of which it is by the family; IPv4's takes a name of none for its own.
// `own`: the socket's own address, which may say of which link it is.
long load_destination(int domain, const netstack::IpAddress& own, const msghdr& header, SocketAddress* to) noexcept {
  sa_family_t family;
  if (header.msg_namelen < sizeof(sockaddr_in) || header.msg_namelen > sizeof(sockaddr_storage)) return ZPS_PASS;
  if (domain == AF_INET6) {
    if (long error = copy_in(&family, header.msg_name, sizeof family); error != 0) return error;
    if (family == AF_UNSPEC) return kNobody;
    if (family == AF_INET6) {
      ParsedAddress parsed;
      if (long error = parse_address(domain, header.msg_name, header.msg_namelen, &parsed); error != 0) return error;
      take_link_of(own, &parsed);
      *to = parsed.address;
      return is_stacks_kind(parsed) ? 0 : ZPS_PASS;
    }
  }
  sockaddr_in name;
  if (long error = copy_in(&name, header.msg_name, sizeof name); error != 0) return error;
  if (name.sin_family != AF_INET && (domain == AF_INET6 || name.sin_family != AF_UNSPEC)) return ZPS_PASS;
  *to = {name.sin_addr.s_addr, name.sin_port};
  return 0;
}

// A message on its way to the stack.
struct Outgoing : SendControl {
  SocketAddress to;
  size_t done = 0;  // bytes that have been sent
};

// A part of a message.
class Slice {
 public:
  Slice(const msghdr& header, size_t begin, size_t bytes) noexcept {
    for (size_t i = 0; i < header.msg_iovlen && bytes > 0 && count_ < kMost; i++) {
      const iovec& part = header.msg_iov[i];
      if (begin >= part.iov_len) {
        begin -= part.iov_len;
        continue;
      }
      const size_t n = part.iov_len - begin < bytes ? part.iov_len - begin : bytes;
      parts_[count_++] = {static_cast<char*>(part.iov_base) + begin, n};
      bytes -= n;
      begin = 0;
    }
    whole_ = bytes == 0;
  }
  [[nodiscard]] const iovec* parts() const noexcept { return parts_; }
  [[nodiscard]] int count() const noexcept { return count_; }
  [[nodiscard]] bool whole() const noexcept { return whole_; }

 private:
  static constexpr int kMost = 64;
  iovec parts_[kMost];
  int count_ = 0;
  bool whole_;
};

// udp_send_skb(): so many segments at most.
long check_segments(const msghdr& header, const Outgoing& out) noexcept {
  constexpr size_t kMostSegments = 128;
  const size_t all = capacity_of(header);
  if (all > 0xffff) return -EMSGSIZE;
  return all > out.segment * kMostSegments ? -EINVAL : 0;
}

// With the lock held. What has been sent of several datagrams stays sent; -EAGAIN: the rest waits for room.
long transmit(netstack::UdpEndpoint* endpoint, const msghdr& header, Outgoing* out) noexcept {
  const size_t all = out->segment != 0 ? capacity_of(header) : 0;
  if (all <= out->segment) return endpoint->send(out->request, header.msg_iov, part_count(header));
  out->request.whole = true;
  while (out->done < all) {
    const Slice slice(header, out->done, all - out->done < out->segment ? all - out->done : out->segment);
    const long result = slice.whole() ? endpoint->send(out->request, slice.parts(), slice.count()) : -ENOBUFS;
    if (result < 0) return result;
    out->done += static_cast<size_t>(result);
  }
  return static_cast<long>(all);
}

// As transmit(). What goes to the stack itself, or the report that nobody is there, has come when the call returns, as by Linux's loopback.
long transmit_at_once(netstack::UdpEndpoint* endpoint, netstack::Stack* stack, const msghdr& header, Outgoing* out) noexcept {
  const long result = transmit(endpoint, header, out);
  if (result >= 0 && stack->owns(out->to.address)) (void)stack->poll(base::monotonic_ns());
  return result;
}

// The end of a message that nobody waits for any more: what is left of it is lost, as in a device's queue that is full.
long without_rest(long result, const msghdr& header, const Outgoing& out) noexcept {
  return result == -EAGAIN && out.done > 0 ? static_cast<long>(capacity_of(header)) : result;
}

class SendCondition final : public Condition {
 public:
  SendCondition(DatagramSocket* socket, Outgoing* out, const msghdr& header) noexcept : socket_(socket), out_(out), header_(header) {}

  long check() noexcept override { return socket_->endpoint == nullptr ? kRestart : transmit(socket_->endpoint, header_, out_); }
  bool watch_all(Waiter* waiter) noexcept override { return socket_->endpoint != nullptr && watch(waiter, socket_->endpoint); }
  [[nodiscard]] bool has_moved() const noexcept override { return out_->done > 0; }

 private:
  DatagramSocket* socket_;
  Outgoing* out_;
  const msghdr& header_;
};

// With the lock held. Where it goes: 0, by the stack; ZPS_PASS, by the kernel; or why nowhere.
long settle_destination(const DatagramSocket& socket, netstack::Stack* stack, const msghdr& header, Outgoing* out) noexcept {
  const netstack::UdpEndpoint& endpoint = *socket.endpoint;
  const long result = header.msg_name != nullptr ? load_destination(socket.domain, endpoint.local().address, header, &out->to) : kNobody;
  if (endpoint.continues()) {  // the first piece has said it
    out->request.to = result == 0 ? &out->to : nullptr;
    return 0;
  }
  if (result == 0) {
    out->request.to = &out->to;
    if (socket.v6_only && out->to.address.is_v4()) return -ENETUNREACH;
    return goes_by_stack(socket, stack, out->to) ? 0 : ZPS_PASS;
  }
  if (result != kNobody) return result;
  if (endpoint.connected()) {
    out->to = endpoint.peer();
    return 0;
  }
  if (!socket.bound_here) return ZPS_PASS;
  return socket.domain == AF_INET6 ? -EDESTADDRREQ : 0;  // udp_sendmsg() looks at the length first
}

// With the lock held. 0: the stack sends it; ZPS_PASS: the kernel does; or why nobody does.
long prepare(DatagramSocket* socket, netstack::Stack* stack, const msghdr& header, int flags, Outgoing* out) noexcept {
  if (socket->endpoint == nullptr) return ZPS_PASS;
  if (const long error = socket->endpoint->ensure_port(); error != 0) return error;
  if (const long result = settle_destination(*socket, stack, header, out); result != 0) return result;
  const bool by_v4 = out->to.address.is_v4();
  if (by_v4 && (flags & MSG_OOB) != 0) return -EOPNOTSUPP;
  out->request.probe = (flags & (MSG_CONFIRM | 0x10 /* MSG_PROBE */)) == (MSG_CONFIRM | 0x10);
  out->request.more = (flags & MSG_MORE) != 0;
  out->segment = socket->control.segment;
  if (header.msg_controllen != 0) {
    if (const long error = load_control(header, socket->domain, by_v4, *stack, out); error != 0) return error;
  }
  if (out->segment != 0) {
    if (const long error = check_segments(header, *out); error != 0) return error;
  }
  return probe_readable(header.msg_iov, part_count(header), capacity_of(header) <= 0xffff ? capacity_of(header) : 0);
}

// A socket without an endpoint gets one where the stack is the way, and with the port that sending gives it. True if the stack may be the
// way now.
bool join_to_send(int fd, int domain, const msghdr& header, long* error) noexcept {
  ParsedAddress to;
  *error = ZPS_PASS;
  if (engine->thread()->vfork_child != 0) return false;  // where no stack may be made
  netstack::Stack* stack = nullptr;
  if (header.msg_name != nullptr && load_destination(domain, {}, header, &to.address) == 0) {
    to.known = true;
    to.wildcard = to.address.address.is_any();
    stack = to.address.address.is_multicast() ? stack_for_group(fd, to.address.address) : stack_for_datagram(to);
  }
  if (stack == nullptr) {
    join_unnamed(fd);
    return false;
  }
  const long result = join_stack(fd, stack);
  if (result != 0) *error = result;
  return result == 0;
}

}  // namespace

size_t capacity_of(const msghdr& header) noexcept {
  size_t sum = 0;
  for (size_t i = 0; i < header.msg_iovlen; i++) sum += header.msg_iov[i].iov_len;
  return sum;
}

WaitOptions datagram_wait(uint64_t timeout_ns) noexcept {
  WaitOptions options;
  options.deadline_ns = deadline_after(timeout_ns);
  options.restartable = timeout_ns == kForever;
  return options;
}

long begin_if_blocking(DatagramSocket* socket, int flags, uint64_t timeout_ns) noexcept {
  if (socket->nonblocking || (flags & MSG_DONTWAIT) != 0 || timeout_ns == 0) return -EAGAIN;
  return begin_wait(socket) ? 0 : -ENOMEM;
}

long send_one(DatagramSocket* socket, netstack::Stack* stack, const msghdr& header, int flags) noexcept {
  Outgoing out;
  const long error = prepare(socket, stack, header, flags, &out);
  return error != 0 ? error : without_rest(transmit_at_once(socket->endpoint, stack, header, &out), header, out);
}

long send_datagram(int fd, const msghdr& header, int flags) noexcept {
  Outgoing out;
  DatagramSocket* socket;
  uint64_t timeout_ns;
  for (bool joined = false;; joined = true) {
    Guard guard;
    socket = datagram_at(fd);
    if (socket == nullptr || socket->kernel_only) return ZPS_PASS;
    if (socket->endpoint == nullptr) {
      long error = ZPS_PASS;
      const int domain = socket->domain;
      guard.drop();
      const bool joins = !joined && join_to_send(fd, domain, header, &error);
      guard.take();
      if (joins) continue;
      return error;
    }
    long result = prepare(socket, guard.stack(), header, flags, &out);
    if (result != 0) return result;
    result = transmit_at_once(socket->endpoint, guard.stack(), header, &out);
    if (result == -EAGAIN) {
      (void)guard.stack()->poll(base::monotonic_ns());
      result = transmit_at_once(socket->endpoint, guard.stack(), header, &out);
    }
    if (result != -EAGAIN) return result;
    timeout_ns = socket->send_timeout_ns;
    result = begin_if_blocking(socket, flags, timeout_ns);
    if (result != 0) return without_rest(result, header, out);
    break;
  }
  service_ensure();
  SendCondition condition(socket, &out, header);
  return without_rest(wait_for(condition, datagram_wait(timeout_ns)), header, out);
}

}  // namespace shim
