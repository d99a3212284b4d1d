// A datagram socket that the stack, the kernel or both serve.
// SPDX-License-Identifier: BSD-3-Clause
//
// Like every socket it has a placeholder under its number, and while it has no endpoint in the stack the placeholder is the socket: the
// kernel answers everything. It gets an endpoint when it is bound to all addresses or to the stack's, or when it first sends or connects to
// where the stack is the way; and, where there is a stack, when the kernel gives it a port of all addresses, as what it sends by the
// kernel does or a connection that fails. What then is where:
//
//   bound to all addresses, or to none and has sent    both sides have the port, both receive (`both`); where a datagram goes says
//                                                      who sends it
//   bound to a group's address                         both sides have it
//   bound to the stack's address                       the stack alone; the placeholder has no name
//   connected to where the stack is the way            the stack alone; the placeholder keeps the port and is deaf (mute()), and what
//                                                      it had received before is read first
//   bound to another address, or connected elsewhere   the kernel alone
//
// A peer is behind one side, so the order of its datagrams is that side's. Of two sides that both have something the stack is asked first,
// and the kernel every so often, so that neither starves.
//
// Known limits: a program's own filter (SO_ATTACH_FILTER) sees the kernel's side only, and is gone after a connection to the stack's side;
// what is queued in the stack is lost when a socket connects to the kernel's side.
#pragma once

#include "netstack/udp_endpoint.h"
#include "shim/files/file.h"

namespace shim {

// What recvmsg() tells besides a datagram.
struct DatagramControl {
  bool packet_info = false;    // IP_PKTINFO
  bool ttl = false, tos = false;
  bool packet_info6 = false;   // IPV6_RECVPKTINFO, and so on
  bool hop_limit = false, traffic_class = false;
  bool original = false, original6 = false;  // IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR
  bool drops = false;          // SO_RXQ_OVFL
  uint16_t segment = 0;        // and UDP_SEGMENT: how long the datagrams are that a longer message is sent as
  bool joins = false;          // UDP_GRO
  uint8_t timestamp_type = 0;  // SO_TIMESTAMP_OLD ...; 0: none
  uint8_t timestamping = 0;
};

class DatagramSocket final : public File {
 public:
  explicit DatagramSocket(int socket_domain) noexcept : File(FileKind::datagram), domain(static_cast<uint8_t>(socket_domain)) {}

  const uint8_t domain;                       // AF_INET or AF_INET6
  netstack::UdpEndpoint* endpoint = nullptr;  // nullptr: the kernel serves it
  netstack::UdpEndpoint* reserve = nullptr;   // waits to be that, with what it has joined (multicast.h)
  uint32_t group_source_be = 0;               // IP_MULTICAST_IF is the stack's address
  bool both = false;                          // and so does the placeholder, where there is an endpoint
  bool bound_here = false;                    // bind() named the stack's address: the placeholder has no port
  bool kernel_only = false;                   // bind() named an address of the kernel's
  bool kernel_peer = false;                   // it is connected, and has no endpoint
  bool mute = false;                          // the placeholder receives nothing
  bool filtered = false;                      // by a filter that set_hearing() has attached
  netstack::IpAddress former_peer{};          // of IPv6's: what comes over IPv6 is from there alone, when it has no peer (hear_only())
  bool v6_only = false;                       // IPV6_V6ONLY, of one that has an endpoint
  uint8_t shut = 0;                           // what shutdown() has told, whether there was a peer or not: SHUT_RD + 1, SHUT_WR + 1
  uint8_t turns = 0;                          // receives since the kernel was asked
  int32_t peek_offset = -1;                   // SO_PEEK_OFF, in what the stack has received
  DatagramControl control;
  uint64_t receive_timeout_ns = kForever;  // SO_RCVTIMEO; 0: do not wait
  uint64_t send_timeout_ns = kForever;
};

[[nodiscard]] inline bool is_datagram(const File* file) noexcept { return file != nullptr && file->kind == FileKind::datagram; }
// With the lock held; nullptr if it is none of ours.
[[nodiscard]] DatagramSocket* datagram_at(int64_t fd) noexcept;
// Gives everything back: the last reference has gone.
void close_datagram(DatagramSocket* socket) noexcept;
// The level that wait and epoll look at in the kernel's half of a socket with two sides: the stack alone says whether it can be written to.
[[nodiscard]] inline uint32_t kernel_side_events(uint32_t events) noexcept {
  return events & ~uint32_t{EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND};
}

}  // namespace shim
