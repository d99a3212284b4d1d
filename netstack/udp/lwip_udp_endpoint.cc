// An endpoint's life, its readiness and its receiving half.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp/lwip_udp_endpoint.h"

#include <cerrno>
#include <linux/errqueue.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <sys/epoll.h>

#include "netstack/udp/udp.h"
#include "netstack/udp/udp_addresses.h"

namespace netstack {
namespace {

constexpr uint32_t kReadable = EPOLLIN | EPOLLRDNORM;
constexpr uint32_t kWritable = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;

}  // namespace

struct LwipUdpEndpoint::QueuedError {
  QueuedError* next;
  pbuf* message;
  size_t payload_at;
  UdpError about;
};

// datagram_poll() of Linux, bit by bit.
uint32_t LwipUdpEndpoint::ready() const noexcept {
  uint32_t events = 0;
  if (error_ != 0 || errors_ != nullptr) events |= EPOLLERR;
  if ((shut_ & kReadShut) != 0) events |= kReadable | EPOLLRDHUP;
  if (shut_ == (kReadShut | kWriteShut)) events |= EPOLLHUP;
  if (!received_.empty()) events |= kReadable;
  if (!refused_) {
    events |= kWritable;
  } else {
    no_space_ = true;
    udp_.await_room();
  }
  return events;
}

void LwipUdpEndpoint::announce(uint32_t events) noexcept {
  for (Observer* observer = observers.front(); observer != nullptr; observer = observers.after(observer)) observer->on_ready(*this, events);
}

// ---------------------------------------------------------------- name and peer

long LwipUdpEndpoint::bind(const PortRequest& request) noexcept {
  if (name_.port_be != 0) return -EINVAL;
  options_.sharing = request.sharing;
  v6_only_ = request.v6_only;
  SocketAddress local;
  if (const long error = udp_.find_port(request, &local); error != 0) return error;
  name_ = without_scope(local);
  only_v4_ = name_.address.is_v4();
  for_v6_ = request.for_v6;
  asked_for_port_ = request.local.port_be != 0 && !request.is_chosen && !request.is_known;
  asked_for_address_ = !is_any(request.local);
  udp_.demux().add(*this);
  return 0;
}

long LwipUdpEndpoint::choose_port() noexcept {
  PortRequest any;
  any.local = name_;
  any.sharing = options_.sharing;
  any.v6_only = v6_only_;
  any.for_v6 = for_v6_;
  const bool asked = asked_for_address_;
  const long error = bind(any);
  asked_for_address_ = asked;
  return error == -EADDRINUSE ? -EAGAIN : error;
}

// Where a name of one family keeps it from the other: ip6_dst_lookup_tail(), and inet_saddr of a socket that is bound to an IPv6 address.
long LwipUdpEndpoint::check_destination(const SocketAddress& to) const noexcept {
  if (!is_any(name_) && !name_.address.is_multicast() && name_.address.is_v4() != to.address.is_v4()) {
    if (!to.address.is_v4()) return -EAFNOSUPPORT;
    if (asked_for_address_) return -ENETUNREACH;
  }
  if (udp_.is_broadcast(to)) return options_.broadcast ? 0 : -EACCES;
  return udp_.has_way_to(to) ? 0 : -ENETUNREACH;
}

long LwipUdpEndpoint::connect(const SocketAddress& peer) noexcept {
  if (const long error = check_destination(peer); error != 0) return error;
  if (const long error = ensure_port(); error != 0) return error;
  udp_.demux().remove(*this);
  if (is_any(name_)) name_ = {udp_.core().neighbours.source_for(peer.address), name_.port_be};
  peer_ = without_scope(peer);
  connected_ = true;
  udp_.demux().add(*this);
  return 0;
}

void LwipUdpEndpoint::disconnect() noexcept {
  if (!connected_ && asked_for_port_) return;  // and keeps its place among those that share the port
  const bool has_port = name_.port_be != 0;
  if (has_port) udp_.demux().remove(*this);
  connected_ = false;
  peer_ = {};
  if (!asked_for_address_) name_.address = only_v4_ ? IpAddress::v4(0) : IpAddress{};
  if (!asked_for_port_) name_.port_be = 0;
  if (name_.port_be != 0) udp_.demux().add(*this);
}

void LwipUdpEndpoint::release() noexcept {
  if (name_.port_be != 0) udp_.demux().remove(*this);
  held_ = false;
  udp_.memberships().leave_all(&memberships_);
  received_.clear();
  clear_errors();
  drop_pending();
  udp_.free_endpoint(*this);
}

// ---------------------------------------------------------------- receiving

void LwipUdpEndpoint::deliver(pbuf* p, uint32_t ip_header_bytes) noexcept {
  const uint32_t cost = DatagramQueue::cost_of(p);
  const bool admitted = received_.admits(cost, options_.receive_buffer) && udp_.core().memory.receive_share_is(received_.held() + cost);
  if (!admitted || udp_.core().memory.payload_is_lent) {
    drops_++;
    pbuf_free(p);
    return;
  }
  received_.push(p, ip_header_bytes, udp_.core().clock.now_ns());
  udp_.data_received();
  if (is_nearly_full()) [[unlikely]] udp_.readers().note_nearly_full(this);
  announce(kReadable);
}

long LwipUdpEndpoint::receive(const iovec* parts, int count, bool peek, Datagram* about) noexcept {
  if (error_ != 0) return -take_error();
  if (received_.empty()) return -EAGAIN;
  const size_t copied = received_.copy_front(parts, count, about);
  about->to.port_be = name_.port_be;
  if (!peek) {
    received_.drop_front();
    udp_.readers().note_read(this, is_nearly_full());
  }
  return static_cast<long>(copied);
}

long LwipUdpEndpoint::peek_at(const iovec* parts, int count, size_t* offset, Datagram* about) noexcept {
  if (error_ != 0) return -take_error();
  const long copied = received_.copy_at(parts, count, offset, about);
  about->to.port_be = name_.port_be;
  return copied;
}

long LwipUdpEndpoint::receive_joined(const iovec* parts, int count, size_t joined, Datagram* about) noexcept {
  const size_t segment = received_.front_bytes();
  const long first = receive(parts, count, false, about);
  if (first < 0 || joined <= segment) return first;
  for (size_t done = segment; done < joined;) {
    Datagram unused;
    done += received_.copy_front(parts, count, &unused, done);
    received_.drop_front();
  }
  udp_.readers().note_read(this, is_nearly_full());
  about->bytes = joined;
  about->segment = static_cast<uint16_t>(segment);
  return static_cast<long>(joined);
}

void LwipUdpEndpoint::shutdown(int how) noexcept {
  shut_ |= static_cast<uint8_t>(how + 1);
  announce(ready());
}

int LwipUdpEndpoint::take_error() noexcept {
  const int error = error_;
  error_ = 0;
  return error;
}

void LwipUdpEndpoint::fail(int error) noexcept {
  error_ = error;
  announce(EPOLLERR);
}

// __udp4_lib_err(): who wants all reports gets all of them; who does not, learns of what is final, if it is connected.
void LwipUdpEndpoint::report(const IcmpReport& report, pbuf* p) noexcept {
  const bool wanted = report.to.address.is_v4() ? options_.errors : options_.errors6;
  if (!wanted) {
    pbuf_free(p);
    if (report.fatal && connected_) fail(report.error);
    return;
  }
  UdpError about;
  about.to = report.to;
  about.offender = report.offender;
  about.error = static_cast<uint32_t>(report.error);
  about.info = report.info;
  about.origin = report.to.address.is_v4() ? uint8_t{SO_EE_ORIGIN_ICMP} : uint8_t{SO_EE_ORIGIN_ICMP6};
  about.type = report.type;
  about.code = report.code;
  about.bytes = p->tot_len - report.payload_at;
  if (queue_error(p, report.payload_at, about) == nullptr) pbuf_free(p);
  fail(report.error);
}

// ip_sk_accept_pmtu() and __udp4_lib_err(); ip6_sk_accept_pmtu().
bool LwipUdpEndpoint::path_takes(const IpAddress& to, uint32_t mtu, bool* fatal) noexcept {
  const bool v4 = to.is_v4();
  const uint8_t discovery = v4 ? options_.path_mtu_discovery : options_.path_mtu_discovery6;
  const bool heeds = discovery != IP_PMTUDISC_INTERFACE && discovery != IP_PMTUDISC_OMIT;
  if (v4 && heeds) (void)udp_.core().path_mtus.learn(to, mtu, udp_.wires_mtu(), udp_.core().clock.now_ns());
  if (v4) return discovery != IP_PMTUDISC_DONT;
  if (discovery == IPV6_PMTUDISC_INTERFACE || discovery == IPV6_PMTUDISC_OMIT) return false;
  (void)udp_.core().path_mtus.learn(to, mtu, udp_.wires_mtu(), udp_.core().clock.now_ns());
  *fatal = discovery != IPV6_PMTUDISC_DONT;
  return true;
}

// sock_queue_err_skb(). nullptr if there is no room.
LwipUdpEndpoint::QueuedError* LwipUdpEndpoint::queue_error(pbuf* message, size_t payload_at, const UdpError& about) noexcept {
  auto* const entry = error_count_ < kMostErrors ? static_cast<QueuedError*>(udp_.core().arena().allocate(sizeof(QueuedError))) : nullptr;
  if (entry == nullptr) return nullptr;
  *entry = {nullptr, message, payload_at, about};
  QueuedError** end = &errors_;
  while (*end != nullptr) end = &(*end)->next;
  *end = entry;
  error_count_++;
  return entry;
}

// A datagram that cannot go in one piece and must. ip_local_error() and ipv6_local_error() tell of it, which no pending error does. IPv4's
// has the peer's port, and none if there is no peer.
long LwipUdpEndpoint::too_long(const SocketAddress& to) noexcept {
  const bool v4 = to.address.is_v4();
  if (!(v4 ? options_.errors : options_.errors6)) return -EMSGSIZE;
  UdpError about;
  about.to = {to.address, v4 ? peer_.port_be : to.port_be};
  about.error = EMSGSIZE;
  about.info = mtu_towards(to.address);
  about.origin = SO_EE_ORIGIN_LOCAL;
  if (queue_error(nullptr, 0, about) != nullptr) announce(EPOLLERR);
  return -EMSGSIZE;
}

// sock_dequeue_err_skb(): the pending error becomes the next entry's, or none. What was refused here never is one.
long LwipUdpEndpoint::receive_error(const iovec* parts, int count, UdpError* about) noexcept {
  QueuedError* const entry = errors_;
  if (entry == nullptr) return -EAGAIN;
  *about = entry->about;
  const long copied = about->bytes > 0 ? static_cast<long>(copy_chain(entry->message, entry->payload_at, parts, count)) : 0;
  errors_ = entry->next;
  error_count_--;
  const bool next_is_reported = errors_ != nullptr && errors_->about.origin != SO_EE_ORIGIN_LOCAL;
  if (next_is_reported) error_ = static_cast<int>(errors_->about.error);
  if (about->origin != SO_EE_ORIGIN_LOCAL && !next_is_reported) error_ = 0;
  if (entry->message != nullptr) pbuf_free(entry->message);
  udp_.core().arena().release(entry);
  return copied;
}

void LwipUdpEndpoint::clear_errors() noexcept {
  UdpError unused;
  while (errors_ != nullptr) (void)receive_error(nullptr, 0, &unused);
  error_ = 0;
}

void LwipUdpEndpoint::room_made() noexcept {
  if (!refused_) return;
  refused_ = false;
  if (no_space_) announce(kWritable);
  no_space_ = false;
}

void LwipUdpEndpoint::forget_everything() noexcept {
  received_.forget();
  errors_ = nullptr;
  pending_ = nullptr;
  error_count_ = 0;
  refused_ = no_space_ = false;
  neighbour_ = {};
  memberships_ = nullptr;
  next_at_port = next_found = nullptr;
}

// ---------------------------------------------------------------- groups

long LwipUdpEndpoint::change_group(const GroupChange& change) noexcept { return udp_.memberships().change(*this, &memberships_, change); }

bool LwipUdpEndpoint::group_sources(const IpAddress& group, GroupSources* out) const noexcept {
  for (const Membership* each = memberships_; each != nullptr; each = each->next) {
    if (!(each->group == group)) continue;
    *out = {each->sources, each->count, each->exclude};
    return true;
  }
  return false;
}

// ip_mc_sf_allow(), inet6_mc_check().
bool LwipUdpEndpoint::takes_from(const IpAddress& group, const IpAddress& source) const noexcept {
  for (const Membership* each = memberships_; each != nullptr; each = each->next) {
    if (each->group == group) return each->lets_through(source);
  }
  return group.is_v4() ? options_.multicast_all : options_.multicast_all6;
}

// ---------------------------------------------------------------- options

long LwipUdpEndpoint::set_option(UdpOption option, int value) noexcept {
  Options& o = options_;
  switch (option) {
    case UdpOption::receive_buffer: o.receive_buffer = value < 0 ? 0 : static_cast<uint32_t>(value); return 0;
    case UdpOption::broadcast: o.broadcast = value != 0; return 0;
    case UdpOption::ttl: o.ttl = static_cast<uint8_t>(value); return 0;
    case UdpOption::multicast_ttl: o.multicast_ttl = static_cast<uint8_t>(value); return 0;
    case UdpOption::tos: o.tos = static_cast<uint8_t>(value); return 0;
    case UdpOption::path_mtu_discovery: o.path_mtu_discovery = static_cast<uint8_t>(value); return 0;
    case UdpOption::no_checksum: o.no_checksum = value != 0; return 0;
    case UdpOption::multicast_loop: o.multicast_loop = value != 0; return 0;
    case UdpOption::multicast_loop6: o.multicast_loop6 = value != 0; return 0;
    case UdpOption::multicast_all: o.multicast_all = value != 0; return 0;
    case UdpOption::multicast_all6: o.multicast_all6 = value != 0; return 0;
    case UdpOption::cork:
      o.cork = value != 0;
      if (!o.cork) (void)push_pending();
      return 0;
    case UdpOption::hop_limit: o.hop_limit = static_cast<uint8_t>(value); return 0;
    case UdpOption::multicast_hops: o.multicast_hops = static_cast<uint8_t>(value); return 0;
    case UdpOption::traffic_class: o.traffic_class = static_cast<uint8_t>(value); return 0;
    case UdpOption::path_mtu_discovery6: o.path_mtu_discovery6 = static_cast<uint8_t>(value); return 0;
    case UdpOption::dont_fragment: o.dont_fragment = value != 0; return 0;
    case UdpOption::errors:
    case UdpOption::errors6:
      (option == UdpOption::errors ? o.errors : o.errors6) = value != 0;
      if (value == 0) clear_errors();  // skb_errqueue_purge()
      return 0;
    case UdpOption::reuse_address: o.sharing.reuse_address = value != 0; return 0;
    case UdpOption::reuse_port: o.sharing.reuse_port = value != 0; return 0;
    case UdpOption::owner_uid: o.sharing.uid = static_cast<uint32_t>(value); return 0;
    case UdpOption::path_mtu: break;
  }
  return -ENOPROTOOPT;
}

long LwipUdpEndpoint::get_option(UdpOption option, int* value) const noexcept {
  if (option != UdpOption::path_mtu) return -ENOPROTOOPT;
  if (!connected_) return -ENOTCONN;
  *value = udp_.path_mtu(peer_.address);
  return 0;
}

}  // namespace netstack
