// A stack whose connections are byte queues in shared memory: what one end writes the other end reads at once.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cerrno>

#include "base/lock_written.h"
#include "netstack/make_stack.h"
#include "netstack/stack.h"

namespace shim_test {

inline constexpr uint32_t kStackAddress = 0x0200'12c6;  // 198.18.0.2 in wire order

class FakeListener;

class FakeStream final : public netstack::TcpStream {
 public:
  [[nodiscard]] uint32_t ready() const noexcept override;
  [[nodiscard]] long connect(const netstack::SocketAddress& peer) noexcept override;
  [[nodiscard]] bool connected() const noexcept override { return up; }
  [[nodiscard]] bool connecting() const noexcept override { return false; }
  [[nodiscard]] long read(const iovec* parts, int count, bool peek) noexcept override;
  [[nodiscard]] long peek_at(const iovec* parts, int count, size_t offset) noexcept override { return -EAGAIN; }
  [[nodiscard]] long write(const iovec* parts, int count, bool more) noexcept override;
  [[nodiscard]] long read_urgent(char* byte, bool peek) noexcept override { return -EINVAL; }
  [[nodiscard]] bool at_mark() const noexcept override { return false; }
  [[nodiscard]] size_t readable_to_mark() const noexcept override { return fill; }
  [[nodiscard]] long write_from(netstack::ByteSource& source, size_t wanted, bool more) noexcept override;
  [[nodiscard]] long write_urgent(const iovec* parts, int count, bool more) noexcept override { return write(parts, count, more); }
  [[nodiscard]] size_t readable_bytes() const noexcept override { return fill; }
  [[nodiscard]] size_t writable_bytes() const noexcept override { return other == nullptr ? 0 : kCapacity - other->fill; }
  [[nodiscard]] size_t unsent_bytes() const noexcept override { return other == nullptr ? 0 : other->fill; }
  [[nodiscard]] uint64_t received_ns() const noexcept override { return 0; }
  [[nodiscard]] long shutdown(int how) noexcept override;
  void disconnect() noexcept override { up = false; }
  void set_error(int number) noexcept override { error = number; }
  [[nodiscard]] int take_error() noexcept override;
  [[nodiscard]] bool would_lose() const noexcept override { return false; }
  [[nodiscard]] long set_option(netstack::TcpOption option, int value) noexcept override;
  [[nodiscard]] long get_option(netstack::TcpOption option, int* value) const noexcept override;
  void info(tcp_info* out) const noexcept override {}
  [[nodiscard]] netstack::TcpInfoTail info_tail() const noexcept override { return {}; }
  [[nodiscard]] size_t take_saved_syn(uint8_t*, size_t) noexcept override { return 0; }
  [[nodiscard]] netstack::SocketAddress local() const noexcept override { return here; }
  [[nodiscard]] netstack::SocketAddress peer() const noexcept override { return there; }
  void release() noexcept override;

  void tell(uint32_t events) noexcept;

  static constexpr size_t kCapacity = 4096;
  FakeStream* other = nullptr;
  netstack::SocketAddress here, there;
  bool used = false, up = false, write_closed = false;
  base::LockWritten<bool> end_seen{false};
  int error = 0;
  int options[32] = {};
  size_t fill = 0;
  char bytes[kCapacity];
};

class FakeListener final : public netstack::TcpListener {
 public:
  [[nodiscard]] uint32_t ready() const noexcept override;
  [[nodiscard]] netstack::TcpStream* accept(netstack::SocketAddress* peer, long* error) noexcept override;
  [[nodiscard]] netstack::SocketAddress local() const noexcept override { return here; }
  void set_backlog(int backlog) noexcept override {}
  void info(tcp_info* out) const noexcept override {}
  [[nodiscard]] long set_option(netstack::TcpOption option, int value) noexcept override { return 0; }
  void release() noexcept override;

  static constexpr int kQueue = 64;
  netstack::SocketAddress here;
  FakeStream* queue[kQueue];
  int waiting = 0;
  bool used = false;
};

class FakeBinding final : public netstack::PortBinding {
 public:
  [[nodiscard]] netstack::SocketAddress local() const noexcept override { return here; }
  [[nodiscard]] long set_option(netstack::TcpOption, int) noexcept override { return 0; }
  void release() noexcept override { used = false; }

  netstack::SocketAddress here;
  bool used = false;
};

// The only stack of a test process, in shared memory.
class FakeStack final : public netstack::Stack {
 public:
  FakeStack() noexcept;
  static FakeStack& get();

  int poll(uint64_t now_ns) noexcept override;
  void hold_nothing_back() noexcept override {}
  void run_control() noexcept override { wire().run_control(); }
  // The service ends each piece of its work with one: wait_until() looks again then.
  void flush() noexcept override;
  template <class Condition>
  void wait_until(Condition condition) noexcept {
    for (;;) {
      const uint32_t seen = flushes.load();
      if (condition()) return;
      wait_for_flush(seen);
    }
  }
  [[nodiscard]] uint64_t next_timer_ns() const noexcept override { return UINT64_MAX; }
  [[nodiscard]] uint64_t last_poll_ns() const noexcept override { return polled_ns; }
  [[nodiscard]] netstack::TcpStream* make_stream() noexcept override;
  [[nodiscard]] netstack::UdpEndpoint* make_endpoint() noexcept override { return nullptr; }
  [[nodiscard]] long bind_stream(netstack::TcpStream* stream, const netstack::SocketAddress& local) noexcept override;
  [[nodiscard]] netstack::PortBinding* bind(const netstack::PortRequest& request, long* error) noexcept override;
  [[nodiscard]] netstack::TcpListener* listen(const netstack::PortRequest& request, const netstack::PortBinding* own, int backlog,
                                              long* error) noexcept override;
  [[nodiscard]] bool owns(const netstack::IpAddress& address) const noexcept override { return address.v4_be() == kStackAddress; }
  [[nodiscard]] bool routes(const netstack::IpAddress& address) const noexcept override;
  netstack::IpAddress source_for(const netstack::IpAddress&) const noexcept override { return {}; }
  [[nodiscard]] netstack::PoolLevels levels() const noexcept override;
  [[nodiscard]] bool all_sent() const noexcept override { return true; }
  void refuse_half_open() noexcept override {}
  void recover() noexcept override { recoveries++; }
  void forget_holders() noexcept override {}
  [[nodiscard]] bool hold(netstack::TcpStream*) noexcept override { return true; }
  [[nodiscard]] bool hold(netstack::TcpListener*) noexcept override { return true; }
  [[nodiscard]] bool hold(netstack::PortBinding* binding) noexcept override { return binding != nullptr; }
  [[nodiscard]] bool hold(netstack::UdpEndpoint*) noexcept override { return true; }

  FakeListener* find(uint16_t port_be) noexcept;
  // A connection from outside to a listener: the far end, or nullptr.
  FakeStream* connect_from_outside(uint16_t port_be) noexcept;

  static constexpr int kStreams = 256;
  static constexpr int kListeners = 16;
  static constexpr int kBindings = 16;
  FakeStream streams[kStreams];
  FakeListener listeners[kListeners];
  FakeBinding bindings[kBindings];
  uint16_t next_port = 40000;
  base::LockWritten<uint64_t> polled_ns{0};
  base::LockWritten<int> polls{0};
  std::atomic<bool> rests{false};    // what the wire says of itself
  std::atomic<uint64_t> turn_ns{0};  // so long poll() takes, as if others had the processor
  base::LockWritten<int> recoveries{0};
  std::atomic<uint32_t> flushes{0};

 private:
  void wait_for_flush(uint32_t seen) noexcept;
};

}  // namespace shim_test
