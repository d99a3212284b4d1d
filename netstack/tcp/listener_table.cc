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

LwipListener* ListenerTable::find_at(const SocketAddress& exact, bool v4, uint32_t spread) noexcept {
  const auto is_it = [&](const LwipListener& listener) { return listener.local() == exact && !(v4 && listener.v6_only()); };
  int matches = 0;
  LwipListener* first = nullptr;
  for (LwipListener* l = buckets_[exact.port_be % kBuckets]; l != nullptr; l = l->next_in_bucket) {
    if (is_it(*l) && matches++ == 0) first = l;
  }
  if (matches <= 1) return first;
  int skip = static_cast<int>(spread % static_cast<uint32_t>(matches));
  for (LwipListener* l = first;; l = l->next_in_bucket) {
    if (is_it(*l) && skip-- == 0) return l;
  }
}

// As compute_score(): the address itself, then all of its family, then all of both.
LwipListener* ListenerTable::find(const SocketAddress& local, uint32_t spread) noexcept {
  const bool v4 = local.address.is_v4();
  LwipListener* found = find_at({local.address, local.port_be}, v4, spread);
  if (found == nullptr && v4) found = find_at({0, local.port_be}, v4, spread);
  return found != nullptr ? found : find_at({IpAddress{}, local.port_be}, v4, spread);
}

LwipListener* ListenerTable::find(const FourTuple& tuple) noexcept {
  const IpAddress& peer = tuple.peer;
  const uint32_t peer_word = peer.is_v4() ? peer.v4_be() : peer.words_be[0] ^ peer.words_be[1] ^ peer.words_be[2] ^ peer.words_be[3];
  const uint32_t spread = peer_word * 0x9e37'79b1u ^ tuple.peer_port * 0x85eb'ca6bu;
  return find({tuple.local, lwip_htons(tuple.local_port)}, spread ^ spread >> 15);
}

void ListenerTable::reset() noexcept {
  for (LwipListener*& bucket : buckets_) bucket = nullptr;
}

}  // namespace netstack
