// The stack of one image: lwIP on a wire, the protocols on lwIP, and a turn of them all.
// SPDX-License-Identifier: BSD-3-Clause
//
// Here alone is everything known: lwip/ (the core) knows no protocol, a protocol knows the core. Whatever the stack owns lies in the region
// or the arena, which the family shares; the image's own data hold lwIP's globals and the ways to us, `the_core`, `the_tcp` and `the_udp`.
#pragma once

#include <cstdint>

#include "netstack/lwip/lwip_core.h"
#include "netstack/stack.h"
#include "netstack/tcp/tcp.h"
#include "netstack/udp/udp.h"

namespace netstack {

struct StackRegion;

class LwipStack final : public Stack {
 public:
  LwipStack(const StackSetup& setup, StackRegion& region) noexcept;

  // Stack.
  int poll(uint64_t now_ns) noexcept override;
  void hold_nothing_back() noexcept override { udp_.readers().reset(); }
  void flush() noexcept override { tcp_.flush(); }
  void run_control() noexcept override;
  [[nodiscard]] uint64_t next_timer_ns() const noexcept override;
  [[nodiscard]] uint64_t last_poll_ns() const noexcept override { return core_.clock.now_ns(); }
  [[nodiscard]] TcpStream* make_stream() noexcept override;
  [[nodiscard]] UdpEndpoint* make_endpoint() noexcept override { return udp_.make_endpoint(); }
  [[nodiscard]] long bind_stream(TcpStream* stream, const SocketAddress& local) noexcept override;
  [[nodiscard]] PortBinding* bind(const PortRequest& request, long* error) noexcept override { return tcp_.bind(request, error); }
  [[nodiscard]] TcpListener* listen(const PortRequest& request, const PortBinding* own, int backlog, long* error) noexcept override {
    return tcp_.listen(request, own, backlog, error);
  }
  [[nodiscard]] bool owns(const IpAddress& address) const noexcept override { return core_.neighbours.owns(address); }
  [[nodiscard]] bool routes(const IpAddress& address) const noexcept override { return core_.neighbours.routes(address); }
  [[nodiscard]] IpAddress source_for(const IpAddress& address) const noexcept override { return core_.neighbours.source_for(address); }
  [[nodiscard]] PoolLevels levels() const noexcept override;
  [[nodiscard]] bool all_sent() const noexcept override { return !tcp_.output.owes_last_acks() && core_.setup().wire->delivered(); }
  void refuse_half_open() noexcept override { tcp_.handshakes.refuse_all(); }
  void recover() noexcept override;
  void forget_holders() noexcept override {
    tcp_.forget_holders();
    udp_.forget_holders();
  }
  [[nodiscard]] bool hold(TcpStream* stream) noexcept override { return tcp_.hold(static_cast<LwipStream*>(stream)); }
  [[nodiscard]] bool hold(TcpListener* listener) noexcept override { return tcp_.hold(static_cast<LwipListener*>(listener)); }
  [[nodiscard]] bool hold(PortBinding* binding) noexcept override { return tcp_.hold(static_cast<LwipBinding*>(binding)); }
  [[nodiscard]] bool hold(UdpEndpoint* endpoint) noexcept override { return udp_.hold(static_cast<LwipUdpEndpoint*>(endpoint)); }

  // Starts lwIP and what is on it. Once, and again by recover().
  void start() noexcept;

 private:
  LwipCore core_;
  Tcp tcp_;
  Udp udp_;
};

// What the region holds. Laid over zero-filled memory; only the stack object is constructed, the rest is valid as zeros.
struct StackRegion {
  alignas(64) unsigned char stack_storage[sizeof(LwipStack)];
  TcpTables tcp;
  UdpTables udp;
  SavedNeighbours neighbours;
};

}  // namespace netstack
