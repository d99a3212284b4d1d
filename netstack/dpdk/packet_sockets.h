// The packet sockets behind DPDK's af_packet driver, made before and beside everything else because the kernel is slow at it.
//
// PACKET_RX_RING and PACKET_TX_RING each wait for an RCU grace period (8 ms on an idle machine of 250 Hz, more on a busy
// one), and so does closing a packet socket. The driver asks for both rings on one socket, one after the other. Here a receiving and a
// sending socket are made by two threads while DPDK's environment starts, and the driver, whose calls are redirected
// (redirect_net_af_packet.syms), gets the finished pair: its socket is the receiving one, its memory the two rings side by side, and what it
// sends goes out through the other. The sending socket names no protocol, so nothing is delivered to it.
#pragma once

#include <cstdint>
#include <linux/if_packet.h>
#include <pthread.h>

#include "base/result.h"

namespace netstack {

class PacketSockets {
 public:
  // Starts to make both in the network namespace of the calling thread. `blocks` blocks of `block_bytes`, slots of `slot_bytes` each way.
  PacketSockets(uint32_t block_bytes, uint32_t slot_bytes, uint32_t slots) noexcept;
  ~PacketSockets();
  PacketSockets(const PacketSockets&) = delete;
  PacketSockets& operator=(const PacketSockets&) = delete;

  // Waits for them and offers them to the next device the driver makes; a line about capabilities if the kernel refused.
  base::Result<bool> finish() noexcept;
  // The receiving socket; valid after finish().
  [[nodiscard]] int receiving() const noexcept { return ends_[0].fd; }

 private:
  struct End {
    const tpacket_req* ring;
    int option;  // PACKET_RX_RING or PACKET_TX_RING
    int fd;      // or a negative errno
    bool started;
    pthread_t thread;
  };
  static void* make(void* end) noexcept;
  void join() noexcept;

  bool taken_ = false;
  tpacket_req ring_;
  End ends_[2];
};

}  // namespace netstack
