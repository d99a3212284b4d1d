// Sending datagrams.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp/udp_output.h"

#include <cerrno>
#include <cstring>
#include <linux/in.h>
#include <linux/in6.h>

#include "lwip/etharp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/prot/udp.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/lwip_errno.h"
#include "netstack/lwip/neighbour_discovery.h"
#include "netstack/udp/udp.h"
#include "netstack/udp/udp_addresses.h"

namespace netstack {
namespace {

// What surrounds a datagram's bytes in its packet, which lwIP counts in 16 bits.
constexpr size_t headers_of(const SocketAddress& to) noexcept { return (to.address.is_v4() ? kIpHeader : kIp6Header) + UDP_HLEN; }

void gather(uint8_t* to, const iovec* parts, int count) noexcept {
  for (int i = 0; i < count; i++) {
    if (parts[i].iov_len == 0) continue;
    memcpy(to, parts[i].iov_base, parts[i].iov_len);
    to += parts[i].iov_len;
  }
}

// For the time of a datagram: who sends it, and no more than a frame holds in one piece (TCP's segments may be longer).
class InterfaceFor {
 public:
  // `stays`: it goes to nobody but ourselves.
  InterfaceFor(netif& interface, netif_hint* hint, uint16_t mtu, bool stays) noexcept
      : interface_(interface), mtu_(interface.mtu), output_(interface.output), output6_(interface.output_ip6) {
    interface.mtu = mtu;
    if (stays) {
      interface.output = [](netif*, pbuf*, const ip4_addr_t*) -> err_t { return ERR_OK; };
      interface.output_ip6 = [](netif*, pbuf*, const ip6_addr_t*) -> err_t { return ERR_OK; };
    }
    NETIF_SET_HINTS(&interface, hint);
  }
  ~InterfaceFor() {
    NETIF_RESET_HINTS(&interface_);
    interface_.mtu = mtu_;
    interface_.output = output_;
    interface_.output_ip6 = output6_;
  }
  InterfaceFor(const InterfaceFor&) = delete;
  InterfaceFor& operator=(const InterfaceFor&) = delete;

 private:
  netif& interface_;
  const uint16_t mtu_;
  const netif_output_fn output_;
  const netif_output_ip6_fn output6_;
};

// For the time of a datagram: how long its fragments may be. lwIP asks the interface, over IPv6 also what it remembers of the destination,
// and TCP's segments are none of its business: they are short enough by themselves.
class PathMtuFor {
 public:
  PathMtuFor(netif& interface, const IpAddress& to, uint16_t mtu) noexcept
      : interface_(interface), to_(to), mtu_(to.is_v4() ? interface.mtu : interface.mtu6) {
    set(mtu);
  }
  ~PathMtuFor() { set(mtu_); }
  PathMtuFor(const PathMtuFor&) = delete;
  PathMtuFor& operator=(const PathMtuFor&) = delete;

 private:
  void set(uint16_t mtu) noexcept {
    if (to_.is_v4()) {
      interface_.mtu = mtu;
      return;
    }
    interface_.mtu6 = mtu;
    set_destination_mtu_v6(to_lwip_v6(to_), mtu);
  }

  netif& interface_;
  const IpAddress to_;
  const uint16_t mtu_;
};

}  // namespace

// Lies in the heap, its bytes behind it.
struct LwipUdpEndpoint::Pending {
  SocketAddress to;
  SendRequest request;
  size_t bytes;
  [[nodiscard]] uint8_t* data() noexcept { return reinterpret_cast<uint8_t*>(this + 1); }
};

// In the order in which udp_sendmsg() of Linux looks.
long LwipUdpEndpoint::send(const SendRequest& request, const iovec* parts, int count) noexcept {
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  if (const long error = ensure_port(); error != 0) return error;
  const bool by_v4 = request.to != nullptr ? request.to->address.is_v4() : connected_ ? peer_.address.is_v4() : !for_v6_;
  if (bytes > 0xffff && by_v4) return -EMSGSIZE;  // udpv6_sendmsg() looks at the destination first
  if (pending_ != nullptr) {
    if (request.to != nullptr && request.to->address.is_v4() && !pending_->to.address.is_v4()) return -EINVAL;
    return append(request, pending_->to, parts, count, bytes);
  }
  if (request.to != nullptr && request.to->port_be == 0) return -EINVAL;
  if (request.to == nullptr && !connected_) return -EDESTADDRREQ;
  const SocketAddress to = request.to != nullptr ? *request.to : peer_;
  if (const long error = may_send(request, to, bytes); error != 0) return error;
  if (request.probe && bytes == 0) return 0;
  if (request.more || options_.cork) return append(request, to, parts, count, bytes);
  const long result = udp_.output().send(*this, to, request, parts, count, bytes);
  refused_ = result == -EAGAIN;
  return result;
}

// Whether it goes in one piece or not at all.
bool LwipUdpEndpoint::is_whole(const SendRequest& request, const SocketAddress& to) const noexcept {
  const bool v4 = to.address.is_v4();
  const uint8_t discovery = v4 ? options_.path_mtu_discovery : options_.path_mtu_discovery6;
  const bool dont_fragment = request.dont_fragment >= 0 ? request.dont_fragment != 0 : options_.dont_fragment;
  const bool ignores = discovery < IP_PMTUDISC_DO || discovery == IP_PMTUDISC_OMIT;  // ip_sk_ignore_df(), of IPv6 the same
  return request.whole || !ignores || (!v4 && dont_fragment);
}

// Who probes the path, or does not trust what routers say of it, looks at the wire alone (ip_setup_cork(), ip6_setup_cork()).
uint16_t LwipUdpEndpoint::mtu_towards(const IpAddress& to) const noexcept {
  const bool trusts = (to.is_v4() ? options_.path_mtu_discovery : options_.path_mtu_discovery6) < IP_PMTUDISC_PROBE;
  return trusts ? udp_.path_mtu(to) : udp_.wires_mtu();
}

// What forbids a datagram of so many bytes to go there.
long LwipUdpEndpoint::may_send(const SendRequest& request, const SocketAddress& to, size_t bytes) noexcept {
  if (const long error = check_destination(to); error != 0) return error;
  if (bytes > (is_whole(request, to) ? mtu_towards(to.address) : size_t{0xffff}) - headers_of(to)) {
    return request.whole ? -EMSGSIZE : too_long(to);
  }
  if (error_ != 0) return -take_error();
  return (shut_ & kWriteShut) != 0 ? -EPIPE : 0;
}

// A piece of a datagram. One that makes it too long takes all of it away (udp_flush_pending_frames()).
long LwipUdpEndpoint::append(const SendRequest& request, const SocketAddress& to, const iovec* parts, int count, size_t bytes) noexcept {
  const size_t before = pending_ != nullptr ? pending_->bytes : 0;
  if (const long error = may_send(request, to, before + bytes); error != 0) return drop_pending(), error;
  auto* const whole = static_cast<Pending*>(udp_.core().arena().allocate(sizeof(Pending) + before + bytes));
  if (whole == nullptr) return -ENOBUFS;
  *whole = {to, request, before + bytes};
  whole->request.to = nullptr;
  if (pending_ != nullptr) {
    memcpy(whole->data(), pending_->data(), before);
    whole->request = pending_->request;
    drop_pending();
  }
  gather(whole->data() + before, parts, count);
  pending_ = whole;
  if (request.more || options_.cork) return static_cast<long>(bytes);
  const long result = push_pending();
  if (result == -EAGAIN) pending_->bytes = before;  // this piece comes again
  return result < 0 ? result : static_cast<long>(bytes);
}

long LwipUdpEndpoint::push_pending() noexcept {
  if (pending_ == nullptr) return 0;
  const iovec all{pending_->data(), pending_->bytes};
  const long result = udp_.output().send(*this, pending_->to, pending_->request, &all, 1, pending_->bytes);
  refused_ = result == -EAGAIN;
  if (!refused_) drop_pending();
  return result;
}

void LwipUdpEndpoint::drop_pending() noexcept {
  udp_.core().arena().release(pending_);
  pending_ = nullptr;
}

long UdpOutput::send(LwipUdpEndpoint& from, const SocketAddress& to, const SendRequest& how, const iovec* parts, int count,
                     size_t bytes) noexcept {
  udp_.core().link_timers.catch_up();
  const auto& own = from.options_;
  const bool v4 = to.address.is_v4(), many = to.address.is_multicast();
  const uint8_t ttl = v4 ? (many ? own.multicast_ttl : own.ttl) : (many ? own.multicast_hops : own.hop_limit);
  const uint8_t tos = v4 ? own.tos : own.traffic_class;
  const Outgoing datagram{to,
                          parts,
                          count,
                          bytes,
                          static_cast<uint8_t>(how.ttl >= 0 ? how.ttl : ttl),
                          static_cast<uint8_t>(how.tos >= 0 ? how.tos : tos),
                          how.source};
  const uint8_t* const station = station_for(from, datagram);
  const long result = station != nullptr ? send_frame(from, datagram, station) : send_packet(from, datagram);
  if (result >= 0) sent();
  return result;
}

// IPv6 has no datagrams without a sum (RFC 8200, 8.1).
bool UdpOutput::sums(const LwipUdpEndpoint& from, const SocketAddress& to) const noexcept {
  return (udp_.core().interface().chksum_flags & NETIF_CHECKSUM_GEN_UDP) != 0 && !(from.options_.no_checksum && to.address.is_v4());
}

IpAddress UdpOutput::source_of(const LwipUdpEndpoint& from, const Outgoing& datagram) const noexcept {
  const IpAddress& to = datagram.to.address;
  if (!datagram.source.is_any()) return datagram.source;
  const IpAddress& name = from.name_.address;
  if (!name.is_any() && !name.is_multicast() && name.is_v4() == to.is_v4()) return name;
  return udp_.core().neighbours.source_for(to);
}

// ---------------------------------------------------------------- a frame of our own

const uint8_t* UdpOutput::station_for(LwipUdpEndpoint& from, const Outgoing& datagram) noexcept {
  LwipCore& core = udp_.core();
  const SocketAddress& to = datagram.to;
  if (headers_of(to) + datagram.bytes > from.mtu_towards(to.address) || core.neighbours.owns(to.address)) return nullptr;
  if (to.address.is_multicast()) return nullptr;
  if (const uint8_t* const router = core.neighbours.router()) return router;
  if (!to.address.is_v4()) return core.neighbours.station_v6(to.address, &from.neighbour_.addr_hint);
  return udp_.is_broadcast(to) ? nullptr : station_for_v4(from, to.address.v4_be());
}

const uint8_t* UdpOutput::station_for_v4(LwipUdpEndpoint& from, uint32_t to_be) noexcept {
  LwipCore& core = udp_.core();
  const ip4_addr_t hop{core.neighbours.hop_to(to_be)};
  ip4_addr_t* ip;
  netif* interface;
  eth_addr* station;
  if (etharp_get_entry(from.neighbour_.addr_hint, &ip, &interface, &station) != 0 && ip->addr == hop.addr) [[likely]] return station->addr;
  const ip4_addr_t* found;
  const ssize_t index = etharp_find_addr(&core.interface(), &hop, &station, &found);
  if (index < 0) return nullptr;
  from.neighbour_.addr_hint = static_cast<u8_t>(index);
  return station->addr;
}

uint8_t* UdpOutput::write_ip4(uint8_t* ip, const LwipUdpEndpoint& from, const Outgoing& datagram, uint32_t source_be) noexcept {
  const uint8_t discovery = from.options_.path_mtu_discovery;  // __ip_make_skb(), of one that the path takes
  const bool wants = discovery == IP_PMTUDISC_WANT && !udp_.core().path_mtus.are_cut(datagram.to.address, udp_.core().clock.now_ns());
  const bool whole = wants || discovery == IP_PMTUDISC_DO || discovery == IP_PMTUDISC_PROBE;
  ip[0] = kPlainIp;
  ip[1] = datagram.tos;
  put(ip + 2, lwip_htons(static_cast<uint16_t>(kIpHeader + UDP_HLEN + datagram.bytes)));
  put(ip + 4, packet_id_++);
  put<uint16_t>(ip + 6, whole ? PP_HTONS(IP_DF) : 0);
  ip[8] = datagram.ttl;
  ip[9] = IP_PROTO_UDP;
  put<uint16_t>(ip + 10, 0);
  put(ip + 12, source_be);
  put(ip + 16, datagram.to.address.v4_be());
  if (udp_.core().facts().link_needs_checksum) put(ip + 10, inet_chksum(ip, kIpHeader));
  return ip + kIpHeader;
}

uint8_t* UdpOutput::write_ip6(uint8_t* ip, const Outgoing& datagram, const IpAddress& source) noexcept {
  put(ip, lwip_htonl(uint32_t{6} << 28 | uint32_t{datagram.tos} << 20));
  put(ip + 4, lwip_htons(static_cast<uint16_t>(UDP_HLEN + datagram.bytes)));
  ip[6] = IP6_NEXTH_UDP;
  ip[7] = datagram.ttl;
  put(ip + 8, source);
  put(ip + 24, datagram.to.address);
  return ip + kIp6Header;
}

long UdpOutput::send_frame(const LwipUdpEndpoint& from, const Outgoing& datagram, const uint8_t* station) noexcept {
  LwipCore& core = udp_.core();
  TxFrame frame;
  if (!core.output.open(&frame)) return -EAGAIN;
  const bool v4 = datagram.to.address.is_v4();
  const IpAddress own = source_of(from, datagram);
  uint8_t* const ip = frame.data + kEthernetHeader;
  memcpy(frame.data, station, ETH_HWADDR_LEN);
  memcpy(frame.data + ETH_HWADDR_LEN, core.interface().hwaddr, ETH_HWADDR_LEN);
  put<uint16_t>(frame.data + kEtherTypeAt, v4 ? PP_HTONS(ETHTYPE_IP) : PP_HTONS(ETHTYPE_IPV6));
  uint8_t* const udp = v4 ? write_ip4(ip, from, datagram, own.v4_be()) : write_ip6(ip, datagram, own);
  const auto udp_bytes = static_cast<uint16_t>(UDP_HLEN + datagram.bytes);
  put(udp, from.name_.port_be);
  put(udp + 2, datagram.to.port_be);
  put(udp + 4, lwip_htons(udp_bytes));
  put<uint16_t>(udp + 6, 0);
  gather(udp + UDP_HLEN, datagram.parts, datagram.count);
  if (sums(from, datagram.to)) {
    pbuf all{};
    all.payload = udp;
    all.len = all.tot_len = udp_bytes;
    const ip_addr_t source = to_lwip(own), destination = to_lwip(datagram.to);
    const u16_t sum = ip_chksum_pseudo(&all, IP_PROTO_UDP, udp_bytes, &source, &destination);
    put<uint16_t>(udp + 6, sum != 0 ? sum : 0xffff);
  }
  core.wire().send(frame.handle, static_cast<uint32_t>(udp - frame.data + udp_bytes));
  return static_cast<long>(datagram.bytes);
}

// ---------------------------------------------------------------- by lwIP

long UdpOutput::send_packet(LwipUdpEndpoint& from, const Outgoing& datagram) noexcept {
  LwipCore& core = udp_.core();
  netif& interface = core.interface();
  const ip_addr_t source = to_lwip(source_of(from, datagram)), destination = to_lwip(datagram.to);
  const bool waits =
      !udp_.is_broadcast(datagram.to) && !ip_addr_ismulticast(&destination) && !core.neighbours.knows_way_to(datagram.to.address);
  if (waits && ++unresolved_ > kMostUnresolved) return -EAGAIN;
  pbuf* const p = pbuf_alloc(PBUF_TRANSPORT, static_cast<u16_t>(datagram.bytes), PBUF_RAM);
  if (p == nullptr) return -EAGAIN;
  gather(static_cast<uint8_t*>(p->payload), datagram.parts, datagram.count);
  const IpAddress& to = datagram.to.address;
  const bool loops = to.is_v4() ? from.options_.multicast_loop : from.options_.multicast_loop6;
  if (to.is_multicast() && loops && core.groups.holds(to)) p->flags |= PBUF_FLAG_MCASTLOOP;
  (void)pbuf_add_header(p, UDP_HLEN);
  auto* const header = static_cast<udp_hdr*>(p->payload);
  header->src = from.name_.port_be;
  header->dest = datagram.to.port_be;
  header->len = lwip_htons(static_cast<u16_t>(datagram.bytes + UDP_HLEN));
  header->chksum = 0;
  if (sums(from, datagram.to)) {
    const u16_t sum = ip_chksum_pseudo(p, IP_PROTO_UDP, p->tot_len, &source, &destination);
    header->chksum = sum != 0 ? sum : 0xffff;
  }
  err_t error;
  {
    const bool stays = to.is_multicast() && datagram.ttl == 0;
    const InterfaceFor one(interface, &from.neighbour_, udp_.wires_mtu(), stays);
    const PathMtuFor path(interface, datagram.to.address, from.mtu_towards(to));
    error = ip_output_if(p, &source, &destination, datagram.ttl, datagram.tos, IP_PROTO_UDP, &interface);
  }
  pbuf_free(p);
  if (error == ERR_MEM) return -EAGAIN;
  return error == ERR_OK ? static_cast<long>(datagram.bytes) : -errno_of_lwip(error);
}

void UdpOutput::sent() noexcept {
  unflushed_++;
  if (unflushed_ < answers_due_ && unflushed_ < kMostTogether) return;
  answers_due_ = unflushed_ < answers_due_ ? answers_due_ - unflushed_ : 0;
  unflushed_ = 0;
  udp_.core().wire().flush();
}

}  // namespace netstack
