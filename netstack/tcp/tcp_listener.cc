// Accept queue and listener life.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_listener.h"

#include <cerrno>
#include <cstring>
#include <sys/epoll.h>

#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_hooks.h"

namespace netstack {

namespace {

// How many retransmissions of a SYN-ACK, after 1, 2, 4 ... seconds, fill so many seconds (secs_to_retrans()).
int timeouts_within(int seconds) noexcept {
  constexpr int kMostSeconds = 120;
  int count = 0;
  for (int period = 0, timeout = 1; seconds > period && count < UINT8_MAX; count++) {
    period += timeout;
    timeout = timeout * 2 < kMostSeconds ? timeout * 2 : kMostSeconds;
  }
  return count;
}

}  // namespace

LwipListener::LwipListener(Tcp& tcp, const SocketAddress& local, bool v6_only, const PortSharing& sharing, int backlog) noexcept
    : tcp_(tcp), local_(local), v6_only_(v6_only), backlog_(backlog < 0 ? 0 : backlog) {
  options_.sharing = sharing;
  rebuild();
}

void LwipListener::rebuild() noexcept {
  new (&queue_) base::List<AcceptLink>();
  queued_ = half_open_ = fresh_ = held_syns_ = 0;
  memset(static_cast<void*>(&pcb_), 0, sizeof pcb_);
  IP_SET_TYPE_VAL(pcb_.local_ip, IPADDR_TYPE_ANY);  // which addresses it has is looked at in ListenerTable
  pcb_.local_port = lwip_ntohs(local_.port_be);
  pcb_.state = LISTEN;
  pcb_.prio = TCP_PRIO_NORMAL;
  pcb_.callback_arg = this;
  pcb_.accept = on_accept;
  pcb_.ext_args[0].callbacks = &kPcbCallbacks;
}

uint32_t LwipListener::ready() const noexcept { return queued_ > 0 ? EPOLLIN | EPOLLRDNORM : 0; }

err_t LwipListener::on_accept(void* self, tcp_pcb* pcb, err_t) noexcept {
  auto& listener = *static_cast<LwipListener*>(self);
  LwipStream* stream = listener.tcp_.make_stream();
  if (stream == nullptr) return ERR_MEM;
  const uint64_t answered_ns = listener.tcp_.handshakes.completed(*pcb, &stream->rare_.saved_syn);
  stream->adopt(pcb, listener);
  // One turn has one time: a peer on the same machine may have answered within it.
  stream->begin_figures(answered_ns != 0 ? (listener.tcp_.now_ns() - answered_ns) | 1 : 0);
  listener.queue_.push_back(stream);
  listener.queued_++;
  for (Observer* observer = listener.observers.front(); observer != nullptr; observer = listener.observers.after(observer)) {
    observer->on_ready(listener, EPOLLIN | EPOLLRDNORM);
  }
  return ERR_OK;
}

void LwipListener::set_backlog(int backlog) noexcept {
  backlog_ = backlog < 0 ? 0 : backlog;
  if (holds_some()) tcp_.handshakes.room_made();
}

TcpStream* LwipListener::accept(SocketAddress* peer, long* error) noexcept {
  AcceptLink* link = queue_.pop_front();
  if (link == nullptr) {
    *error = -EAGAIN;
    return nullptr;
  }
  queued_--;
  if (holds_some()) tcp_.handshakes.room_made();
  auto* stream = static_cast<LwipStream*>(link);
  stream->hold();
  *peer = stream->peer();
  *error = 0;
  return stream;
}

// The options are kept in a stream's own form, so that accepted streams copy them whole.
long LwipListener::set_option(TcpOption option, int value) noexcept {
  LwipStream carrier(tcp_);
  carrier.options_ = options_;
  const long result = carrier.set_option(option, value);
  carrier.DirtyLink::unlink();
  if (result == 0) {
    options_ = carrier.options_;
    deferred_timeouts_ = timeouts_within(options_.defer_accept_s);
  }
  return result;
}

void LwipListener::release() noexcept {
  held_ = false;
  while (AcceptLink* link = queue_.pop_front()) {
    auto* stream = static_cast<LwipStream*>(link);
    stream->options_.linger_s = 0;
    stream->release();
  }
  queued_ = 0;
  tcp_.handshakes.forget(*this);
  tcp_.free_listener(*this);
}

}  // namespace netstack
