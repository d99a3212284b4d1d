// lwIP's start and its interface.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/lwip_core.h"

#include <cstddef>
#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/nd6.h"
#include "lwip/tcp.h"
#include "netif/ethernet.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/ip_address.h"
#include "netstack/lwip/neighbour_discovery.h"
#include "netstack/lwip/siphash.h"
#include "zps_hooks.h"

namespace netstack {
namespace {

constexpr uint64_t kStarvedRetryNs = 1'000'000;
constexpr uint32_t kErrorsPerTurn = 100;  // Linux: icmp_msgs_per_sec
constexpr uint64_t kErrorsTurnNs = 100'000'000;

err_t send_frame(netif*, pbuf* p) noexcept { return the_core->output.send(p); }

// The connection that a segment on its way out is of, if lwIP has said so.
const tcp_pcb* connection_of(const netif& interface) noexcept {
  if (interface.hints == nullptr) return nullptr;
  const auto* const pcb = reinterpret_cast<const tcp_pcb*>(reinterpret_cast<const char*>(interface.hints) - offsetof(tcp_pcb, netif_hints));
  return pcb->state != LISTEN ? pcb : nullptr;  // which is shorter
}

// A router that a segment is too long for shall say so (RFC 1191, 3; ip_dont_fragment()). The header's sum follows (RFC 1624).
void forbid_fragments(const netif& interface, pbuf* p) noexcept {
  auto* const header = static_cast<ip_hdr*>(p->payload);
  if (IPH_PROTO(header) != IP_PROTO_TCP || IPH_OFFSET(header) != 0) return;
  const tcp_pcb* const pcb = connection_of(interface);
  if (pcb != nullptr && (pcb->flags & ZPS_TF_MAY_BE_CUT) != 0) return;
  if (the_core->path_mtus.are_cut(IpAddress::v4(header->dest.addr), the_core->clock.now_ns())) return;
  IPH_OFFSET_SET(header, PP_HTONS(IP_DF));
  if ((interface.chksum_flags & NETIF_CHECKSUM_GEN_IP) == 0) return;
  const uint32_t sum = uint32_t{static_cast<uint16_t>(~IPH_CHKSUM(header))} + PP_HTONS(IP_DF);
  IPH_CHKSUM_SET(header, static_cast<uint16_t>(~((sum & 0xffff) + (sum >> 16))));
}

// What answers the frame under input and belongs to no endpoint goes back where that came from. A lookup for each echo and each reset to a
// source that anybody could forge would push the neighbours of connections out of the table, and queue packets for addresses that never
// answer.
err_t send_packet(netif* interface, pbuf* p, const ip4_addr_t* to) noexcept {
  const uint8_t* const mac = the_core->input.source_mac();
  // What has lost its address waits for it.
  if (ip4_addr_isany_val(*netif_ip4_addr(interface)) && static_cast<const ip_hdr*>(p->payload)->src.addr != 0) [[unlikely]] return ERR_RTE;
  forbid_fragments(*interface, p);
  if (const uint8_t* const router = the_core->neighbours.router()) return send_to_station(router, interface, p, ETHTYPE_IP);
  const bool answers = mac != nullptr && interface->hints == nullptr && ip4_addr_cmp(to, ip4_current_src_addr()) && (mac[0] & 1) == 0;
  if (!answers) return etharp_output(interface, p, to);
  return send_to_station(mac, interface, p, ETHTYPE_IP);
}

// What lwIP may hand to the interface.
uint16_t longest_packet(const StackSetup& setup, const WireFacts& facts) noexcept {
  if (setup.mtu != 0 && setup.mtu < facts.mtu) return setup.mtu;
  return facts.gso_max_size != 0 ? facts.gso_max_size : facts.mtu;
}

}  // namespace

LwipCore* the_core = nullptr;

LwipCore::LwipCore(const StackSetup& setup, SavedNeighbours& saved) noexcept
    : setup_(setup),
      facts_(setup.wire->facts()),
      tcp_checksum_offload_(facts_.tcp_checksum_offload),
      clock(setup.now_ns),
      memory(*setup.arena, *setup.wire),
      link_timers(clock),
      input(*this),
      output(*this),
      neighbours(interface_, setup_, saved),
      groups(*this),
      path_mtus(setup_.seed),
      autoconfiguration(*this),
      dhcp(*this),
      random_state_{setup.seed[0], setup.seed[1]} {}

err_t LwipCore::init_interface(netif* interface) noexcept {
  LwipCore& core = *the_core;
  const WireFacts& facts = core.facts();
  CHECK(facts.gso_max_size <= TCP_MSS + kIpHeader + kTcpHeader);
  interface->name[0] = 'z';
  interface->name[1] = 'p';
  interface->output = send_packet;
  interface->output_ip6 = send_packet_v6;
  interface->linkoutput = send_frame;
  interface->hwaddr_len = ETH_HWADDR_LEN;
  memcpy(interface->hwaddr, facts.mac, ETH_HWADDR_LEN);
  interface->mtu = longest_packet(core.setup(), facts);
  interface->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
  core.set_checksums(interface);
  return ERR_OK;
}

void LwipCore::set_checksums(netif* interface) noexcept {
  checks_of_unverified_ = facts_.link_needs_checksum ? NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP : 0;
  u16_t checksums = facts_.link_needs_checksum ? NETIF_CHECKSUM_ENABLE_ALL : NETIF_CHECKSUM_DISABLE_ALL;
  if (tcp_checksum_offload_) {
    const int not_here = NETIF_CHECKSUM_GEN_TCP | NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_CHECK_IP | checks_of_unverified_;
    checksums &= static_cast<u16_t>(~not_here);
  }
  NETIF_SET_CHECKSUM_CTRL(interface, checksums);
}

// netif_set_addr() would end the connections of the old address, which Linux keeps: it may come back.
void LwipCore::follow_wire() noexcept {
  peers_followed_ = facts_.peers;
  memcpy(interface_.hwaddr, facts_.mac, ETH_HWADDR_LEN);
  set_checksums(&interface_);
  interface_.mtu = longest_packet(setup_, facts_);
  interface_.mtu6 = interface_.mtu < facts_.mtu ? interface_.mtu : facts_.mtu;
  if (facts_.address_be == 0 || facts_.address_be == setup_.address_be) return;
  setup_.address_be = facts_.address_be;
  ip4_addr_set_u32(ip_2_ip4(&interface_.ip_addr), setup_.address_be);
}

void LwipCore::start() noexcept {
  base::set_log_level(setup_.log_level);  // of the image's own
  lwip_init();
  clock.read();
  link_timers.start();
  memset(static_cast<void*>(&interface_), 0, sizeof interface_);
  const ip4_addr_t address{setup_.address_be}, mask{mask_be(setup_.prefix)}, gateway{setup_.gateway_be};
  CHECK(netif_add(&interface_, &address, &mask, &gateway, nullptr, init_interface, ethernet_input) != nullptr);
  interface_.mtu6 = interface_.mtu < facts_.mtu ? interface_.mtu : facts_.mtu;
  if (setup_.ip6[0].prefix != 0 || setup_.autoconfigure) {
    netif_create_ip6_linklocal_address(&interface_, 1);
    if (!setup_.link_local6.is_any()) {
      const ip_addr_t given = to_lwip(setup_.link_local6);
      netif_ip6_addr_set(&interface_, 0, ip_2_ip6(&given));
    }
    for (int i = 0; i < kMostIp6Addresses && setup_.ip6[i].prefix != 0; i++) {
      const ip_addr_t own = to_lwip(setup_.ip6[i].address);
      netif_ip6_addr_set(&interface_, static_cast<s8_t>(i + 1), ip_2_ip6(&own));
      netif_ip6_addr_set_state(&interface_, static_cast<s8_t>(i + 1), IP6_ADDR_PREFERRED);
    }
  }
  netif_set_default(&interface_);
  netif_set_link_up(&interface_);
  netif_set_up(&interface_);  // announces the address with a gratuitous ARP
  autoconfiguration.start();
  dhcp.start();
  setup_.wire->flush();
}

// Connections of an address that goes are not ended: it may come back.
void LwipCore::set_address6(int index, const IpNetwork& own, bool deprecated) noexcept {
  setup_.ip6[index] = own;
  const auto at = static_cast<s8_t>(index + 1);
  const ip6_addr_t address = to_lwip_v6(own.address);
  const u8_t state = own.prefix == 0 ? IP6_ADDR_INVALID : deprecated ? IP6_ADDR_DEPRECATED : IP6_ADDR_PREFERRED;
  if (own.prefix != 0 && !ip6_addr_cmp(&address, netif_ip6_addr(&interface_, at))) {
    netif_ip6_addr_set_state(&interface_, at, IP6_ADDR_INVALID);
    netif_ip6_addr_set(&interface_, at, &address);
  }
  if (netif_ip6_addr_state(&interface_, at) != state) netif_ip6_addr_set_state(&interface_, at, state);
}

void LwipCore::set_gateway6(const IpAddress& router) noexcept {
  if (setup_.gateway6 == router) return;
  setup_.gateway6 = router;
  nd6_clear_destination_cache();  // who went by the last one
}

// Connections are not ended, as netif_set_addr() would.
void LwipCore::set_address4(uint32_t address_be, uint8_t prefix, uint32_t gateway_be) noexcept {
  const bool announce = address_be != 0 && address_be != setup_.address_be;
  setup_.address_be = address_be;
  setup_.prefix = prefix;
  setup_.gateway_be = gateway_be;
  ip4_addr_set_u32(ip_2_ip4(&interface_.ip_addr), address_be);
  ip4_addr_set_u32(ip_2_ip4(&interface_.netmask), mask_be(prefix));
  ip4_addr_set_u32(ip_2_ip4(&interface_.gw), gateway_be);
  if (announce) (void)etharp_gratuitous(&interface_);
}

void LwipCore::set_mtu(uint16_t mtu) noexcept {
  if (setup_.mtu == 0 || mtu < setup_.mtu) setup_.mtu = mtu;
  interface_.mtu = longest_packet(setup_, facts_);
}

void LwipCore::reset() noexcept {
  setup_.arena->reset();
  setup_.wire->recover();
  peers_followed_ = facts_.peers;
  in_turn_ = memory.payload_is_lent = false;
  input.reset();
  output.reset();
  link_timers.reset();
  groups.reset();
}

uint64_t LwipCore::next_timer_ns() const noexcept {
  if (interface_.loop_first != nullptr) return clock.now_ns();
  const uint64_t ageing_ns = link_timers.next_ns(), groups_ns = groups.next_ns();
  const uint64_t both_ns = groups_ns < ageing_ns ? groups_ns : ageing_ns, advertised_ns = autoconfiguration.next_ns();
  const uint64_t asked_ns = advertised_ns < dhcp.next_ns() ? advertised_ns : dhcp.next_ns();
  const uint64_t link_ns = asked_ns < both_ns ? asked_ns : both_ns;
  const uint64_t retry_ns = clock.now_ns() + kStarvedRetryNs;
  const bool retries = output.starved() || setup_.wire->refused();
  return retries && retry_ns < link_ns ? retry_ns : link_ns;
}

bool LwipCore::may_send_error() noexcept {
  if (clock.now_ns() - errors_turn_ns_ >= kErrorsTurnNs) {
    errors_turn_ns_ = clock.now_ns();
    errors_ = 0;
  }
  return errors_++ < kErrorsPerTurn;
}

uint32_t LwipCore::random() noexcept {
  random_state_[1]++;
  return static_cast<uint32_t>(siphash(random_state_, &random_state_[1], 1));
}

}  // namespace netstack
