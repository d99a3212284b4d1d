// Router advertisements: what they say, and what becomes of it in time.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/autoconfiguration.h"

#include <cstring>

#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/nd6.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/prot/icmp6.h"
#include "lwip/prot/nd6.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/ip_address.h"
#include "netstack/lwip/lwip_core.h"

namespace netstack {
namespace {

constexpr int kMostSolicitations = 3;                       // MAX_RTR_SOLICITATIONS
constexpr uint64_t kSolicitEveryNs = 4 * Clock::kSecondNs;  // RTR_SOLICITATION_INTERVAL
constexpr uint64_t kObjectionNs = Clock::kSecondNs;         // RetransTimer, for DupAddrDetectTransmits 1
constexpr uint32_t kTwoHours = 7200, kForEver = 0xffff'ffff;
constexpr size_t kAdvertisementBytes = 16, kPrefixBytes = 32, kMtuBytes = 8;
constexpr uint8_t kOnLink = 0x80, kAutonomous = 0x40;

uint64_t later(uint64_t now_ns, uint32_t seconds) noexcept {
  return seconds == kForEver ? Clock::kNever : now_ns + seconds * Clock::kSecondNs;
}

IpAddress group_of(const IpAddress& address) noexcept {
  IpAddress made;
  made.words_be[0] = lwip_htonl(0xff02'0000);
  made.words_be[2] = lwip_htonl(1);
  made.words_be[3] = lwip_htonl(0xff00'0000) | (address.words_be[3] & lwip_htonl(0x00ff'ffff));
  return made;
}

}  // namespace

// A prefix information option (RFC 4861, 4.6.2).
struct Autoconfiguration::Prefix {
  uint8_t length, flags;
  uint32_t valid_s, preferred_s;
  IpAddress prefix;
};

uint64_t Autoconfiguration::now_ns() const noexcept { return core_.clock.now_ns(); }

void Autoconfiguration::start() noexcept {
  on_ = core_.setup().autoconfigure;
  if (!on_) return;
  if (!begun_) {
    begun_ = true;
    while (set_ < kMostIp6Addresses && core_.setup().ip6[set_].prefix != 0) set_++;
    router_is_set_ = !(core_.setup().gateway6 == IpAddress{});
  }
  solicitations_ = 0;
  solicit_ns_ = now_ns();
  plan();
}

void Autoconfiguration::plan() noexcept {
  next_ns_ = solicit_ns_ < router_until_ns_ ? solicit_ns_ : router_until_ns_;
  const auto add = [&](uint64_t at_ns) {
    if (at_ns > now_ns() && at_ns < next_ns_) next_ns_ = at_ns;
  };
  for (const Learnt& each : learnt_) {
    if (each.address.is_any()) continue;
    if (each.tentative && each.ours_at_ns < next_ns_) next_ns_ = each.ours_at_ns;
    if (each.valid_until_ns < next_ns_) next_ns_ = each.valid_until_ns;
    add(each.preferred_until_ns);
  }
}

void Autoconfiguration::run() noexcept {
  const uint64_t now = now_ns();
  if (solicit_ns_ <= now) {
    solicit_routers();
    solicit_ns_ = ++solicitations_ < kMostSolicitations ? now + kSolicitEveryNs : Clock::kNever;
  }
  if (router_until_ns_ <= now) heed_router(core_.setup().gateway6, 0);
  for (Learnt& each : learnt_) {
    if (each.address.is_any()) continue;
    if (each.valid_until_ns <= now) each = {};
    if (each.tentative && each.ours_at_ns <= now) each.tentative = false;
  }
  publish();
  plan();
}

void Autoconfiguration::publish() noexcept {
  IpNetwork now_used[kMostIp6Addresses] = {};
  bool deprecated[kMostIp6Addresses] = {};
  int count = set_;
  for (const Learnt& each : learnt_) {
    if (each.address.is_any() || each.tentative || count == kMostIp6Addresses) continue;
    deprecated[count] = each.preferred_until_ns <= now_ns();
    now_used[count++] = {each.address, static_cast<uint8_t>(each.on_link ? 64 : 128)};
  }
  for (int i = set_; i < kMostIp6Addresses; i++) core_.set_address6(i, now_used[i], deprecated[i]);
}

// ---------------------------------------------------------------- advertisements

void Autoconfiguration::advertised(const pbuf& p, const IpAddress& router) noexcept {
  const auto* const message = static_cast<const uint8_t*>(p.payload);
  if (!on_ || p.len != p.tot_len || p.len < kAdvertisementBytes || message[1] != 0 || !router.is_link_local()) return;
  for (size_t at = kAdvertisementBytes; at < p.len;) {  // all or nothing
    if (at + 2 > p.len || message[at + 1] == 0 || at + message[at + 1] * size_t{8} > p.len) return;
    at += message[at + 1] * size_t{8};
  }
  solicit_ns_ = Clock::kNever;
  heed_router(router, lwip_ntohs(field<uint16_t>(message + 6)));
  for (size_t at = kAdvertisementBytes; at < p.len; at += message[at + 1] * size_t{8}) {
    const uint8_t* const option = message + at;
    const size_t bytes = option[1] * size_t{8};
    if (option[0] == ND6_OPTION_TYPE_MTU && bytes == kMtuBytes) heed_mtu(lwip_ntohl(field<uint32_t>(option + 4)));
    if (option[0] != ND6_OPTION_TYPE_PREFIX_INFO || bytes != kPrefixBytes) continue;
    heed({option[2], option[3], lwip_ntohl(field<uint32_t>(option + 4)), lwip_ntohl(field<uint32_t>(option + 8)),
          field<IpAddress>(option + 16)});
  }
  publish();
  plan();
}

void Autoconfiguration::heed_router(const IpAddress& router, uint32_t lifetime_s) noexcept {
  const IpAddress& used = core_.setup().gateway6;
  if (router_is_set_ || (!(used == IpAddress{}) && !(used == router))) return;
  if (lifetime_s == 0 && used == IpAddress{}) return;
  router_until_ns_ = lifetime_s != 0 ? now_ns() + lifetime_s * Clock::kSecondNs : Clock::kNever;
  core_.set_gateway6(lifetime_s != 0 ? router : IpAddress{});
}

// RFC 4861, 6.3.4.
void Autoconfiguration::heed_mtu(uint32_t mtu) noexcept {
  netif& interface = core_.interface();
  const uint32_t most = interface.mtu < core_.facts().mtu ? interface.mtu : core_.facts().mtu;
  if (mtu >= kLeastMtu6 && mtu <= most) interface.mtu6 = static_cast<uint16_t>(mtu);
}

Autoconfiguration::Learnt* Autoconfiguration::place_for(const IpAddress& address) noexcept {
  for (Learnt& each : learnt_) {
    if (each.address == address) return &each;
  }
  for (int i = 0; i < kMostIp6Addresses - set_; i++) {
    if (learnt_[i].address.is_any()) return &learnt_[i];
  }
  return nullptr;
}

// RFC 4862, 5.5.3.
void Autoconfiguration::heed(const Prefix& prefix) noexcept {
  if ((prefix.flags & kAutonomous) == 0 || prefix.length != 64 || prefix.preferred_s > prefix.valid_s) return;
  if (prefix.prefix.is_link_local() || prefix.prefix.is_multicast()) return;
  const IpAddress link_local = from_lwip(*netif_ip6_addr(&core_.interface(), 0));
  IpAddress address = prefix.prefix;
  address.words_be[2] = link_local.words_be[2], address.words_be[3] = link_local.words_be[3];
  for (int i = 0; i < set_; i++) {
    if (core_.setup().ip6[i].address == address) return;
  }
  Learnt* const place = place_for(address);
  if (place == nullptr) return;
  const uint64_t now = now_ns();
  if (!(place->address == address)) {
    if (prefix.valid_s == 0) return;
    *place = {address, (prefix.flags & kOnLink) != 0, true, later(now, prefix.valid_s), later(now, prefix.preferred_s), now + kObjectionNs};
    return ask_who_has(address);
  }
  place->preferred_until_ns = later(now, prefix.preferred_s);
  // Whoever forges advertisements shall not end an address at once.
  const uint64_t asked_ns = later(now, prefix.valid_s), two_hours_ns = later(now, kTwoHours);
  if (prefix.valid_s > kTwoHours || asked_ns > place->valid_until_ns) {
    place->valid_until_ns = asked_ns;
  } else if (place->valid_until_ns > two_hours_ns) {
    place->valid_until_ns = two_hours_ns;
  }
}

void Autoconfiguration::objected(const IpAddress& address) noexcept {
  if (!on_) return;
  for (Learnt& each : learnt_) {
    if (!each.tentative || !(each.address == address)) continue;
    each.ours_at_ns = Clock::kNever;  // it stays, so that the next advertisement does not begin anew, and is never ours
    plan();
  }
}

// ---------------------------------------------------------------- questions

void Autoconfiguration::send(const IpAddress& from, const IpAddress& to, const uint8_t* message, uint16_t bytes) noexcept {
  pbuf* const p = pbuf_alloc(PBUF_IP, bytes, PBUF_RAM);
  if (p == nullptr) return;
  memcpy(p->payload, message, bytes);
  const ip6_addr_t source = to_lwip_v6(from), destination = to_lwip_v6(to);
  const u16_t sum = ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, bytes, &source, &destination);
  memcpy(static_cast<uint8_t*>(p->payload) + 2, &sum, sizeof sum);
  (void)ip6_output_if_src(p, &source, &destination, ND6_HOPLIM, 0, IP6_NEXTH_ICMP6, &core_.interface());
  pbuf_free(p);
}

// RFC 4861, 4.1.
void Autoconfiguration::solicit_routers() noexcept {
  uint8_t message[16] = {ICMP6_TYPE_RS};
  message[8] = ND6_OPTION_TYPE_SOURCE_LLADDR;
  message[9] = 1;
  memcpy(message + 10, core_.interface().hwaddr, ETH_HWADDR_LEN);
  IpAddress routers;
  routers.words_be[0] = lwip_htonl(0xff02'0000);
  routers.words_be[3] = lwip_htonl(2);
  send(from_lwip(*netif_ip6_addr(&core_.interface(), 0)), routers, message, sizeof message);
}

// RFC 4862, 5.4.2.
void Autoconfiguration::ask_who_has(const IpAddress& address) noexcept {
  uint8_t message[24] = {ICMP6_TYPE_NS};
  memcpy(message + 8, address.words_be, sizeof address.words_be);
  send(IpAddress{}, group_of(address), message, sizeof message);
}

}  // namespace netstack
