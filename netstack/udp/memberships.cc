// Joining, leaving, and what all of a group's users want together.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp/memberships.h"

#include <cerrno>

namespace netstack {
namespace {

constexpr int kMostOfIp4 = 20, kMostSourcesOfIp4 = 10;  // net.ipv4.igmp_max_memberships, igmp_max_msf

// The place in the list where this group is, or its end.
Membership** place_of(Membership** list, const IpAddress& group) noexcept {
  while (*list != nullptr && !((*list)->group == group)) list = &(*list)->next;
  return list;
}

int most_sources(const IpAddress& group) noexcept { return group.is_v4() ? kMostSourcesOfIp4 : Membership::kMostSources; }

bool has(const GroupFilter& filter, const IpAddress& source) noexcept {
  for (int i = 0; i < filter.count; i++) {
    if (filter.sources[i] == source) return true;
  }
  return false;
}

// RFC 3376, 3.2: whoever excludes makes all exclude, and then only what everybody excludes is excluded.
void merge(GroupFilter* all, const Membership& one) noexcept {
  if (one.exclude != all->exclude) {
    GroupFilter made{true, 0, {}};
    for (int i = 0; i < (one.exclude ? one.count : all->count) && made.count < GroupFilter::kMostSources; i++) {
      const IpAddress& source = one.exclude ? one.sources[i] : all->sources[i];
      const bool wanted = one.exclude ? has(*all, source) : one.index_of(source) >= 0;
      if (!wanted) made.sources[made.count++] = source;
    }
    *all = made;
    return;
  }
  if (all->exclude) {
    int kept = 0;
    for (int i = 0; i < all->count; i++) {
      if (one.index_of(all->sources[i]) >= 0) all->sources[kept++] = all->sources[i];
    }
    all->count = kept;
    return;
  }
  for (int i = 0; i < one.count; i++) {
    if (has(*all, one.sources[i])) continue;
    if (all->count == GroupFilter::kMostSources) {
      *all = {true, 0, {}};
      return;
    }
    all->sources[all->count++] = one.sources[i];
  }
}

}  // namespace

int Membership::index_of(const IpAddress& source) const noexcept {
  for (int i = 0; i < count; i++) {
    if (sources[i] == source) return i;
  }
  return -1;
}

bool Memberships::tell(const IpAddress& group) noexcept {
  GroupFilter all;
  bool first = true;
  table_.for_each([&](const Membership& each) {
    if (!(each.group == group)) return;
    if (first && each.exclude) {
      all.exclude = true;
      for (int i = 0; i < each.count && i < GroupFilter::kMostSources; i++) all.sources[all.count++] = each.sources[i];
    } else {
      merge(&all, each);
    }
    first = false;
  });
  return groups_.set(group, all);
}

long Memberships::join(LwipUdpEndpoint& endpoint, Membership** list, const IpAddress& group, bool exclude) noexcept {
  int of_ip4 = 0;
  for (const Membership* each = *list; each != nullptr; each = each->next) of_ip4 += each->group.is_v4() ? 1 : 0;
  if (group.is_v4() && of_ip4 >= kMostOfIp4) return -ENOBUFS;
  Membership* const made = table_.make(endpoint, group);
  if (made == nullptr) return -ENOBUFS;
  made->exclude = exclude;
  made->next = *list;
  *list = made;
  if (tell(group)) return 0;
  leave(list);
  return -ENOBUFS;
}

void Memberships::leave(Membership** link) noexcept {
  Membership* const gone = *link;
  const IpAddress group = gone->group;
  *link = gone->next;
  table_.free(gone);
  (void)tell(group);
}

void Memberships::leave_all(Membership** list) noexcept {
  while (*list != nullptr) leave(list);
}

// ip_mc_source(). A filter without sources changes its mode.
long Memberships::change_source(Membership& membership, const IpAddress& source, bool exclude, bool adds) noexcept {
  if (membership.exclude != exclude) {
    if (membership.count != 0) return -EINVAL;
    membership.exclude = exclude;
  }
  const int at = membership.index_of(source);
  if (adds) {
    if (membership.count >= most_sources(membership.group)) return -ENOBUFS;
    if (at >= 0) return -EADDRNOTAVAIL;
    membership.sources[membership.count++] = source;
    return 0;
  }
  if (at < 0) return -EADDRNOTAVAIL;
  membership.sources[at] = membership.sources[--membership.count];
  return 0;
}

// ip_mc_msfilter(): nobody's is to leave.
long Memberships::set_filter(Membership** link, const GroupChange& change) noexcept {
  if (!change.exclude && change.count == 0) return leave(link), 0;
  if (change.count > most_sources(change.group)) return -ENOBUFS;
  Membership& membership = **link;
  membership.exclude = change.exclude;
  membership.count = change.count;
  for (int i = 0; i < change.count; i++) membership.sources[i] = change.sources[i];
  return tell(change.group) ? 0 : -ENOBUFS;
}

long Memberships::change(LwipUdpEndpoint& endpoint, Membership** list, const GroupChange& change) noexcept {
  using Kind = GroupChange::Kind;
  if (!change.group.is_multicast()) return -EINVAL;
  Membership** const place = place_of(list, change.group);
  const bool joined = *place != nullptr;
  switch (change.kind) {
    case Kind::join: return joined ? -EADDRINUSE : join(endpoint, list, change.group, true);
    case Kind::leave: return joined ? (leave(place), 0) : -EADDRNOTAVAIL;
    case Kind::set: return joined ? set_filter(place, change) : -EINVAL;
    default: break;
  }
  const bool adds = change.kind == Kind::join_source || change.kind == Kind::block;
  const bool exclude = change.kind == Kind::block || change.kind == Kind::unblock;
  if (!joined) {
    if (change.kind != Kind::join_source) return -EINVAL;
    if (const long error = join(endpoint, list, change.group, false); error != 0) return error;
  }
  Membership** const link = place_of(list, change.group);
  if (const long error = change_source(**link, change.sources[0], exclude, adds); error != 0) return error;
  if (!exclude && (*link)->count == 0) return leave(link), 0;
  return tell(change.group) ? 0 : -ENOBUFS;
}

}  // namespace netstack
