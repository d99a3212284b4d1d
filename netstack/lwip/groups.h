// The groups that the interface receives, and what routers are told of them: IGMPv3 and MLDv2, and IGMPv2 and MLDv1 for routers of old.
// SPDX-License-Identifier: BSD-3-Clause
//
// In place of lwIP's igmp.c and mld6.c, which know no sources; groups.cc has the functions that the rest of lwIP calls there. What a
// group's users want together is its filter (RFC 3376, 3.2): from everybody but some, or from nobody but some; from nobody but nobody is to
// be no member.
//
// A change is told at once and once more within a second (the robustness variable's usual value). It is always told as a change to the
// whole filter (TO_EX, TO_IN), never as what is new in it (ALLOW, BLOCK): routers arrive at the same (RFC 3376, 6.4.2), and a lost one is
// mended by the next. A query is answered after a random time, group by group.
//
// Who forges queries gets answers about what is joined, within what the link lets through anyway; nothing is allocated for one.
#pragma once

#include <cstdint>

#include "lwip/pbuf.h"
#include "netstack/socket_address.h"

namespace netstack {

class LwipCore;

struct GroupFilter {
  // More are not told: then it is everybody, and who has a filter drops the rest himself.
  static constexpr int kMostSources = 16;

  bool exclude = false;
  int count = 0;
  IpAddress sources[kMostSources];
  [[nodiscard]] bool wants_nobody() const noexcept { return !exclude && count == 0; }
  [[nodiscard]] bool operator==(const GroupFilter& other) const noexcept;
};

class Groups {
 public:
  explicit Groups(LwipCore& core) noexcept : core_(core) {}

  // What the users of this group want from now on. False if there is no room for another group.
  [[nodiscard]] bool set(const IpAddress& group, const GroupFilter& filter) noexcept;
  [[nodiscard]] bool holds(const IpAddress& group) const noexcept;
  void reset() noexcept {
    count_ = 0;
    next_ns_ = kNever;
  }

  void run_due() noexcept {
    if (next_ns_ <= now()) [[unlikely]] report_due();
  }
  [[nodiscard]] uint64_t next_ns() const noexcept { return next_ns_; }

  // IGMP and MLD messages, from their header on. The pbuf stays the caller's.
  void igmp_input(const pbuf& p) noexcept;
  void mld_input(const pbuf& p) noexcept;

 private:
  static constexpr int kMostGroups = 256;
  static constexpr uint64_t kNever = UINT64_MAX;

  struct Group {
    IpAddress address;
    GroupFilter filter;
    int changes_left;  // how often a change is told yet
    uint64_t due_ns;   // when the next report is
  };

  [[nodiscard]] uint64_t now() const noexcept;
  [[nodiscard]] Group* find(const IpAddress& group) noexcept;
  [[nodiscard]] uint64_t within(uint64_t ns) noexcept;
  void plan() noexcept;
  void answer(const IpAddress& group, bool v4, uint64_t most_ns) noexcept;
  void report_due() noexcept;
  void report(const Group& group) noexcept;
  void report_to_old(const Group& group) noexcept;
  void send_v4(pbuf* p, uint32_t to_be) noexcept;
  void send_v6(pbuf* p, const IpAddress& to) noexcept;

  LwipCore& core_;
  int count_ = 0;
  uint64_t next_ns_ = kNever;
  uint64_t old_until_ns_[2] = {};  // of IPv4 and IPv6: a router of the old version has been heard
  Group groups_[kMostGroups];
};

}  // namespace netstack
