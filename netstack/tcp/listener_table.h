// Which listener a SYN belongs to (Linux: inet_lookup_listener() and its hash of ports).
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
  // Whether a listener keeps `local` from being used by another socket, or by another listener with or without SO_REUSEPORT.
  [[nodiscard]] bool taken(const SocketAddress& local, bool reuse_port) const noexcept;
  void reset() noexcept;

 private:
  static constexpr int kBuckets = 256;

  LwipListener* buckets_[kBuckets] = {};
  int count_ = 0;
};

}  // namespace netstack
