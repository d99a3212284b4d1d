// The public face of UDP on a stack: an endpoint that sends and receives datagrams.
// SPDX-License-Identifier: BSD-3-Clause
//
// The rules of stack.h hold: the lock is held, results are values or negative errno, observers only note.
#pragma once

#include "netstack/stack.h"

namespace netstack {

enum class UdpOption {
  receive_buffer,  // bytes as the kernel counts them, bookkeeping included (sk_rcvbuf)
  broadcast,       // 0/1: may send to a broadcast address
  ttl,
  multicast_ttl,
  tos,
  path_mtu_discovery,  // IP_PMTUDISC_*: whether what is longer than the path takes is cut, or refused
  hop_limit,           // of IPv6, in place of ttl and so on
  multicast_hops,
  traffic_class,
  path_mtu_discovery6,
  dont_fragment,       // 0/1: IPv6's alone, whatever is discovered (IPV6_DONTFRAG)
  no_checksum,         // 0/1: sends without one, where the protocol allows that
  multicast_loop,      // 0/1: what is sent to a group comes back to who has joined it here; of IPv4 and of IPv6
  multicast_loop6,
  multicast_all,       // 0/1: takes what comes to a group that anybody here has joined, unless it has joined it itself
  multicast_all6,
  cork,                // 0/1: what is sent is one datagram until this is 0 again (UDP_CORK)
  errors,              // 0/1: what routers and the peer report is queued, and told to unconnected endpoints as well (IP_RECVERR)
  errors6,
  reuse_address,
  reuse_port,
  owner_uid,
  path_mtu,  // read only, of a connected endpoint
};

// What is known of a received datagram.
struct Datagram {
  SocketAddress from, to;
  uint64_t received_ns = 0;  // base::monotonic_ns() of the turn it came in
  size_t bytes = 0;          // its length, whatever part of it was copied
  uint8_t ttl = 0, tos = 0;
  uint16_t segment = 0;      // it is several, each so long and the last one perhaps shorter
};

// How a datagram is sent, where that differs from the endpoint's own way.
struct SendRequest {
  const SocketAddress* to = nullptr;  // nullptr: the peer
  IpAddress source{};                 // which of the stack's addresses it comes from, unspecified: the endpoint's
  int ttl = -1, tos = -1;
  int dont_fragment = -1;             // IPV6_DONTFRAG
  bool probe = false;  // MSG_PROBE, MSG_CONFIRM: everything but the sending
  bool more = false;   // MSG_MORE: the datagram goes on with the next send
  bool whole = false;  // -EMSGSIZE rather than fragments
};

// An entry of the error queue: struct sock_extended_err, whom the datagram was for, and who reported.
struct UdpError {
  SocketAddress to, offender;
  uint32_t error = 0, info = 0;
  uint8_t origin = 0, type = 0, code = 0;
  size_t bytes = 0;  // of the datagram, as far as it was reported
};

// What becomes of a membership in a group (RFC 3678).
struct GroupChange {
  enum class Kind : uint8_t { join, leave, join_source, leave_source, block, unblock, set };
  Kind kind;
  IpAddress group;
  const IpAddress* sources = nullptr;  // one, or those of the filter that is set
  int count = 0;
  bool exclude = false;                // of that
};

// From whom a membership wants what is sent to the group: its sources alone, or all others. Valid while the lock is held.
struct GroupSources {
  const IpAddress* sources = nullptr;
  int count = 0;
  bool exclude = true;
};

struct UdpFigures {
  uint32_t held = 0;   // memory of what waits to be read, as the kernel counts it (sk_rmem_alloc)
  uint32_t drops = 0;  // datagrams thrown away for lack of room (sk_drops)
};

class UdpEndpoint : public Pollable {
 public:
  // Takes a port, and an address or all of them. 0, -EINVAL if there is a port already, -EADDRINUSE or -EADDRNOTAVAIL.
  [[nodiscard]] virtual long bind(const PortRequest& request) noexcept = 0;
  // An endpoint without a port gets one, as it does by whatever is sent or connected (inet_send_prepare()). 0 or -EAGAIN.
  [[nodiscard]] virtual long ensure_port() noexcept = 0;
  // Datagrams go to this peer, and come from nobody else; an endpoint without a port gets one. 0, -EAGAIN if there is none, -ENETUNREACH,
  // -EACCES.
  [[nodiscard]] virtual long connect(const SocketAddress& peer) noexcept = 0;
  // Ends that. What bind() was not asked for by name goes as well: the address, the port.
  virtual void disconnect() noexcept = 0;
  // What comes over IPv6 is from this host alone while there is no peer: a socket of IPv6's had one, which disconnect() leaves in
  // sk_v6_daddr. No address: from everybody.
  virtual void hear_only(const IpAddress& former_peer) noexcept = 0;
  [[nodiscard]] virtual bool connected() const noexcept = 0;
  [[nodiscard]] virtual SocketAddress local() const noexcept = 0;
  [[nodiscard]] virtual SocketAddress peer() const noexcept = 0;

  // Sends one datagram: its length, -EAGAIN while the wire has no room, the pending error once, -EPIPE after shutdown, -EMSGSIZE,
  // -EDESTADDRREQ, -EACCES, -ENETUNREACH, -EINVAL, -EAFNOSUPPORT. Who the
  // datagram is for that others continue is said by the first. It leaves at once, unless it is an answer and others are due (Udp::sent()).
  [[nodiscard]] virtual long send(const SendRequest& request, const iovec* parts, int count) noexcept = 0;
  // A datagram has been begun and is not complete: the next send() continues it.
  [[nodiscard]] virtual bool continues() const noexcept = 0;
  // Takes the oldest datagram and copies what there is room for: so many bytes, or the pending error once, or -EAGAIN. `peek` leaves it
  // where it is.
  [[nodiscard]] virtual long receive(const iovec* parts, int count, bool peek, Datagram* about) noexcept = 0;
  // Looks at the datagram that lies `*offset` bytes into the queue, from there on, and leaves it: `*offset` becomes the offset in it.
  [[nodiscard]] virtual long peek_at(const iovec* parts, int count, size_t* offset, Datagram* about) noexcept = 0;
  // Takes as many of the oldest as one message may be (UDP_GRO): from one sender, of one length but for the last, together no longer than
  // there is room for. joined_bytes() says how much that is.
  [[nodiscard]] virtual size_t joined_bytes(size_t room) const noexcept = 0;
  [[nodiscard]] virtual long receive_joined(const iovec* parts, int count, size_t joined, Datagram* about) noexcept = 0;
  // As receive() for the error queue.
  [[nodiscard]] virtual long receive_error(const iovec* parts, int count, UdpError* about) noexcept = 0;
  // Bytes of the oldest datagram; 0 if there is none (FIONREAD).
  [[nodiscard]] virtual size_t next_bytes() const noexcept = 0;
  [[nodiscard]] virtual bool readable() const noexcept = 0;
  // Nobody will read what comes: shutdown() has said so.
  [[nodiscard]] virtual bool read_shut() const noexcept = 0;

  // Joins a group, leaves it, or changes from whom it is wanted. 0, or what ip_mc_join_group(), ip_mc_source() and ip_mc_msfilter() say.
  [[nodiscard]] virtual long change_group(const GroupChange& change) noexcept = 0;
  // The filter of a group that it has joined. False if it has not.
  [[nodiscard]] virtual bool group_sources(const IpAddress& group, GroupSources* out) const noexcept = 0;
  // SHUT_RD, SHUT_WR or SHUT_RDWR.
  virtual void shutdown(int how) noexcept = 0;
  // The pending error as a positive errno, cleared by the call; 0 if none.
  [[nodiscard]] virtual int take_error() noexcept = 0;
  [[nodiscard]] virtual long set_option(UdpOption option, int value) noexcept = 0;
  [[nodiscard]] virtual long get_option(UdpOption option, int* value) const noexcept = 0;
  [[nodiscard]] virtual UdpFigures figures() const noexcept = 0;

  // The user is gone, and the endpoint with him.
  virtual void release() noexcept = 0;

 protected:
  ~UdpEndpoint() = default;
};

}  // namespace netstack
