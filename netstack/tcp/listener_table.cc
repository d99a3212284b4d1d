// Listeners by port.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/listener_table.h"

namespace netstack {

void ListenerTable::add(LwipListener& listener) noexcept {
  LwipListener*& bucket = buckets_[listener.local().port_be % kBuckets];
  listener.next_in_bucket = bucket;
  bucket = &listener;
}

void ListenerTable::remove(LwipListener& listener) noexcept {
  LwipListener** at = &buckets_[listener.local().port_be % kBuckets];
  while (*at != &listener) at = &(*at)->next_in_bucket;
  *at = listener.next_in_bucket;
}

LwipListener* ListenerTable::find(const SocketAddress& local, uint32_t spread) noexcept {
  for (const SocketAddress& exact : {local, SocketAddress{0, local.port_be}}) {
    int matches = 0;
    LwipListener* first = nullptr;
    for (LwipListener* l = buckets_[local.port_be % kBuckets]; l != nullptr; l = l->next_in_bucket) {
      if (l->local() == exact && matches++ == 0) first = l;
    }
    if (matches <= 1) {
      if (matches == 1) return first;
      continue;
    }
    int skip = static_cast<int>(spread % static_cast<uint32_t>(matches));
    for (LwipListener* l = first;; l = l->next_in_bucket) {
      if (l->local() == exact && skip-- == 0) return l;
    }
  }
  return nullptr;
}

LwipListener* ListenerTable::find(const FourTuple& tuple) noexcept {
  const uint32_t spread = tuple.peer_be * 0x9e37'79b1u ^ tuple.peer_port * 0x85eb'ca6bu;
  return find({tuple.local_be, lwip_htons(tuple.local_port)}, spread ^ spread >> 15);
}

void ListenerTable::reset() noexcept {
  for (LwipListener*& bucket : buckets_) bucket = nullptr;
}

}  // namespace netstack
