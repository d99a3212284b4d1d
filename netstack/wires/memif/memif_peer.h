// What a memif wire knows of its peer from the handshake's messages: regions, rings, event descriptors.
// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's driver believes its peer: it follows a ring's region and place as they are told, takes any message in any state, and copies texts
// up to a zero byte. So each message is looked at before the driver sees it. One that does not belong there, or tells of rings outside the
// regions, is kept back, and the driver ends the connection; descriptors that nothing asked for are closed. Of several channels
// to a server only the one that a connection was asked for on counts.
//
// The messages that introduce the two ends have room for a name, which nobody but people reads. Ours says that this end asks for no
// checksums in memory that both share, and the longest IP packet that it takes in as a chain of buffers ("zpstack takes 16320"; 0: none
// that is longer than a frame). Two ends that both say so need not fill checksums, nor cut what they send. Who says anything else (DPDK's
// driver, libmemif, VPP) leads to a stack that drops what has none.
//
// One queue each way: a server's greeting offers no more than ring 0, and who asks for others all the same is refused.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arena.h"

struct rte_eth_dev;

namespace netstack {

class Control;

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
  // A message that goes out: puts our name and what we offer into it.
  void introduce(void* message, size_t bytes) const noexcept;
  // Of the `bytes` of a message that goes out with descriptor `fd` (-1: none).
  void note_sent(const void* message, size_t bytes, int fd) noexcept;
  // Whether the driver may see a message that came on `socket`. If `wants_fd`, the descriptor that came with it becomes
  // Control's and is told by take_fd(), else it is to be closed.
  [[nodiscard]] bool accept(int socket, void* message, size_t bytes, bool has_fd, bool* wants_fd) noexcept;
  void take_fd(const void* message, int fd) noexcept;
  // Whether the descriptor can be what an accepted message says of it: an event, if it comes with a ring.
  [[nodiscard]] static bool is_usable(const void* message, int fd) noexcept;
  // Before the driver closes a descriptor of its own. It forgets those of regions that it has not mapped yet.
  void closing(int fd, Control& control) noexcept;
  // Says, once, why a connection comes to nothing.
  [[gnu::cold]] void complain(const char* what) noexcept;

  // One attempt of a client, and the end of a connection; Control::current() is set. 0, or -1.
  [[nodiscard]] int connect() noexcept;
  void disconnect() noexcept;

  bool client = false;
  bool named = false;   // we say who we are
  uint32_t offers = 0;  // the longest packet that we say we take; 0: a frame
  bool is_ours = false;  // the peer of this connection has said who it is
  uint32_t takes = 0;    // as it says
  rte_eth_dev* device = nullptr;
  int region_fd[kRegions] = {-1, -1, -1, -1};
  MemifRing to_client, to_server;
  uint32_t rings_told = 0;  // counts messages about rings: it tells one connection's from the next's

 private:
  void begin(int socket) noexcept;
  void read_introduction(const void* message) noexcept;
  [[nodiscard]] bool belongs_here(uint16_t type, const void* message, bool has_fd) noexcept;
  [[nodiscard]] bool lies_in_region(const MemifRing& ring) const noexcept;
  [[nodiscard]] MemifRing& ring_of(const void* message) noexcept;

  int channel_ = -1;  // the socket of the connection
  uint64_t region_bytes_[kRegions] = {};
  uint16_t regions_ = 0;
  bool greeted_ = false, connected_ = false, complained_ = false;
};

}  // namespace netstack
