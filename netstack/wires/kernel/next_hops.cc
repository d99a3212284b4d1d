// Follows the neighbour table, and has the kernel resolve.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/next_hops.h"

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <linux/neighbour.h>
#include <netinet/in.h>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/kernel/netlink_attributes.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kAskAgainNs = 1'000'000'000;
constexpr int kMostTries = 8;  // of a dump that changes meanwhile
constexpr uint16_t kDiscardPort = 9;
constexpr uint16_t kResolved = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_DELAY;

uint32_t hash(const IpAddress& address) noexcept {
  uint32_t value = address.words_be[0] ^ address.words_be[1] * 31 ^ address.words_be[2] * 131 ^ address.words_be[3];
  value *= 0x9e37'79b1u;
  return value ^ value >> 15;
}

// Out of the program's sight, or a negative errno: a kernel without the family.
int open_nudging(int family) noexcept {
  return base::move_fd_high(static_cast<int>(kernel_call(SYS_socket, family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
}

}  // namespace

static_assert(NextHops::kNeighbourGroup == RTMGRP_NEIGH);

long NextHops::open(const KernelRoutes& routes) noexcept {
  routes_ = &routes;
  asking_ = open_rtnetlink(0);
  if (asking_ < 0) return asking_;
  nudging_[0] = open_nudging(AF_INET);
  nudging_[1] = open_nudging(AF_INET6);
  read();
  return 0;
}

void NextHops::read() noexcept {
  behind_ = true;
  for (int i = 0; i < kMostTries && behind_; i++) {
    behind_ = false;
    clear();
    for (const uint8_t family : {AF_INET, AF_INET6}) {
      if (dump_rtnetlink(routes_->requests_fd(), RTM_GETNEIGH, family, take_dumped, this) == -EAGAIN) behind_ = true;
    }
  }
}

void NextHops::clear() noexcept {
  for (Neighbour& neighbour : neighbours_) neighbour = {};
  count_ = 0;
  forget_ways();
}

void NextHops::take_dumped(void* self, const nlmsghdr& message) noexcept {
  if (message.nlmsg_type == RTM_NEWNEIGH) take_message(self, message);
}

void NextHops::take_message(void* self, const nlmsghdr& message) noexcept {
  auto& hops = *static_cast<NextHops*>(self);
  if (message.nlmsg_type == NLMSG_OVERRUN) {
    hops.behind_ = true;
    return;
  }
  const auto& fixed = *static_cast<const ndmsg*>(NLMSG_DATA(&message));
  if (fixed.ndm_ifindex != hops.routes_->interface() || (fixed.ndm_family != AF_INET && fixed.ndm_family != AF_INET6)) return;
  const Attributes<NDA_LLADDR + 1> attributes(message, sizeof fixed);
  if (attributes.at[NDA_DST] == nullptr) return;
  const IpAddress address = attributes.address(NDA_DST, fixed.ndm_family);
  const rtattr* const mac = attributes.at[NDA_LLADDR];
  const bool resolved = message.nlmsg_type == RTM_NEWNEIGH && (fixed.ndm_state & (kResolved | NUD_STALE)) != 0 && mac != nullptr &&
                        RTA_PAYLOAD(mac) >= sizeof(Neighbour::mac);
  Neighbour* const neighbour = resolved ? hops.neighbour_for(address) : hops.find(address);
  if (neighbour == nullptr) return;
  if (resolved) memcpy(neighbour->mac, RTA_DATA(mac), sizeof neighbour->mac);
  if (resolved) {
    neighbour->state = (fixed.ndm_state & kResolved) != 0 ? confirmed : stale;
  } else if ((fixed.ndm_state & NUD_FAILED) != 0) {
    neighbour->state = failed;
    neighbour->asked_ns = base::monotonic_ns();  // who asks at once is told so
  } else {
    neighbour->state = unknown;
  }
}

// Linear probing; nothing is taken out but all at once.
NextHops::Neighbour* NextHops::find(const IpAddress& address) noexcept {
  for (uint32_t i = 0, at = hash(address); i < kMost; i++, at++) {
    Neighbour& neighbour = neighbours_[at % kMost];
    if (!neighbour.used) return nullptr;
    if (neighbour.address == address) return &neighbour;
  }
  return nullptr;
}

// A table that gets full begins anew: what is needed of it the kernel is asked again.
NextHops::Neighbour* NextHops::neighbour_for(const IpAddress& address) noexcept {
  if (Neighbour* const known = find(address); known != nullptr) return known;
  if (count_ >= kMost - kMost / 8) {
    behind_ = true;
    clear();
  }
  uint32_t at = hash(address);
  while (neighbours_[at % kMost].used) at++;
  Neighbour& neighbour = neighbours_[at % kMost];
  neighbour.address = address;
  neighbour.state = unknown;
  neighbour.asked_ns = 0;
  neighbour.used = true;
  count_++;
  return &neighbour;
}

NextHops::Way NextHops::to(const IpAddress& address, const uint8_t** station) noexcept {
  CachedWay& way = ways_[hash(address) % kWays];
  if (way.age != age_ || !(way.address == address)) [[unlikely]] {
    const IpAddress hop = routes_->next_hop(address);
    if (hop == IpAddress{}) return Way::none;
    const Neighbour* const neighbour = neighbour_for(hop);
    way = {address, age_, static_cast<uint16_t>(neighbour - neighbours_)};
  }
  Neighbour& neighbour = neighbours_[way.neighbour];
  *station = neighbour.mac;
  if (neighbour.state == confirmed) [[likely]] return Way::known;
  const uint64_t now_ns = base::monotonic_ns();
  if (now_ns - neighbour.asked_ns > kAskAgainNs) {
    neighbour.asked_ns = now_ns;
    if (neighbour.state == failed) neighbour.state = unknown;
    ask(neighbour);
  }
  if (neighbour.state == failed) return Way::none;
  return neighbour.state == unknown ? Way::awaited : Way::known;
}

// The kernel's own entry first: a use of one that an administrator has made would end its permanence (NTF_USE in neigh_add()). What comes
// of the question is a message.
void NextHops::ask(Neighbour& neighbour) noexcept {
  if (exchange(neighbour, RTM_GETNEIGH, 0, 0) == 0 && neighbour.state == confirmed) return;
  if (exchange(neighbour, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK, NTF_USE) == 0) return;
  const bool v4 = neighbour.address.is_v4();
  sockaddr_in to4{AF_INET, htons(kDiscardPort), {neighbour.address.words_be[3]}, {}};
  sockaddr_in6 to6{AF_INET6, htons(kDiscardPort), 0, {}, 0};
  memcpy(&to6.sin6_addr, neighbour.address.words_be, sizeof to6.sin6_addr);
  if (neighbour.address.is_link_local()) to6.sin6_scope_id = static_cast<uint32_t>(routes_->interface());
  const long to = v4 ? as_arg(&to4) : as_arg(&to6);
  (void)kernel_call(SYS_sendto, nudging_[v4 ? 0 : 1], 0, 0, MSG_DONTWAIT, to, v4 ? sizeof to4 : sizeof to6);
}

// One request about a neighbour. 0 or a negative errno; an entry that comes back is taken.
long NextHops::exchange(const Neighbour& neighbour, uint16_t type, uint16_t flags, uint8_t use) noexcept {
  const bool v4 = neighbour.address.is_v4();
  const size_t bytes = v4 ? 4 : 16;
  struct {
    nlmsghdr header{};
    ndmsg neighbour{};
    rtattr name{};
    uint8_t address[16];
  } request;
  request.header.nlmsg_type = type;
  request.header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  request.header.nlmsg_len = static_cast<uint32_t>(offsetof(decltype(request), address) + bytes);
  request.neighbour.ndm_family = v4 ? AF_INET : AF_INET6;
  request.neighbour.ndm_ifindex = routes_->interface();
  request.neighbour.ndm_flags = use;
  request.name = {static_cast<uint16_t>(RTA_LENGTH(bytes)), NDA_DST};
  memcpy(request.address, v4 ? &neighbour.address.words_be[3] : neighbour.address.words_be, bytes);
  alignas(nlmsghdr) char answer[1024];
  while (kernel_call(SYS_recvfrom, asking_, as_arg(answer), sizeof answer, MSG_DONTWAIT, 0, 0) >= 0) {  // of a member that has died
  }
  const long sent = kernel_call(SYS_sendto, asking_, as_arg(&request), request.header.nlmsg_len, MSG_DONTWAIT, 0, 0);
  if (sent < 0) return sent;
  const long got = kernel_call(SYS_recvfrom, asking_, as_arg(answer), sizeof answer, MSG_DONTWAIT, 0, 0);
  const auto& header = *reinterpret_cast<const nlmsghdr*>(answer);
  if (got < static_cast<long>(NLMSG_LENGTH(sizeof(ndmsg))) || !NLMSG_OK(&header, got)) return got < 0 ? got : -EPROTO;
  if (header.nlmsg_type == NLMSG_ERROR) return static_cast<const nlmsgerr*>(NLMSG_DATA(&header))->error;
  take_dumped(this, header);
  return 0;
}

}  // namespace netstack
