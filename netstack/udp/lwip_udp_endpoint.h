// A UDP endpoint on lwIP's IP layer: its name, its peer, what waits to be read, and what went wrong.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP's own UDP is not built: its endpoints are found by walking a list. What is above IP is here, in udp.h (input, ports) and in
// udp_output.h.
//
// Invariants: 1 an endpoint with a port is in the demultiplexer under its present name and peer; 2 what recovery needs are scalars: name,
// peer, connected_, options; the queues are lost with the memory they lie in, as datagrams may be; 3 after release() there is no endpoint.
#pragma once

#include "lwip/netif.h"
#include "netstack/udp/busy_readers.h"
#include "netstack/udp/datagram_queue.h"
#include "netstack/udp/memberships.h"
#include "netstack/udp_endpoint.h"

namespace netstack {

class Udp;

class LwipUdpEndpoint final : public UdpEndpoint {
 public:
  explicit LwipUdpEndpoint(Udp& udp) noexcept : udp_(udp) {}

  // Pollable and UdpEndpoint.
  [[nodiscard]] uint32_t ready() const noexcept override;
  [[nodiscard]] long bind(const PortRequest& request) noexcept override;
  [[nodiscard]] long ensure_port() noexcept override { return name_.port_be == 0 ? choose_port() : 0; }
  [[nodiscard]] long connect(const SocketAddress& peer) noexcept override;
  void disconnect() noexcept override;
  void hear_only(const IpAddress& former_peer) noexcept override { former_peer_ = former_peer; }
  [[nodiscard]] bool connected() const noexcept override { return connected_; }
  [[nodiscard]] SocketAddress local() const noexcept override { return name_; }
  [[nodiscard]] SocketAddress peer() const noexcept override { return peer_; }
  [[nodiscard]] long send(const SendRequest& request, const iovec* parts, int count) noexcept override;
  [[nodiscard]] bool continues() const noexcept override { return pending_ != nullptr; }
  [[nodiscard]] long receive(const iovec* parts, int count, bool peek, Datagram* about) noexcept override;
  [[nodiscard]] long peek_at(const iovec* parts, int count, size_t* offset, Datagram* about) noexcept override;
  [[nodiscard]] size_t joined_bytes(size_t room) const noexcept override { return received_.joined_bytes(room); }
  [[nodiscard]] long receive_joined(const iovec* parts, int count, size_t joined, Datagram* about) noexcept override;
  [[nodiscard]] long receive_error(const iovec* parts, int count, UdpError* about) noexcept override;
  [[nodiscard]] size_t next_bytes() const noexcept override { return received_.front_bytes(); }
  [[nodiscard]] bool readable() const noexcept override { return !received_.empty(); }
  [[nodiscard]] bool read_shut() const noexcept override { return (shut_ & kReadShut) != 0; }
  [[nodiscard]] long change_group(const GroupChange& change) noexcept override;
  [[nodiscard]] bool group_sources(const IpAddress& group, GroupSources* out) const noexcept override;
  void shutdown(int how) noexcept override;
  [[nodiscard]] int take_error() noexcept override;
  [[nodiscard]] long set_option(UdpOption option, int value) noexcept override;
  [[nodiscard]] long get_option(UdpOption option, int* value) const noexcept override;
  [[nodiscard]] UdpFigures figures() const noexcept override { return {received_.held(), drops_}; }
  void release() noexcept override;

  // For the stack. A datagram for this endpoint, which takes it: its payload pointer stands behind the UDP header.
  void deliver(pbuf* p, uint32_t ip_header_bytes) noexcept;
  // An ICMP message about something that was sent, which the endpoint takes. `fatal`: it ends a connection attempt, in the kernel's words a
  // hard error; `packet_at`: where in the chain the packet lies that it is about, `payload_at`: and that one's payload.
  struct IcmpReport {
    int error;
    bool fatal;
    uint8_t type, code;
    uint32_t info;
    SocketAddress to, offender;
    size_t payload_at;
  };
  void report(const IcmpReport& report, pbuf* p) noexcept;
  // A router says that it takes packets of so many bytes at most on the way to this address. False: nobody wants to hear that.
  // `fatal`: it is news for who has a peer (udpv6_err()).
  [[nodiscard]] bool path_takes(const IpAddress& to, uint32_t mtu, bool* fatal) noexcept;
  // There may be room to send again.
  void room_made() noexcept;
  [[nodiscard]] const SocketAddress& name() const noexcept { return name_; }
  [[nodiscard]] const SocketAddress& other_end() const noexcept { return peer_; }
  [[nodiscard]] bool v6_only() const noexcept { return v6_only_; }
  [[nodiscard]] bool for_v6() const noexcept { return for_v6_; }
  [[nodiscard]] const PortSharing& sharing() const noexcept { return options_.sharing; }
  // udp6_unicast_compute_score(), __udp_v6_is_mcast_sock(): whom one without a peer does not hear.
  [[nodiscard]] bool is_deaf_to(const IpAddress& from) const noexcept {
    return !former_peer_.is_any() && !from.is_v4() && !(from == former_peer_);
  }
  [[nodiscard]] bool held() const noexcept { return held_; }
  void hold(bool held) noexcept { held_ = held; }
  // Whether it takes what `source` sends to a group that it listens to.
  [[nodiscard]] bool takes_from(const IpAddress& group, const IpAddress& source) const noexcept;
  [[nodiscard]] Membership** memberships() noexcept { return &memberships_; }
  // After a member died inside the lock: nothing of what it had received exists any more.
  void forget_everything() noexcept;

  LwipUdpEndpoint* next_at_port = nullptr;
  LwipUdpEndpoint* next_found = nullptr;

 private:
  friend class UdpOutput;
  static constexpr uint8_t kReadShut = 1, kWriteShut = 2;
  static constexpr uint32_t kUsualReceiveBuffer = 212992;  // net.core.rmem_default
  static constexpr int kMostErrors = 16;

  struct Options {
    uint32_t receive_buffer = kUsualReceiveBuffer;
    uint8_t ttl = 64, multicast_ttl = 1, tos = 0;
    uint8_t path_mtu_discovery = 1;  // IP_PMTUDISC_WANT
    uint8_t hop_limit = 64, multicast_hops = 1, traffic_class = 0, path_mtu_discovery6 = 1;
    bool multicast_loop = true, multicast_loop6 = true, multicast_all = true, multicast_all6 = true;
    bool broadcast = false, no_checksum = false, errors = false, errors6 = false, dont_fragment = false, cork = false;
    PortSharing sharing{};
  };
  // The ICMP message itself holds what was sent; this lies in front of it (report()).
  struct QueuedError;
  // A datagram that is not complete yet (udp_output.cc).
  struct Pending;

  // The next burst may be more than there is room for.
  [[nodiscard]] bool is_nearly_full() const noexcept {
    return !received_.empty() && received_.held() + BusyReaders::kBurstCost > options_.receive_buffer;
  }
  [[nodiscard]] long choose_port() noexcept;
  [[nodiscard]] long check_destination(const SocketAddress& to) const noexcept;
  [[nodiscard]] uint16_t mtu_towards(const IpAddress& to) const noexcept;
  [[nodiscard]] bool is_whole(const SendRequest& request, const SocketAddress& to) const noexcept;
  void announce(uint32_t events) noexcept;
  void fail(int error) noexcept;
  [[nodiscard]] QueuedError* queue_error(pbuf* message, size_t payload_at, const UdpError& about) noexcept;
  [[nodiscard]] long too_long(const SocketAddress& to) noexcept;
  void clear_errors() noexcept;
  [[nodiscard]] long may_send(const SendRequest& request, const SocketAddress& to, size_t bytes) noexcept;
  [[nodiscard]] long append(const SendRequest& request, const SocketAddress& to, const iovec* parts, int count, size_t bytes) noexcept;
  [[nodiscard]] long push_pending() noexcept;
  void drop_pending() noexcept;

  Udp& udp_;
  DatagramQueue received_;
  SocketAddress name_, peer_;
  IpAddress former_peer_{};
  Options options_;
  netif_hint neighbour_{};  // where lwIP found the last one's hardware address
  Membership* memberships_ = nullptr;
  QueuedError* errors_ = nullptr;
  Pending* pending_ = nullptr;
  int error_count_ = 0;
  int error_ = 0;
  uint32_t drops_ = 0;
  uint8_t shut_ = 0;
  bool connected_ = false, v6_only_ = false, for_v6_ = false;
  bool only_v4_ = false;  // its unspecified address is IPv4's
  bool asked_for_port_ = false, asked_for_address_ = false;  // by name, in bind() (SOCK_BINDPORT_LOCK, SOCK_BINDADDR_LOCK)
  mutable bool no_space_ = false;                             // its user waits for room to send
  bool refused_ = false;                                      // the last send found none
  bool held_ = true;                                          // by a user
};

}  // namespace netstack
