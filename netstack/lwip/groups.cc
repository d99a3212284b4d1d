// The interface's groups, and their reports.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/groups.h"

#include <cstring>

#include "lwip/icmp6.h"
#include "lwip/igmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip4.h"
#include "lwip/ip6.h"
#include "lwip/mld6.h"
#include "lwip/prot/icmp6.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/ip_address.h"
#include "netstack/lwip/lwip_core.h"

namespace netstack {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kUnsolicitedNs = 1000 * kMs;     // RFC 3376, 8.11; RFC 3810, 9.11
constexpr uint64_t kOldRouterNs = 400'000 * kMs;    // RFC 3376, 8.12
constexpr int kRobustness = 2;
constexpr uint32_t kAllSystems = 0xe000'0001, kAllRouters = 0xe000'0002, kReportsV3 = 0xe000'0016;
constexpr uint8_t kQueryV4 = 0x11, kReportV2 = 0x16, kLeaveV2 = 0x17, kReportV3 = 0x22, kReportMld2 = 143;
constexpr uint8_t kIsInclude = 1, kIsExclude = 2, kToInclude = 3, kToExclude = 4;
constexpr size_t kRecordsAt = 8, kOldV4Bytes = 8, kOldV6Bytes = 24;
constexpr uint8_t kInternetControl = 0xc0;  // RFC 3376, 4

constexpr IpAddress link_scope(uint32_t last) noexcept { return {{lwip_htonl(0xff02'0000), 0, 0, lwip_htonl(last)}}; }
constexpr IpAddress kAllNodes6 = link_scope(1), kAllRouters6 = link_scope(2), kReportsMld2 = link_scope(0x16);

// Whom nobody is told about: everybody's groups, and those that do not leave the host (RFC 3810, 6).
bool is_never_told(const IpAddress& group) noexcept {
  if (group.is_v4()) return group.v4_be() == lwip_htonl(kAllSystems);
  return group == kAllNodes6 || (lwip_ntohl(group.words_be[0]) >> 16 & 0xf) <= 1;
}

// A time as a code: from `top` on, with a mantissa and an exponent (RFC 3376, 4.1.1; RFC 3810, 5.1.3).
uint64_t decoded(uint32_t code, int mantissa_bits) noexcept {
  const uint32_t top = uint32_t{1} << (mantissa_bits + 3);
  if (code < top) return code;
  const uint32_t mantissa = (code & ((1U << mantissa_bits) - 1)) | 1U << mantissa_bits;
  return uint64_t{mantissa} << ((code >> mantissa_bits & 7) + 3);
}

// An address in `bytes` bytes, as the group's family has it.
void put_address(uint8_t* to, const IpAddress& address, size_t bytes) noexcept {
  memcpy(to, reinterpret_cast<const uint8_t*>(address.words_be) + sizeof address.words_be - bytes, bytes);
}

}  // namespace

bool GroupFilter::operator==(const GroupFilter& other) const noexcept {
  if (exclude != other.exclude || count != other.count) return false;
  for (int i = 0; i < count; i++) {
    if (!(sources[i] == other.sources[i])) return false;
  }
  return true;
}

uint64_t Groups::now() const noexcept { return core_.clock.now_ns(); }

uint64_t Groups::within(uint64_t ns) noexcept { return ns == 0 ? now() : now() + core_.random() % ns; }

Groups::Group* Groups::find(const IpAddress& group) noexcept {
  for (int i = 0; i < count_; i++) {
    if (groups_[i].address == group) return &groups_[i];
  }
  return nullptr;
}

bool Groups::holds(const IpAddress& group) const noexcept {
  for (int i = 0; i < count_; i++) {
    if (groups_[i].address == group) return !groups_[i].filter.wants_nobody();
  }
  return group == kAllNodes6 || group.v4_be() == lwip_htonl(kAllSystems);
}

bool Groups::set(const IpAddress& group, const GroupFilter& filter) noexcept {
  Group* known = find(group);
  if (known == nullptr) {
    if (filter.wants_nobody()) return true;
    if (count_ == kMostGroups) return false;
    known = &groups_[count_++];
    *known = {group, {}, 0, kNever};
  }
  if (known->filter == filter) return true;
  known->filter = filter;
  known->changes_left = kRobustness;
  known->due_ns = now();
  report_due();
  return true;
}

// ---------------------------------------------------------------- queries

// All groups of a family, or one.
void Groups::answer(const IpAddress& group, bool v4, uint64_t most_ns) noexcept {
  for (int i = 0; i < count_; i++) {
    Group& each = groups_[i];
    if (each.address.is_v4() != v4 || each.filter.wants_nobody() || !(group.is_any() || each.address == group)) continue;
    const uint64_t due_ns = within(most_ns);
    if (due_ns < each.due_ns) each.due_ns = due_ns;
  }
  plan();
}

void Groups::igmp_input(const pbuf& p) noexcept {
  const auto* const message = static_cast<const uint8_t*>(p.payload);
  if (p.len < kOldV4Bytes || inet_chksum_pbuf(const_cast<pbuf*>(&p)) != 0 || message[0] != kQueryV4) return;
  const bool old = p.len == kOldV4Bytes;
  if (old) old_until_ns_[0] = now() + kOldRouterNs;
  const uint64_t tenths = old ? message[1] : decoded(message[1], 4);
  answer(IpAddress::v4(field<uint32_t>(message + 4)), true, (tenths != 0 ? tenths : 100) * 100 * kMs);  // of IGMPv1: ten seconds
}

// From a router on the link only (RFC 3810, 5.1.14).
void Groups::mld_input(const pbuf& p) noexcept {
  const auto* const message = static_cast<const uint8_t*>(p.payload);
  if (p.len < kOldV6Bytes || message[0] != ICMP6_TYPE_MLQ) return;
  if (IP6H_HOPLIM(ip6_current_header()) != 1 || !from_lwip(*ip6_current_src_addr()).is_link_local()) return;
  const bool old = p.len == kOldV6Bytes;
  if (old) old_until_ns_[1] = now() + kOldRouterNs;
  const uint32_t code = lwip_ntohs(field<uint16_t>(message + 4));
  answer(field<IpAddress>(message + 8), false, (old ? code : decoded(code, 12)) * kMs);
}

// ---------------------------------------------------------------- reports

void Groups::plan() noexcept {
  next_ns_ = kNever;
  for (int i = 0; i < count_; i++) {
    if (groups_[i].due_ns < next_ns_) next_ns_ = groups_[i].due_ns;
  }
}

// A group that nobody wants any more stays until that has been told as often as it is to be.
void Groups::report_due() noexcept {
  for (int i = 0; i < count_; i++) {
    Group& group = groups_[i];
    if (group.due_ns > now()) continue;
    report(group);
    if (group.changes_left > 0) group.changes_left--;
    group.due_ns = group.changes_left > 0 ? within(kUnsolicitedNs) : kNever;
    if (group.changes_left == 0 && group.filter.wants_nobody()) groups_[i--] = groups_[--count_];
  }
  plan();
  core_.wire().flush();
}

void Groups::report(const Group& group) noexcept {
  const bool v4 = group.address.is_v4();
  if (is_never_told(group.address)) return;
  if (now() < old_until_ns_[v4 ? 0 : 1]) return report_to_old(group);
  const size_t address_bytes = v4 ? sizeof(uint32_t) : sizeof group.address.words_be;
  const GroupFilter& filter = group.filter;
  const size_t bytes = kRecordsAt + 4 + address_bytes * static_cast<size_t>(1 + filter.count);
  pbuf* const p = pbuf_alloc(PBUF_TRANSPORT, static_cast<u16_t>(bytes), PBUF_RAM);
  if (p == nullptr) return;
  auto* const message = static_cast<uint8_t*>(p->payload);
  memset(message, 0, bytes);
  message[0] = v4 ? kReportV3 : kReportMld2;
  put(message + 6, lwip_htons(1));
  uint8_t* const record = message + kRecordsAt;
  record[0] = group.changes_left > 0 ? (filter.exclude ? kToExclude : kToInclude) : (filter.exclude ? kIsExclude : kIsInclude);
  put(record + 2, lwip_htons(static_cast<u16_t>(filter.count)));
  uint8_t* to = record + 4;
  put_address(to, group.address, address_bytes);
  for (int i = 0; i < filter.count; i++) put_address(to += address_bytes, filter.sources[i], address_bytes);
  v4 ? send_v4(p, lwip_htonl(kReportsV3)) : send_v6(p, kReportsMld2);
}

// RFC 2236 and RFC 2710, which know no sources: to the group that it is in, and to all routers that it is in it no more.
void Groups::report_to_old(const Group& group) noexcept {
  const bool v4 = group.address.is_v4(), leaves = group.filter.wants_nobody();
  pbuf* const p = pbuf_alloc(PBUF_TRANSPORT, v4 ? kOldV4Bytes : kOldV6Bytes, PBUF_RAM);
  if (p == nullptr) return;
  auto* const message = static_cast<uint8_t*>(p->payload);
  memset(message, 0, p->len);
  if (v4) {
    message[0] = leaves ? kLeaveV2 : kReportV2;
    put_address(message + 4, group.address, sizeof(uint32_t));
    return send_v4(p, leaves ? lwip_htonl(kAllRouters) : group.address.v4_be());
  }
  message[0] = leaves ? ICMP6_TYPE_MLD : ICMP6_TYPE_MLR;
  put(message + 8, group.address);
  send_v6(p, leaves ? kAllRouters6 : group.address);
}

void Groups::send_v4(pbuf* p, uint32_t to_be) noexcept {
  uint32_t router_alert = PP_HTONL(0x9404'0000);
  put(static_cast<uint8_t*>(p->payload) + 2, inet_chksum(p->payload, p->len));
  const ip4_addr_t source{core_.setup().address_be}, to{to_be};
  (void)ip4_output_if_opt(p, &source, &to, 1, kInternetControl, IP_PROTO_IGMP, &core_.interface(), &router_alert, sizeof router_alert);
  pbuf_free(p);
}

void Groups::send_v6(pbuf* p, const IpAddress& to) noexcept {
  const ip6_addr_t source = *netif_ip6_addr(&core_.interface(), 0), destination = to_lwip_v6(to);
  put(static_cast<uint8_t*>(p->payload) + 2, ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->tot_len, &source, &destination));
  if (ip6_options_add_hbh_ra(p, IP6_NEXTH_ICMP6, IP6_ROUTER_ALERT_VALUE_MLD) == ERR_OK) {
    (void)ip6_output_if(p, &source, &destination, 1, 0, IP6_NEXTH_HOPBYHOP, &core_.interface());
  }
  pbuf_free(p);
}

}  // namespace netstack

using netstack::the_core;

// What lwIP calls of igmp.c and mld6.c. Of a group it wants to know whether there is one.
extern "C" {

void igmp_init() {}
err_t igmp_start(netif*) { return ERR_OK; }
err_t igmp_stop(netif*) { return ERR_OK; }
void igmp_report_groups(netif*) {}
igmp_group* igmp_lookfor_group(netif*, const ip4_addr_t* address) {
  static igmp_group some;
  return the_core->groups.holds(netstack::IpAddress::v4(address->addr)) ? &some : nullptr;
}
void igmp_input(pbuf* p, netif*, const ip4_addr_t*) {
  the_core->groups.igmp_input(*p);
  pbuf_free(p);
}

err_t mld6_stop(netif*) { return ERR_OK; }
void mld6_report_groups(netif*) {}
err_t mld6_joingroup_netif(netif*, const ip6_addr_t*) { return ERR_OK; }
err_t mld6_leavegroup_netif(netif*, const ip6_addr_t*) { return ERR_OK; }
mld_group* mld6_lookfor_group(netif* interface, const ip6_addr_t* address) {
  static mld_group some;
  for (int i = 0; ip6_addr_issolicitednode(address) && i < LWIP_IPV6_NUM_ADDRESSES; i++) {
    const bool is_valid = ip6_addr_isvalid(netif_ip6_addr_state(interface, i));
    if (is_valid && ip6_addr_cmp_solicitednode(address, netif_ip6_addr(interface, i))) return &some;
  }
  return the_core->groups.holds(netstack::from_lwip(*address)) ? &some : nullptr;
}
void mld6_input(pbuf* p, netif*) {
  the_core->groups.mld_input(*p);
  pbuf_free(p);
}

}  // extern "C"
