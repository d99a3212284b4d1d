// A listening port: the accept queue, its bound, and the template that lwIP copies new connections from.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP's own listener is only the struct it hands to callbacks: it lies inside this object, is in none of lwIP's lists
// and is found by the demultiplexer, so any number of listeners costs nothing per segment and several may share a port.
// How connections get into the queue is in handshakes.h. One that is reset while queued stays in it, as on Linux.
#pragma once

#include "lwip/priv/tcp_priv.h"
#include "netstack/stack.h"
#include "netstack/tcp/request_table.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

class LwipListener final : public TcpListener {
 public:
  LwipListener(Tcp& tcp, const SocketAddress& local, bool v6_only, const PortSharing& sharing, int backlog) noexcept;

  [[nodiscard]] uint32_t ready() const noexcept override;
  [[nodiscard]] TcpStream* accept(SocketAddress* peer, long* error) noexcept override;
  [[nodiscard]] SocketAddress local() const noexcept override { return local_; }
  [[nodiscard]] bool v6_only() const noexcept { return v6_only_; }
  void set_backlog(int backlog) noexcept override;
  void info(tcp_info* out) const noexcept override;
  [[nodiscard]] long set_option(TcpOption option, int value) noexcept override;
  void release() noexcept override;

  // For the stack.
  [[nodiscard]] tcp_pcb_listen* pcb() noexcept { return &pcb_; }
  [[nodiscard]] const PortSharing& sharing() const noexcept { return options_.sharing; }
  [[nodiscard]] bool full() const noexcept { return queued_ > backlog_; }
  // TCP_DEFER_ACCEPT: the handshake waits for data until its SYN-ACK has been sent again so often.
  [[nodiscard]] int deferred_timeouts() const noexcept { return deferred_timeouts_; }
  // For a peer of either family.
  [[nodiscard]] uint8_t ttl(bool v4) const noexcept { return v4 ? options_.ttl : options_.hop_limit; }
  [[nodiscard]] uint8_t tos(bool v4) const noexcept { return v4 ? options_.tos : options_.traffic_class; }
  [[nodiscard]] uint8_t min_ttl(bool v4) const noexcept { return v4 ? options_.min_ttl : options_.min_hop_limit; }
  [[nodiscard]] uint8_t saves_syn() const noexcept { return options_.save_syn; }
  // One handshake more, or less, is in this stage.
  void count_handshake(uint8_t stage, int by) noexcept {
    half_open_ += by;
    if (stage == RequestTable::kHeld) held_syns_ += by;
    if (stage == RequestTable::kFresh) fresh_ += by;
  }
  // As many as may be: as the backlog asks for, within bounds. An entry costs little, a cookie the peer some options.
  [[nodiscard]] bool handshakes_full() const noexcept {
    return half_open_ >= (backlog_ < kLeastHalfOpen ? kLeastHalfOpen : backlog_ > kMostHalfOpen ? kMostHalfOpen : backlog_);
  }
  [[nodiscard]] bool holds_some() const noexcept { return held_syns_ > 0; }
  // Whether there is room in the queue beyond what the fresh ones are going to take; or whether as many as fit into it have got no answer
  // in time, so that it is not likely that the fresh ones will.
  [[nodiscard]] bool admits() const noexcept {
    return !full() && (queued_ + fresh_ <= backlog_ || half_open_ - fresh_ - held_syns_ > backlog_);
  }
  void note_cookie(uint64_t now_ns) noexcept { cookie_ns_ = now_ns; }
  [[nodiscard]] bool sent_cookie_since(uint64_t ns) const noexcept { return cookie_ns_ != 0 && cookie_ns_ >= ns; }
  void stream_left_queue() noexcept { queued_--; }
  [[nodiscard]] bool held() const noexcept { return held_; }
  void hold(bool held) noexcept { held_ = held; }
  // lwIP's part anew, an empty queue: after recover().
  void rebuild() noexcept;
  [[nodiscard]] static LwipListener* of(const tcp_pcb_listen* pcb) noexcept { return static_cast<LwipListener*>(pcb->callback_arg); }

  LwipListener* next_in_bucket = nullptr;

 private:
  friend class LwipStream;
  static constexpr int kLeastHalfOpen = 128, kMostHalfOpen = 1024;
  static err_t on_accept(void* self, tcp_pcb* pcb, err_t error) noexcept;

  Tcp& tcp_;
  tcp_pcb_listen pcb_;
  base::List<AcceptLink> queue_;
  LwipStream::Options options_;
  SocketAddress local_;
  bool v6_only_;  // IPV6_V6ONLY: all addresses are those of IPv6
  int backlog_;
  int queued_ = 0;
  int half_open_ = 0, fresh_ = 0, held_syns_ = 0;  // handshakes under way: all, and those in these stages
  uint64_t cookie_ns_ = 0;  // when the last was sent; 0: none was
  int deferred_timeouts_ = 0;
  bool held_ = true;  // not released
};

}  // namespace netstack
