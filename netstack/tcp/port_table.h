// Who uses which local port, and random free ones (RFC 6056, algorithm 1).
#pragma once

#include <cstdint>
#include <initializer_list>

namespace netstack {

class PortTable {
 public:
  // The range Linux uses by default (net.ipv4.ip_local_port_range).
  static constexpr int kFirst = 32768;
  static constexpr int kLast = 60999;

  // Zero-filled memory is an empty table.
  void reset() noexcept {
    for (uint32_t& count : users_) {
      if (count != 0) count = 0;
    }
  }
  void use(uint16_t port) noexcept { users_[port]++; }
  void unuse(uint16_t port) noexcept {
    if (users_[port] != 0) users_[port]--;
  }
  [[nodiscard]] int users(uint16_t port) const noexcept { return users_[port]; }

  // A port for which acceptable(port) holds, searched from a random start; first among those nobody uses. 0 if there is none.
  template <class F>
  [[nodiscard]] uint16_t choose(uint32_t random, F acceptable) const noexcept {
    constexpr uint32_t kCount = kLast - kFirst + 1;
    for (const bool shared : {false, true}) {
      for (uint32_t i = 0; i < kCount; i++) {
        const auto port = static_cast<uint16_t>(kFirst + (random % kCount + i) % kCount);
        if ((users_[port] != 0) == shared && acceptable(port)) return port;
      }
    }
    return 0;
  }

 private:
  uint32_t users_[65536];
};

}  // namespace netstack
