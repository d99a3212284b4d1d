// The client's time and ports, and what becomes of what it learns.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/dhcp_client.h"

#include <bit>
#include <cstring>

#include "base/log.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip4.h"
#include "lwip/prot/iana.h"
#include "lwip/prot/udp.h"
#include "netstack/lwip/lwip_core.h"
#include "zps_hooks.h"

namespace netstack {
namespace {

constexpr uint64_t kFineNs = DHCP_FINE_TIMER_MSECS * 1'000'000ULL, kTickNs = ZPS_DHCP_TICK_S * Clock::kSecondNs;
constexpr uint8_t kClientId = 61;  // RFC 2132, 9.14
constexpr uint16_t kLeastMtu = 576;
constexpr char kName[] = "zps";

struct Dotted {
  uint32_t a, b, c, d;
};
Dotted dotted(uint32_t address_be) noexcept {
  return {address_be & 255, address_be >> 8 & 255, address_be >> 16 & 255, address_be >> 24};
}

bool is_unicast(uint32_t address_be) noexcept {
  const uint32_t first = address_be & 255;
  return first != 0 && first != 127 && first < 224;
}

}  // namespace

uint64_t DhcpClient::now_ns() const noexcept { return core_.clock.now_ns(); }

void DhcpClient::start() noexcept {
  on_ = core_.setup().dhcp;
  if (!on_) return;
  if (!begun_) {
    begun_ = true;
    router_is_set_ = core_.setup().gateway_be != 0;
    has_id_ = core_.facts().interface != 1;
    for (uint32_t& word : id_) word = core_.random();
  }
  netif& interface = core_.interface();
  dhcp_set_struct(&interface, &client_);
  if (core_.setup().address_be == 0) (void)dhcp_start(&interface);
  else ask_again();
  fine_ns_ = now_ns() + kFineNs;
  ticked_ns_ = now_ns();
  plan();
}

// RFC 2131, 3.2: for the address that was ours before.
void DhcpClient::ask_again() noexcept {
  netif& interface = core_.interface();
  interface.flags = static_cast<u8_t>(interface.flags & ~NETIF_FLAG_LINK_UP);
  (void)dhcp_start(&interface);  // waits for the link
  interface.flags |= NETIF_FLAG_LINK_UP;
  client_.offered_ip_addr.addr = core_.setup().address_be;
  client_.state = DHCP_STATE_REBOOTING;
  dhcp_network_changed(&interface);
}

// Until something about the lease is due; 0: nothing is.
uint16_t DhcpClient::ticks_to_next() const noexcept {
  uint16_t next = 0;
  const auto add = [&next](int ticks) {
    if (ticks > 0 && (next == 0 || ticks < next)) next = static_cast<uint16_t>(ticks);
  };
  if (client_.t0_timeout != 0) add(client_.t0_timeout - client_.lease_used);
  add(client_.t1_renew_time);
  add(client_.t2_rebind_time);
  return next;
}

void DhcpClient::plan() noexcept {
  if (client_.request_timeout == 0) fine_ns_ = Clock::kNever;
  else if (fine_ns_ == Clock::kNever) fine_ns_ = now_ns() + kFineNs;
  const uint16_t ticks = ticks_to_next();
  const uint64_t tick_ns = ticks != 0 ? ticked_ns_ + ticks * kTickNs : Clock::kNever;
  next_ns_ = fine_ns_ < tick_ns ? fine_ns_ : tick_ns;
}

void DhcpClient::run() noexcept {
  for (; fine_ns_ <= now_ns() && client_.request_timeout != 0; fine_ns_ += kFineNs) dhcp_fine_tmr();
  for (; ticked_ns_ + kTickNs <= now_ns() && ticks_to_next() != 0; ticked_ns_ += kTickNs) dhcp_coarse_tmr();
  plan();
}

// Frees it. An address that nobody can have is none.
void DhcpClient::input(pbuf* p) noexcept {
  if (receive_ == nullptr || p->len < DHCP_OPTIONS_OFS) return (void)pbuf_free(p);
  const uint32_t address_be = static_cast<const dhcp_msg*>(p->payload)->yiaddr.addr;
  if (address_be != 0 && !is_unicast(address_be)) return (void)pbuf_free(p);
  offered_mtu_ = 0;
  receive_(nullptr, nullptr, p, ip_current_src_addr(), LWIP_IANA_PORT_DHCP_SERVER);
  plan();
}

// ---------------------------------------------------------------- what is learnt

// After lwIP has counted its ticks: the lease ends no later than the server says, and what comes before its end does.
void DhcpClient::fit_lease() noexcept {
  ticked_ns_ = now_ns();
  if (client_.offered_t0_lease == UINT32_MAX) {  // for ever
    client_.t0_timeout = client_.t1_renew_time = client_.t2_rebind_time = 0;
    return;
  }
  const uint32_t whole = client_.offered_t0_lease / ZPS_DHCP_TICK_S;
  const uint16_t lease = static_cast<uint16_t>(whole < 3 ? 3 : whole > UINT16_MAX ? UINT16_MAX : whole);
  client_.t0_timeout = lease;
  if (client_.t2_timeout == 0 || client_.t2_timeout >= lease) client_.t2_timeout = static_cast<uint16_t>(lease - (lease + 7) / 8);
  if (client_.t1_timeout == 0 || client_.t1_timeout >= client_.t2_timeout) client_.t1_timeout = client_.t2_timeout / 2;
  if (client_.t1_timeout == 0) client_.t1_timeout = 1;
  client_.t1_renew_time = client_.t1_timeout;
  client_.t2_rebind_time = client_.t2_timeout;
}

void DhcpClient::assign(uint32_t address_be, uint32_t mask, uint32_t gateway_be) noexcept {
  const StackSetup& setup = core_.setup();
  const uint32_t before_be = setup.address_be;
  if (address_be == 0) {
    if (before_be == 0) return;
    const Dotted lost = dotted(before_be);
    base::log(base::LogLevel::warn, "DHCP: the lease of %u.%u.%u.%u has ended, another is asked for", lost.a, lost.b, lost.c, lost.d);
    return core_.set_address4(0, 32, router_is_set_ ? setup.gateway_be : 0);
  }
  fit_lease();
  const auto prefix = static_cast<uint8_t>(std::countl_one(__builtin_bswap32(mask)));
  core_.set_address4(address_be, prefix, router_is_set_ ? setup.gateway_be : gateway_be);
  if (offered_mtu_ != 0) core_.set_mtu(offered_mtu_);
  if (address_be == before_be) return;
  const Dotted own = dotted(address_be), server = dotted(ip_2_ip4(&client_.server_ip_addr)->addr), router = dotted(setup.gateway_be);
  base::log(base::LogLevel::info, "DHCP: address %u.%u.%u.%u/%u, gateway %u.%u.%u.%u, from %u.%u.%u.%u for %u s", own.a, own.b, own.c,
            own.d, setup.prefix, router.a, router.b, router.c, router.d, server.a, server.b, server.c, server.d, client_.offered_t0_lease);
}

// Whoever asks also wants to know the MTU: lwIP's list of what it asks for is the last option then.
void DhcpClient::append_options(dhcp_msg& message, uint8_t type, uint16_t* length) noexcept {
  const auto put = [&](uint8_t byte) {
    if (*length < DHCP_OPTIONS_LEN - 1u) message.options[(*length)++] = byte;
  };
  if (type == DHCP_DISCOVER || type == DHCP_REQUEST) {
    for (uint16_t at = 0; at + 1 < *length; at = static_cast<uint16_t>(at + 2 + message.options[at + 1])) {
      if (message.options[at] != DHCP_OPTION_PARAMETER_REQUEST_LIST || at + 2 + message.options[at + 1] != *length) continue;
      put(DHCP_OPTION_MTU);
      message.options[at + 1]++;
      break;
    }
  }
  if (type == DHCP_DECLINE) {
    const Dotted taken = dotted(client_.offered_ip_addr.addr);
    base::log(base::LogLevel::warn, "DHCP: somebody else has %u.%u.%u.%u, another is asked for", taken.a, taken.b, taken.c, taken.d);
  }
  if (!has_id_) return;
  put(kClientId);
  put(1 + sizeof kName - 1 + sizeof id_);
  put(0);  // no hardware address
  for (const char* name = kName; *name != '\0'; name++) put(static_cast<uint8_t>(*name));
  for (const uint32_t word : id_) {
    for (int shift = 0; shift < 32; shift += 8) put(static_cast<uint8_t>(word >> shift));
  }
}

// RFC 2132, 5.1.
void DhcpClient::take_option(uint8_t option, uint8_t bytes, const pbuf* p, uint16_t offset) noexcept {
  uint16_t value_be;
  if (option != DHCP_OPTION_MTU || bytes != sizeof value_be) return;
  if (pbuf_copy_partial(p, &value_be, sizeof value_be, offset) != sizeof value_be) return;
  if (const uint16_t mtu = lwip_ntohs(value_be); mtu >= kLeastMtu) offered_mtu_ = mtu;
}

}  // namespace netstack

// ---------------------------------------------------------------- lwIP's UDP, as far as its client of DHCP has it

using netstack::the_core;

extern "C" {

udp_pcb* udp_new() {
  static udp_pcb only;
  return &only;
}
err_t udp_bind(udp_pcb*, const ip_addr_t*, u16_t) { return ERR_OK; }
err_t udp_connect(udp_pcb*, const ip_addr_t*, u16_t) { return ERR_OK; }
void udp_recv(udp_pcb*, udp_recv_fn receive, void*) { the_core->dhcp.set_receiver(receive); }
void udp_remove(udp_pcb*) { the_core->dhcp.set_receiver(nullptr); }

err_t udp_sendto_if_src(udp_pcb*, pbuf* p, const ip_addr_t* to, u16_t port, netif* interface, const ip_addr_t* from) {
  if (pbuf_add_header(p, UDP_HLEN) != 0) return ERR_BUF;
  auto* const header = static_cast<udp_hdr*>(p->payload);
  the_core->link_timers.catch_up();  // it may wait in lwIP for the server's station, and is not as old as their last turn
  header->src = PP_HTONS(LWIP_IANA_PORT_DHCP_CLIENT);
  header->dest = lwip_htons(port);
  header->len = lwip_htons(p->tot_len);
  header->chksum = 0;
  header->chksum = ip_chksum_pseudo(p, IP_PROTO_UDP, p->tot_len, from, to);
  if (header->chksum == 0) header->chksum = 0xffff;
  return ip4_output_if_src(p, ip_2_ip4(from), ip_2_ip4(to), UDP_TTL, 0, IP_PROTO_UDP, interface);
}

err_t udp_sendto_if(udp_pcb* pcb, pbuf* p, const ip_addr_t* to, u16_t port, netif* interface) {
  return udp_sendto_if_src(pcb, p, to, port, interface, &interface->ip_addr);
}

// In place of netif_set_addr(), which would end the connections of the old address.
void zps_dhcp_set_address(netif*, const ip4_addr_t* address, const ip4_addr_t* mask, const ip4_addr_t* gateway) {
  the_core->dhcp.assign(address->addr, mask->addr, gateway->addr);
}
void zps_dhcp_append_options(dhcp_msg* message, u8_t type, u16_t* length) { the_core->dhcp.append_options(*message, type, length); }
void zps_dhcp_take_option(u8_t option, u8_t bytes, const pbuf* p, u16_t offset) {
  the_core->dhcp.take_option(option, bytes, p, offset);
}

}  // extern "C"
