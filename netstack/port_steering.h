// Which ports of an address that a stack shares with the kernel are the stack's: it writes bytes that programs in the kernel read.
// SPDX-License-Identifier: BSD-3-Clause
//
// It lies in a BPF array that every member of the family has mapped (wires/kernel/steering_program.h), so that a port changes hands by one
// store. A wire without a kernel beside it has none.
#pragma once

#include <atomic>
#include <cstdint>

#include "netstack/socket_address.h"

namespace netstack {

struct PortSteering {
  static constexpr int kPorts = 65536;
  // Of a port.
  enum State : uint8_t {
    takes = 1,      // segments of connections, datagrams
    takes_syn = 2,  // and what begins a connection
    sends = 4,      // was the stack's at some time: the last segments of connections leave when their port is given up
  };

  uint32_t address;        // IPv4, as the host has numbers; 0: none
  uint32_t station[2];     // the interface's hardware address: four bytes and two, likewise
  alignas(8) uint32_t words_be[kMostIp6Addresses][4];  // IPv6; zeros: none
  uint8_t tcp[kPorts], udp[kPorts];
};

// A protocol's part of it.
class SteeredPorts {
 public:
  SteeredPorts() noexcept = default;
  static SteeredPorts of_tcp(PortSteering* steering) noexcept { return SteeredPorts(steering != nullptr ? steering->tcp : nullptr); }
  static SteeredPorts of_udp(PortSteering* steering) noexcept { return SteeredPorts(steering != nullptr ? steering->udp : nullptr); }

  [[nodiscard]] bool exist() const noexcept { return states_ != nullptr; }
  void give(uint16_t port, bool is_used, bool takes_syn) const noexcept {
    if (states_ == nullptr) [[likely]] return;
    const int state = is_used ? PortSteering::takes | PortSteering::sends | (takes_syn ? PortSteering::takes_syn : 0) : PortSteering::sends;
    std::atomic_ref<uint8_t>(states_[port]).store(static_cast<uint8_t>(state), std::memory_order_relaxed);
  }
  void give_all_up() const noexcept {
    for (int port = 0; states_ != nullptr && port < PortSteering::kPorts; port++) {
      if (states_[port] != 0) give(static_cast<uint16_t>(port), false, false);
    }
  }

 private:
  explicit SteeredPorts(uint8_t* states) noexcept : states_(states) {}

  uint8_t* states_ = nullptr;
};

}  // namespace netstack
