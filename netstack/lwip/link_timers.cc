// Ageing of neighbours and fragments.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/link_timers.h"

#include "lwip/etharp.h"
#include "lwip/ip4_frag.h"
#include "lwip/ip6_frag.h"
#include "lwip/nd6.h"

namespace netstack {
namespace {

constexpr uint64_t kLongestNeighbour = LWIP_ND6_REACHABLE_TIME / 1000 + 1;  // then it has to be asked again, whatever follows
constexpr uint64_t kLongestWaitNs = (IPV6_REASS_MAXAGE + 2) * Clock::kSecondNs;

}  // namespace

void LinkTimers::keep_running() noexcept { until_ns_ = clock_.now_ns() + kLongestWaitNs; }

void LinkTimers::run() noexcept {
  uint64_t turns = (clock_.now_ns() - next_ns_) / Clock::kSecondNs + 1;
  next_ns_ += turns * Clock::kSecondNs;  // not from now on: turns that come late each time would be fewer than seconds
  if (turns > ARP_MAXAGE) turns = ARP_MAXAGE;
  for (uint64_t i = 0; i < turns; i++) etharp_tmr();
  for (uint64_t i = 0; i < turns && i <= kLongestNeighbour; i++) nd6_tmr();
  for (uint64_t i = 0; i < turns && i <= IP_REASS_MAXAGE; i++) {
    ip_reass_tmr();
    ip6_reass_tmr();
  }
}

}  // namespace netstack
