// Who uses which local port, and random free ones (RFC 6056, algorithm 1).
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "netstack/port_steering.h"
#include "netstack/stack.h"

namespace netstack {

// Who uses a port (Linux: inet_bind_bucket): bound sockets and listeners; connections with a port that bind() has given out; connections
// whose port connect() has chosen. The last share it among each other by their destinations, and have none that others use (`fastreuse` < 0
// there).
enum class PortUse { bound, given, by_connect };

// The addresses at which somebody has a port (Linux: inet_rcv_saddr_equal()).
struct BoundTo {
  IpAddress address;
  bool v6_only = false;

  // There is one that both have.
  [[nodiscard]] bool meets(const BoundTo& other) const noexcept {
    if (address == other.address) return true;
    return address.is_any() ? has_family_of(other) : other.address.is_any() && other.has_family_of(*this);
  }
  // All that the other has.
  [[nodiscard]] bool includes(const BoundTo& other) const noexcept {
    if (address == other.address) return !v6_only || other.v6_only || !address.is_any();
    return address.is_any() && !other.address.is_any() && has_family_of(other);
  }

 private:
  // Of the unspecified address: whether it means any of the other's.
  [[nodiscard]] bool has_family_of(const BoundTo& other) const noexcept {
    if (address.is_v4()) return other.address.is_v4() || (other.address.is_any() && !other.v6_only);
    return !v6_only || !other.address.is_v4();
  }
};

class PortTable {
 public:
  // What may be chosen, and who is told what is used.
  void start(const LocalPorts& allowed, const SteeredPorts& steered) noexcept {
    allowed_ = allowed;
    steered_ = steered;
  }

  // Zero-filled memory is an empty table.
  void reset() noexcept {
    for (Port& port : ports_) {
      if (port.users() == 0) continue;
      port = {};
      steer(static_cast<uint16_t>(&port - ports_));
    }
  }
  void use(uint16_t number, PortUse how) noexcept {
    ports_[number].of(how)++;
    steer(number);
  }
  void unuse(uint16_t number, PortUse how) noexcept {
    Port& port = ports_[number];
    if (port.of(how) != 0) port.of(how)--;
    if (port.is_for_connect()) port.shared = false;
    steer(number);
  }
  [[nodiscard]] bool is_free(uint16_t number) const noexcept { return ports_[number].users() == 0; }
  [[nodiscard]] bool is_for_connect(uint16_t number) const noexcept { return ports_[number].is_for_connect(); }
  [[nodiscard]] uint32_t connections(uint16_t number) const noexcept { return ports_[number].given + ports_[number].by_connect; }

  // bind() or listen() has got the port: remembers who shares it by SO_REUSEPORT (inet_csk_update_fastreuse()). As long as all who came
  // since do, another socket of theirs need not be compared with each (FASTREUSEPORT_STRICT), even if one has changed its mind.
  void note_bound(const BoundTo& local, uint16_t number, const PortSharing& sharing) noexcept {
    Port& port = ports_[number];
    if (sharing.reuse_port && shares(local, number, sharing)) return;
    port.shared = sharing.reuse_port;
    port.shared_uid = sharing.uid;
    port.shared_by = local;
  }
  [[nodiscard]] bool shares(const BoundTo& local, uint16_t number, const PortSharing& sharing) const noexcept {
    const Port& port = ports_[number];
    return port.shared && sharing.reuse_port && port.shared_uid == sharing.uid && port.shared_by.includes(local);
  }

  // A port for which acceptable(port) holds, searched from a random start; first among those nobody uses. 0 if there is none.
  // `range`: the lowest and, in the upper half, the highest, as IP_LOCAL_PORT_RANGE has it, where they lie in the namespace's range.
  template <class F>
  [[nodiscard]] uint16_t choose(uint32_t range, uint32_t random, F acceptable) const noexcept {
    const uint32_t first = bound(range & 0xffff, allowed_.range.first), last = bound(range >> 16, allowed_.range.last);
    const uint32_t count = last - first + 1;
    for (const bool shared : {false, true}) {
      for (uint32_t i = 0; i < count; i++) {
        const auto port = static_cast<uint16_t>(first + (random % count + i) % count);
        if (is_free(port) != shared && acceptable(port) && allowed_.may_choose(port)) return port;
      }
    }
    return 0;
  }

 private:
  struct Port {
    uint32_t bound, given, by_connect;
    uint32_t shared_uid;
    BoundTo shared_by;
    bool shared;
    [[nodiscard]] uint32_t& of(PortUse how) noexcept { return how == PortUse::bound ? bound : how == PortUse::given ? given : by_connect; }
    [[nodiscard]] uint32_t users() const noexcept { return bound + given + by_connect; }
    [[nodiscard]] bool is_for_connect() const noexcept { return bound + given == 0; }
  };
  [[nodiscard]] uint32_t bound(uint32_t wanted, uint32_t otherwise) const noexcept {
    return wanted < allowed_.range.first || wanted > allowed_.range.last ? otherwise : wanted;
  }

  // Connections alone have no more to do with a SYN. (One that meets its peer's, RFC 9293, 3.5, does not come about on a shared wire.)
  void steer(uint16_t number) noexcept {
    Port& port = ports_[number];
    steered_.give(number, port.users() != 0, port.bound != 0);
  }

  LocalPorts allowed_;
  SteeredPorts steered_;
  Port ports_[65536];
};

}  // namespace netstack
