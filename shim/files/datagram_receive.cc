// Receiving datagrams, blocking or not, from both sides.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/datagram_io.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include <cerrno>

#include "base/clock.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim/files/address.h"
#include "shim/files/control_writer.h"
#include "shim/files/datagram_sides.h"
#include "shim/files/fd_table.h"
#include "shim/files/routing.h"
#include "shim/files/user_memory.h"
#include "zpoline/hook.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::SocketAddress;

constexpr uint8_t kKernelEveryTurns = 32;  // as an epoll set's
constexpr uint64_t kProbeEveryNs = 10'000;

// move_addr_to_user(): cut to the room there is, the full length told.
long put_name(int domain, msghdr* header, const SocketAddress& from) noexcept {
  if (header->msg_name == nullptr) return 0;
  sockaddr_in6 raw;
  const socklen_t full = make_address(domain, from, &raw);
  const long error = copy_out(header->msg_name, &raw, header->msg_namelen < full ? header->msg_namelen : full);
  header->msg_namelen = full;
  return error;
}

// ip6_datagram_recv_common_ctl() and ip6_datagram_recv_specific_ctl().
long put_control6(ControlWriter* writer, const DatagramControl& wanted, const netstack::Datagram& about) noexcept {
  long error = 0;
  if (wanted.packet_info6) {
    in6_pktinfo info{};
    __builtin_memcpy(&info.ipi6_addr, &about.to.address, sizeof info.ipi6_addr);
    info.ipi6_ifindex = wires_scope();
    error = writer->put(IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  }
  if (about.to.address.is_v4()) return error;
  const int limit = about.ttl, traffic_class = about.tos;
  if (error == 0 && wanted.hop_limit) error = writer->put(IPPROTO_IPV6, IPV6_HOPLIMIT, &limit, sizeof limit);
  if (error == 0 && wanted.traffic_class) error = writer->put(IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof traffic_class);
  if (error == 0 && wanted.original6) {
    sockaddr_in6 raw;
    const socklen_t bytes = make_address(AF_INET6, about.to, &raw);
    error = writer->put(IPPROTO_IPV6, IPV6_ORIGDSTADDR, &raw, bytes);
  }
  return error;
}

// In the order of udp_recvmsg(): sock_recv_cmsgs(), then ip_cmsg_recv_offset().
long put_control(msghdr* header, const DatagramControl& wanted, const netstack::Datagram& about, uint32_t drops) noexcept {
  ControlWriter writer(header);
  long error = writer.put_times(about.received_ns, wanted.timestamp_type, wanted.timestamping);
  if (error == 0 && wanted.drops && drops != 0) error = writer.put(SOL_SOCKET, SO_RXQ_OVFL, &drops, sizeof drops);
  const int segment = about.segment;
  if (error == 0 && segment != 0) error = writer.put(IPPROTO_UDP, UDP_GRO, &segment, sizeof segment);
  if (error == 0) error = put_control6(&writer, wanted, about);
  const bool v4 = about.to.address.is_v4();
  if (error == 0 && wanted.packet_info && v4) {
    const in_pktinfo info{static_cast<int>(wires_scope()), {about.to.address.v4_be()}, {about.to.address.v4_be()}};
    error = writer.put(IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
  const int ttl = about.ttl;
  if (error == 0 && wanted.ttl && v4) error = writer.put(IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
  if (error == 0 && wanted.tos && v4) error = writer.put(IPPROTO_IP, IP_TOS, &about.tos, sizeof about.tos);
  if (error == 0 && wanted.original && v4) {
    sockaddr_in6 raw;
    const socklen_t bytes = make_address(AF_INET, about.to, &raw);
    error = writer.put(IPPROTO_IP, IP_ORIGDSTADDR, &raw, bytes);
  }
  header->msg_controllen = writer.used();
  return error;
}

// An entry of the error queue, as ip_recv_error() tells it.
long put_error(int domain, msghdr* header, const netstack::UdpError& about) noexcept {
  struct {
    sock_extended_err error;
    sockaddr_in6 offender;
  } told{};
  told.error = {about.error, about.origin, about.type, about.code, 0, about.info, {0}};
  const socklen_t bytes = make_address(domain, about.offender, &told.offender);
  if (about.origin == SO_EE_ORIGIN_LOCAL) told.offender = {};  // nobody
  if (long error = put_name(domain, header, about.to); error != 0) return error;
  ControlWriter writer(header);
  const bool v6 = domain == AF_INET6;
  const long error = writer.put(v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &told, sizeof told.error + bytes);
  header->msg_controllen = writer.used();
  return error;
}

long finish(msghdr* header, int flags, long copied, size_t bytes) noexcept {
  if (bytes > static_cast<size_t>(copied)) header->msg_flags |= MSG_TRUNC;
  return (flags & MSG_TRUNC) != 0 ? static_cast<long>(bytes) : copied;
}

long take_error(DatagramSocket* socket, msghdr* header, int flags) noexcept {
  netstack::UdpError about;
  if (long error = probe_writable(header->msg_iov, part_count(*header), capacity_of(*header)); error != 0) return error;
  const long copied = socket->endpoint->receive_error(header->msg_iov, part_count(*header), &about);
  if (copied < 0) return copied;
  header->msg_flags |= MSG_ERRQUEUE;
  if (long error = put_error(socket->domain, header, about); error != 0) return error;
  return finish(header, flags & ~MSG_TRUNC, copied, about.bytes);
}

// What recvmsg() tells of a datagram beside its bytes.
long put_about(DatagramSocket* socket, msghdr* header, const netstack::Datagram& about) noexcept {
  if (long error = put_name(socket->domain, header, about.from); error != 0) return error;
  return put_control(header, socket->control, about, socket->endpoint->figures().drops);
}

// With SO_PEEK_OFF: udp_recvmsg(), sk_peek_offset_fwd().
long peek_onwards(DatagramSocket* socket, msghdr* header, int flags) noexcept {
  netstack::Datagram about;
  const size_t room = capacity_of(*header);
  auto offset = static_cast<size_t>(socket->peek_offset);
  if (long error = probe_writable(header->msg_iov, part_count(*header), room < 0xffff ? room : 0xffff); error != 0) return error;
  const long copied = socket->endpoint->peek_at(header->msg_iov, part_count(*header), &offset, &about);
  if (copied < 0) return copied;
  if (long error = put_about(socket, header, about); error != 0) return error;
  if (room <= about.bytes - offset && room < about.bytes) header->msg_flags |= MSG_TRUNC;
  const long result = (flags & MSG_TRUNC) != 0 ? static_cast<long>(about.bytes) : copied;
  socket->peek_offset += static_cast<int32_t>(result);
  return result;
}

long take_datagram(DatagramSocket* socket, msghdr* header, int flags) noexcept {
  netstack::UdpEndpoint* const endpoint = socket->endpoint;
  const bool peeks = (flags & MSG_PEEK) != 0;
  if (peeks && socket->peek_offset >= 0) [[unlikely]] return peek_onwards(socket, header, flags);
  netstack::Datagram about;
  const bool joins = socket->control.joins && !peeks;
  const size_t next = joins ? endpoint->joined_bytes(capacity_of(*header)) : endpoint->next_bytes();
  if (endpoint->readable()) {
    if (long error = probe_writable(header->msg_iov, part_count(*header), next); error != 0) return error;
  }
  const long copied = joins ? endpoint->receive_joined(header->msg_iov, part_count(*header), next, &about)
                            : endpoint->receive(header->msg_iov, part_count(*header), peeks, &about);
  if (copied < 0) return copied;
  if (long error = put_about(socket, header, about); error != 0) return error;
  const long result = finish(header, flags, copied, about.bytes);
  if (!peeks && socket->peek_offset > 0) [[unlikely]] {
    socket->peek_offset = result < socket->peek_offset ? socket->peek_offset - static_cast<int32_t>(result) : 0;
  }
  return result;
}

// The kernel's side, which is never waited for here.
long receive_from_kernel(int fd, msghdr* header, int flags) noexcept {
  msghdr own = *header;
  const long result = kernel_call(SYS_recvmsg, fd, as_arg(&own), flags | MSG_DONTWAIT);
  if (result < 0) return result;
  header->msg_namelen = own.msg_namelen;
  header->msg_controllen = own.msg_controllen;
  header->msg_flags = own.msg_flags;
  return result;
}

class ReceiveCondition final : public Condition {
 public:
  ReceiveCondition(DatagramSocket* socket, int fd, msghdr* header, int flags) noexcept
      : socket_(socket), fd_(fd), header_(header), flags_(flags), both_(socket->both), kernel_fds_{{fd, POLLIN, 0}} {}

  long check() noexcept override {
    if (socket_->endpoint == nullptr || socket_->both != both_) return kRestart;
    const long result = take_datagram(socket_, header_, flags_);
    if (result != -EAGAIN || !socket_->endpoint->read_shut()) return result;
    header_->msg_namelen = 0;  // of nobody
    header_->msg_controllen = 0;
    return 0;
  }
  bool watch_all(Waiter* waiter) noexcept override { return socket_->endpoint != nullptr && watch(waiter, socket_->endpoint); }
  bool has_kernel_side() const noexcept override { return both_ && kernel_fds_[0].fd >= 0; }
  long check_kernel() noexcept override {
    if (peek(fd_) != socket_) {  // closed or replaced: the kernel's side went with the number
      kernel_fds_[0].fd = -1;
      return -EAGAIN;
    }
    // The sleep watches the kernel's side as well: an answer that comes in a moment costs no call.
    const uint64_t now = base::monotonic_ns();
    if (now - looked_ns_ < kProbeEveryNs) return -EAGAIN;
    looked_ns_ = now;
    return receive_from_kernel(fd_, header_, flags_);
  }
  [[nodiscard]] pollfd* kernel_fds() noexcept { return kernel_fds_; }

 private:
  DatagramSocket* socket_;
  int fd_;
  msghdr* header_;
  int flags_;
  const bool both_;
  uint64_t looked_ns_ = base::monotonic_ns();
  pollfd kernel_fds_[1 + kOwnFds];
};

long receive_waiting(DatagramSocket* socket, int fd, msghdr* header, int flags, uint64_t timeout_ns) noexcept {
  service_ensure();
  ReceiveCondition condition(socket, fd, header, flags);
  WaitOptions options = datagram_wait(timeout_ns);
  if (condition.has_kernel_side()) {
    options.kernel_fds = condition.kernel_fds();
    options.kernel_fd_count = 1;
  }
  return wait_for(condition, options);
}

}  // namespace

long receive_one(DatagramSocket* socket, msghdr* header, int flags) noexcept {
  if (socket->endpoint == nullptr || (flags & MSG_ERRQUEUE) != 0) return ZPS_PASS;
  if (socket->both && (socket->mute || ++socket->turns >= kKernelEveryTurns)) return ZPS_PASS;
  header->msg_flags = flags & MSG_CMSG_CLOEXEC;
  return take_datagram(socket, header, flags);
}

long receive_datagram(int fd, msghdr* header, int flags) noexcept {
  DatagramSocket* socket;
  bool both, kernel_first, asks;
  long result = -EAGAIN;
  header->msg_flags = flags & MSG_CMSG_CLOEXEC;
  {
    Guard guard;
    socket = datagram_at(fd);
    if (socket == nullptr || socket->endpoint == nullptr) return ZPS_PASS;
    both = socket->both;
    const bool waits = !socket->nonblocking && (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) == 0 && socket->receive_timeout_ns != 0;
    asks = both && !waits;
    // Who has shut down this half does not wait, and still reads what there is.
    if (socket->endpoint->read_shut()) asks = both;
    kernel_first = both && (socket->mute || ++socket->turns >= kKernelEveryTurns);
    if (kernel_first) socket->turns = 0;
    if ((flags & MSG_ERRQUEUE) != 0) {
      result = take_error(socket, header, flags);
    } else if (kernel_first) {
      const int error = socket->endpoint->take_error();  // what is pending comes before what waits
      if (error != 0) result = -error;
    } else {
      result = take_datagram(socket, header, flags);
      if (result == -EAGAIN) {  // a program that asks without waiting still drives the wire
        (void)guard.stack()->poll(base::monotonic_ns());
        result = take_datagram(socket, header, flags);
      }
    }
  }
  if (result != -EAGAIN) return result;
  if (kernel_first || asks) result = receive_from_kernel(fd, header, flags);
  if (result != -EAGAIN || (flags & MSG_ERRQUEUE) != 0) return result;
  uint64_t timeout_ns;
  {
    Guard guard;
    if (datagram_at(fd) != socket) return -EBADF;
    if (socket->endpoint == nullptr) return kRestart;
    if (kernel_first && socket->mute) forget_kernel_side(socket);
    if (kernel_first) result = take_datagram(socket, header, flags);
    if (result != -EAGAIN) return result;
    timeout_ns = socket->receive_timeout_ns;
    result = begin_if_blocking(socket, flags, timeout_ns);
    if (result != 0) return result;
  }
  return receive_waiting(socket, fd, header, flags, timeout_ns);
}

}  // namespace shim
