// A listening port: the accept queue, its bound, and the template that lwIP copies new connections from.
//
// lwIP's own listener is only the struct it hands to callbacks: it lies inside this object, is in none of lwIP's lists
// and is found by the demultiplexer, so any number of listeners costs nothing per segment and several may share a port.
// As on Linux: a SYN is dropped when the queue is full, and the last ACK of a handshake is
// dropped while it is, so that the peer tries again; a connection that is reset while queued stays in the queue.
#pragma once

#include "lwip/priv/tcp_priv.h"
#include "netstack/stack.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

class LwipListener final : public TcpListener {
 public:
  LwipListener(Tcp& tcp, const SocketAddress& local, int backlog, bool reuse_port) noexcept;

  [[nodiscard]] uint32_t ready() const noexcept override;
  [[nodiscard]] TcpStream* accept(SocketAddress* peer, long* error) noexcept override;
  [[nodiscard]] SocketAddress local() const noexcept override { return local_; }
  void set_backlog(int backlog) noexcept override { backlog_ = backlog < 0 ? 0 : backlog; }
  [[nodiscard]] long set_option(TcpOption option, int value) noexcept override;
  void release() noexcept override;

  // For the stack.
  [[nodiscard]] tcp_pcb_listen* pcb() noexcept { return &pcb_; }
  [[nodiscard]] bool reuse_port() const noexcept { return reuse_port_; }
  [[nodiscard]] bool full() const noexcept { return queued_ > backlog_; }
  [[nodiscard]] bool takes_syn() const noexcept { return !full() && half_open_ < kMaxHalfOpen; }
  void half_open_changed(int by) noexcept { half_open_ += by; }
  void stream_left_queue() noexcept { queued_--; }
  [[nodiscard]] bool held() const noexcept { return held_; }
  void hold(bool held) noexcept { held_ = held; }
  // lwIP's part anew, an empty queue: after recover().
  void rebuild() noexcept;
  [[nodiscard]] static LwipListener* of(const tcp_pcb_listen* pcb) noexcept { return static_cast<LwipListener*>(pcb->callback_arg); }

  LwipListener* next_in_bucket = nullptr;

 private:
  friend class LwipStream;
  static constexpr int kMaxHalfOpen = 1024;
  static err_t on_accept(void* self, tcp_pcb* pcb, err_t error) noexcept;

  Tcp& tcp_;
  tcp_pcb_listen pcb_;
  base::List<AcceptLink> queue_;
  LwipStream::Options options_;
  SocketAddress local_;
  int backlog_;
  int queued_ = 0;
  int half_open_ = 0;
  bool reuse_port_;
  bool held_ = true;  // not released
};

}  // namespace netstack
