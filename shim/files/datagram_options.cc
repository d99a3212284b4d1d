// What endpoints take from placeholders.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/datagram_options.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/options.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::UdpOption;

constexpr struct {
  int level, name;
  UdpOption option;
} kRows[] = {
    {SOL_SOCKET, SO_RCVBUF, UdpOption::receive_buffer},
    {SOL_SOCKET, SO_BROADCAST, UdpOption::broadcast},
    {SOL_SOCKET, SO_NO_CHECK, UdpOption::no_checksum},
    {SOL_SOCKET, SO_REUSEADDR, UdpOption::reuse_address},
    {SOL_SOCKET, SO_REUSEPORT, UdpOption::reuse_port},
    {IPPROTO_IP, IP_TTL, UdpOption::ttl},
    {IPPROTO_IP, IP_MULTICAST_TTL, UdpOption::multicast_ttl},
    {IPPROTO_IP, IP_TOS, UdpOption::tos},
    {IPPROTO_IP, IP_MTU_DISCOVER, UdpOption::path_mtu_discovery},
    {IPPROTO_IP, IP_RECVERR, UdpOption::errors},
    {IPPROTO_IP, IP_MULTICAST_LOOP, UdpOption::multicast_loop},
    {IPPROTO_IP, IP_MULTICAST_ALL, UdpOption::multicast_all},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, UdpOption::multicast_loop6},
    {IPPROTO_IPV6, IPV6_MULTICAST_ALL, UdpOption::multicast_all6},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, UdpOption::hop_limit},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, UdpOption::multicast_hops},
    {IPPROTO_IPV6, IPV6_TCLASS, UdpOption::traffic_class},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, UdpOption::path_mtu_discovery6},
    {IPPROTO_IPV6, IPV6_DONTFRAG, UdpOption::dont_fragment},
    {IPPROTO_IPV6, IPV6_RECVERR, UdpOption::errors6},
    {IPPROTO_UDP, UDP_CORK, UdpOption::cork},
};
constexpr int kCount = sizeof kRows / sizeof kRows[0];
static_assert(kCount <= DatagramOptions::kMost);

// SO_RCVBUFFORCE sets what SO_RCVBUF tells.
bool is_for(int row, int level, int name) noexcept {
  return kRows[row].level == level &&
         (kRows[row].name == name || (level == SOL_SOCKET && name == SO_RCVBUFFORCE && kRows[row].name == SO_RCVBUF));
}

DatagramControl read_control(int fd) noexcept {
  const ArrivalControl arrival = read_arrival_control(fd);
  DatagramControl control;
  control.packet_info = placeholder_int(fd, IPPROTO_IP, IP_PKTINFO) != 0;
  control.ttl = placeholder_int(fd, IPPROTO_IP, IP_RECVTTL) != 0;
  control.tos = placeholder_int(fd, IPPROTO_IP, IP_RECVTOS) != 0;
  control.original = placeholder_int(fd, IPPROTO_IP, IP_RECVORIGDSTADDR) != 0;
  control.packet_info6 = placeholder_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO) != 0;
  control.hop_limit = placeholder_int(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT) != 0;
  control.original6 = placeholder_int(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR) != 0;
  control.traffic_class = placeholder_int(fd, IPPROTO_IPV6, IPV6_RECVTCLASS) != 0;
  control.drops = placeholder_int(fd, SOL_SOCKET, SO_RXQ_OVFL) != 0;
  control.segment = static_cast<uint16_t>(placeholder_int(fd, IPPROTO_UDP, UDP_SEGMENT));
  control.joins = placeholder_int(fd, IPPROTO_UDP, UDP_GRO) != 0;
  control.timestamp_type = arrival.timestamp_type;
  control.timestamping = arrival.timestamping;
  return control;
}

uint64_t read_timeout(int fd, int name) noexcept {
  timeval value{};
  socklen_t bytes = sizeof value;
  if (kernel_call(SYS_getsockopt, fd, SOL_SOCKET, name, as_arg(&value), as_arg(&bytes)) != 0) return kForever;
  if (value.tv_sec == 0 && value.tv_usec == 0) return kForever;
  constexpr int64_t kMostSeconds = INT64_MAX / 1'000'000'000 - 1;
  const int64_t seconds = value.tv_sec < kMostSeconds ? value.tv_sec : kMostSeconds;
  return static_cast<uint64_t>(seconds) * 1'000'000'000u + static_cast<uint64_t>(value.tv_usec) * 1000u;
}

bool is_receive_timeout(int name) noexcept { return name == SO_RCVTIMEO_OLD || name == SO_RCVTIMEO_NEW; }
bool is_send_timeout(int name) noexcept { return name == SO_SNDTIMEO_OLD || name == SO_SNDTIMEO_NEW; }

}  // namespace

DatagramOptions read_datagram_options(int fd) noexcept {
  DatagramOptions options{};
  for (int i = 0; i < kCount; i++) options.values[i] = placeholder_int(fd, kRows[i].level, kRows[i].name);
  options.control = read_control(fd);
  options.peek_offset = placeholder_int(fd, SOL_SOCKET, SO_PEEK_OFF);
  return options;
}

void apply_datagram_options(DatagramSocket* socket, netstack::UdpEndpoint* endpoint, const DatagramOptions& options) noexcept {
  for (int i = 0; i < kCount; i++) (void)endpoint->set_option(kRows[i].option, options.values[i]);
  socket->control = options.control;
  socket->peek_offset = options.peek_offset;
}

void follow_datagram_option(int fd, int level, int name) noexcept {
  int row = 0;
  while (row < kCount && !is_for(row, level, name)) row++;
  const int value = row < kCount ? placeholder_int(fd, kRows[row].level, kRows[row].name) : 0;
  const bool is_timeout = level == SOL_SOCKET && (is_receive_timeout(name) || is_send_timeout(name));
  const uint64_t timeout_ns = is_timeout ? read_timeout(fd, name) : kForever;
  const bool is_offset = level == SOL_SOCKET && name == SO_PEEK_OFF;
  const int offset = is_offset ? placeholder_int(fd, level, name) : -1;
  const DatagramControl control = row == kCount && !is_timeout ? read_control(fd) : DatagramControl{};
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  if (socket == nullptr) return;
  if (is_timeout) {
    (is_receive_timeout(name) ? socket->receive_timeout_ns : socket->send_timeout_ns) = timeout_ns;
  } else if (is_offset) {
    socket->peek_offset = offset;
  } else if (row == kCount) {
    socket->control = control;
  } else if (socket->endpoint != nullptr) {
    (void)socket->endpoint->set_option(kRows[row].option, value);
  }
}

}  // namespace shim
