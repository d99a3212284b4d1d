// What a memif wire knows of its peer from the handshake's messages: regions, rings, event descriptors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arena.h"

struct rte_eth_dev;

namespace netstack {

struct MemifRing {
  int fd = -1;  // its event descriptor
  uint16_t region = 0;
  uint32_t offset = 0;
  uint8_t log2_slots = 0;
};

// Lies in memory the family shares; the descriptors are Control's, so their numbers hold in every member.
struct MemifPeer {
  static constexpr int kRegions = 4;

  static MemifPeer* create(base::Arena* arena) noexcept;

  // The ring that the peer fills: from server to client, or the other way round.
  [[nodiscard]] const MemifRing& receive_ring() const noexcept { return client ? to_client : to_server; }
  [[nodiscard]] const MemifRing& send_ring() const noexcept { return client ? to_server : to_client; }
  // Takes note of a handshake message that passes with descriptor `fd` (-1: none).
  void note(const void* message, size_t bytes, int fd) noexcept;

  // One attempt of a client, and the end of a connection; Control::current() is set. 0, or -1.
  [[nodiscard]] int connect() noexcept;
  void disconnect() noexcept;

  bool client = false;
  rte_eth_dev* device = nullptr;
  int region_fd[kRegions] = {-1, -1, -1, -1};
  MemifRing to_client, to_server;
  uint32_t rings_told = 0;  // counts messages about rings: it tells one connection's from the next's
};

}  // namespace netstack
