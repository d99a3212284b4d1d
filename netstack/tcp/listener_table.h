// Which listener a SYN belongs to (Linux: inet_lookup_listener() and its hash of ports).
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "netstack/tcp/tcp_listener.h"

namespace netstack {

class ListenerTable {
 public:
  void add(LwipListener& listener) noexcept;
  void remove(LwipListener& listener) noexcept;
  // The most specific listener; among several that share address and port (SO_REUSEPORT), the one that `spread` picks.
  [[nodiscard]] LwipListener* find(const SocketAddress& local, uint32_t spread) noexcept;
  // The one that this peer's segments are for.
  [[nodiscard]] LwipListener* find(const FourTuple& tuple) noexcept;
  template <class Visit>
  void for_each_at(uint16_t port_be, Visit visit) const noexcept {
    for (const LwipListener* l = buckets_[port_be % kBuckets]; l != nullptr; l = l->next_in_bucket) {
      if (l->local().port_be == port_be) visit(*l);
    }
  }
  void reset() noexcept;

 private:
  static constexpr int kBuckets = 256;

  [[nodiscard]] LwipListener* find_at(const SocketAddress& exact, bool v4, uint32_t spread) noexcept;

  LwipListener* buckets_[kBuckets] = {};
};

}  // namespace netstack
