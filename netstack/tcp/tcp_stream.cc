// Life of a stream: connecting, shutting down, ending, and who is told.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_stream.h"

#include <cerrno>
#include <cstring>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "netstack/lwip/ip_address.h"
#include "netstack/lwip/lwip_errno.h"
#include "netstack/tcp/orphans.h"
#include "netstack/tcp/saved_syn.h"
#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_hooks.h"

namespace netstack {
namespace {

constexpr uint32_t kReadable = EPOLLIN | EPOLLRDNORM;
constexpr uint32_t kWritable = EPOLLOUT | EPOLLWRNORM;

// RFC 6298: one second until there is a sample, in slow ticks.
constexpr s16_t kInitialRto = 1000 / TCP_SLOW_INTERVAL;

constexpr uint32_t kUnscaledWindow = 0xffff;  // the most that a SYN can offer

}  // namespace

LwipStream::LwipStream(Tcp& tcp) noexcept : tcp_(tcp) {}

void LwipStream::announce(uint32_t events) noexcept {
  if (released_) return;
  for (Observer* observer = observers.front(); observer != nullptr; observer = observers.after(observer)) {
    observer->on_ready(*this, events);
  }
}

// As sock_def_readable(): an edge for who asks for any of these.
void LwipStream::announce_data() noexcept { announce(kReadable | EPOLLPRI | EPOLLRDBAND); }

void LwipStream::attach(tcp_pcb* pcb) noexcept {
  pcb_ = pcb;
  tcp_arg(pcb, this);
  tcp_recv(pcb, on_receive);
  tcp_sent(pcb, on_sent);
  tcp_err(pcb, on_error);
  pcb->ext_args[0] = {&kPcbCallbacks, pcb};
  pcb->rto = pcb->sv = kInitialRto;
  apply_options();
  limit_segments();
}

// From here on lwIP finishes the connection alone.
void LwipStream::detach() noexcept {
  note_last_sizes();
  TcpDemux::note_sharing(pcb_, options_.sharing);
  tcp_arg(pcb_, nullptr);
  tcp_recv(pcb_, nullptr);
  tcp_sent(pcb_, nullptr);
  tcp_err(pcb_, nullptr);
  pcb_ = nullptr;
}

void LwipStream::adopt(tcp_pcb* pcb, const LwipListener& listener) noexcept {
  options_ = listener.options_;
  set_low_water();
  local_ = {from_lwip(pcb->local_ip), lwip_htons(pcb->local_port)};
  peer_ = {from_lwip(pcb->remote_ip), lwip_htons(pcb->remote_port)};
  phase_ = Phase::connected;
  attach(pcb);
  if (tcp_.core.memory.receive_share() < pcb->rcv_wnd) {  // memory is short; what the SYN-ACK has said stands
    pcb->rcv_wnd = receive_limit() < kUnscaledWindow ? kUnscaledWindow : receive_limit();
    pcb->rcv_ann_wnd = pcb->rcv_wnd;
  }
  if (options_.shut != 0) (void)shutdown(options_.shut - 1);  // sk_clone() copies sk_shutdown, tcp_rcv_state_process() acts on it
}

PortSharing LwipStream::sharing_of(const tcp_pcb& pcb) noexcept {
  return pcb.errf != nullptr ? static_cast<const LwipStream*>(pcb.callback_arg)->options_.sharing : TcpDemux::sharing(pcb);
}

long LwipStream::bind(const SocketAddress& local) noexcept {
  if (phase_ != Phase::fresh || bound_) return -EINVAL;
  if (!local.address.is_any() && !tcp_.core.neighbours.owns(local.address)) return -EADDRNOTAVAIL;
  bound_ = local.port_be != 0;
  local_ = local;
  return 0;
}

// A port of those that connect() may share (__inet_hash_connect()).
uint16_t LwipStream::choose_port(const IpAddress& own, const SocketAddress& peer) noexcept {
  const uint16_t peer_port = lwip_ntohs(peer.port_be);
  return tcp_.ports().choose(options_.port_range, tcp_.core.random(), [&](uint16_t port) {
    return tcp_.ports().is_for_connect(port) && tcp_.demux().find({own, peer.address, port, peer_port}) == nullptr;
  });
}

// Whether these four numbers are nobody's. TIME-WAIT gives way if timestamps keep what is left of the old connection out of the new one
// (tcp_twsk_unique(), where the port is given).
bool LwipStream::makes_way(const FourTuple& tuple) noexcept {
  tcp_pcb* const old = tcp_.demux().find(tuple);
  if (old == nullptr) return true;
  if (old->state != TIME_WAIT || !tcp_is_flag_set(old, TF_TIMESTAMP)) return false;
  tcp_abandon(old, 0);
  return true;
}

long LwipStream::connect(const SocketAddress& peer) noexcept {
  if (phase_ == Phase::connecting) return -EALREADY;
  if (phase_ == Phase::connected || (phase_ == Phase::closed && connect_ns_ == 0)) return -EISCONN;
  if (phase_ == Phase::closed) {  // an earlier attempt failed: Linux tells once, then a new one may start
    phase_ = Phase::fresh;
    read_closed_ = write_closed_ = peer_closed_ = false;
    if (error_ != 0) return -take_error();
  }
  if (!tcp_.core.neighbours.routes(peer.address)) return -ENETUNREACH;
  const bool named = !local_.address.is_any(), fits = local_.address.is_v4() == peer.address.is_v4();
  if (named && bound_ && !fits) return -ENETUNREACH;
  const IpAddress own = named && fits ? local_.address : tcp_.core.neighbours.source_for(peer.address);
  const uint16_t port = bound_ ? lwip_ntohs(local_.port_be) : choose_port(own, peer);
  if (port == 0 || (bound_ && !makes_way({own, peer.address, port, lwip_ntohs(peer.port_be)}))) return -EADDRNOTAVAIL;

  tcp_pcb* pcb = tcp_.core.memory.takes_connections() ? tcp_new() : nullptr;
  if (pcb == nullptr) return -ENOBUFS;
  pcb->local_ip = to_lwip(own);
  pcb->local_port = port;
  if (!bound_) TcpDemux::note_by_connect(pcb);
  attach(pcb);
  const ip_addr_t peer_ip = to_lwip(peer.address);
  const err_t error = tcp_connect(pcb, &peer_ip, lwip_ntohs(peer.port_be), on_connected);
  if (error != ERR_OK) {
    detach();
    pcb->local_port = 0;  // it is in no list
    tcp_abort(pcb);
    return -errno_of_lwip(error);
  }
  local_ = {own, lwip_htons(port)};
  peer_ = peer;
  phase_ = Phase::connecting;
  error_ = 0;  // tcp_connect_init(); what shutdown() has told before stays
  rare_.largest_window = rare_.sequence_gap = 0;
  connect_ns_ = tcp_.timers.fresh_now_ns() | 1;
  return 0;
}

err_t LwipStream::on_connected(void* self, tcp_pcb* pcb, err_t) noexcept {
  auto* stream = static_cast<LwipStream*>(self);
  stream->phase_ = Phase::connected;
  stream->begin_figures(pcb->nrtx == 0 ? (stream->tcp_.now_ns() - stream->connect_ns_) | 1 : 0);
  stream->connect_ns_ = 0;
  pcb->nrtx = 0;
  pcb->rto = pcb->sv = kInitialRto;
  stream->limit_segments();
  stream->announce(kWritable);
  return ERR_OK;
}

// tcp_rcv_state_process() from TCP_SYN_RECV: what was shut down before there was a connection ends it at once.
err_t LwipStream::on_opened_mutually(void* self, tcp_pcb* pcb, err_t error) noexcept {
  auto* stream = static_cast<LwipStream*>(self);
  (void)on_connected(self, pcb, error);
  if (stream->write_closed_) stream->queue_fin();
  return ERR_OK;
}

void LwipStream::pcb_gone() noexcept {
  note_last_sizes();
  pcb_ = nullptr;
  if (peer_closed_ && fin_sent_) phase_ = Phase::closed;
  if (released_) tcp_.free_stream(*this);
}

void LwipStream::fail(int error) noexcept {
  note_last_sizes();
  if (error != 0) error_ = error;
  phase_ = Phase::closed;
  read_closed_ = write_closed_ = true;
  free_chunks();
  announce(ready() | EPOLLHUP);
}

// lwIP calls this before or after the PCB is freed, depending on the reason.
void LwipStream::on_error(void* self, err_t error) noexcept {
  auto* stream = static_cast<LwipStream*>(self);
  if (stream->released_) return;
  int number = 0;
  if (error == ERR_RST) {
    number = stream->connecting() ? ECONNREFUSED : stream->peer_closed_ && !stream->fin_queued_ ? EPIPE : ECONNRESET;
  } else if (error != ERR_CLSD) {
    number = ETIMEDOUT;
  }
  stream->fail(number);
}

void LwipStream::abort(int error) noexcept {
  if (pcb_ != nullptr) {
    tcp_pcb* const pcb = pcb_;
    detach();
    tcp_abort(pcb);
  }
  if (error != 0) fail(error);
}

void LwipStream::give_up_connecting() noexcept {
  tcp_pcb* const pcb = pcb_;
  detach();
  if (pcb->state == SYN_SENT) {
    (void)tcp_close(pcb);  // silent
  } else {
    tcp_abort(pcb);
  }
}

tcp_state LwipStream::state() const noexcept {
  if (pcb_ == nullptr || (!connected() && !connecting())) return CLOSED;
  const tcp_state in_lwip = pcb_->state;
  if (!fin_queued_ || fin_sent_) return in_lwip;
  return in_lwip == ESTABLISHED ? FIN_WAIT_1 : fin_first_ ? CLOSING : LAST_ACK;
}

// tcp_disconnect(): the peer of a connection hears a reset, unless both sides have said their last. It moves write_seq beyond all that a
// late acknowledgement of the old connection could name, and until the next attempt begins the gap counts as not sent.
void LwipStream::disconnect() noexcept {
  const tcp_state before = state();
  note_last_sizes();
  const uint32_t gap = rare_.sequence_gap + static_cast<uint32_t>(waiting_bytes()) + rare_.largest_window + 2;
  const bool ends_alone = (before == CLOSING || before == LAST_ACK) && fin_sent_ && pcb_->unsent == nullptr && chunks_ == nullptr;
  if (before == SYN_SENT) {
    give_up_connecting();
  } else if (ends_alone || (before == CLOSED && pcb_ != nullptr)) {
    tcp_pcb* const pcb = pcb_;
    detach();
    if (ends_alone) Orphans::leave_alone(*pcb, options_.fin_wait_s);
  }
  if (pcb_ != nullptr) (void)output();
  abort(before != CLOSED && !ends_alone ? ECONNRESET : 0);
  free_chunks();
  drop_received();
  free_saved_syn(tcp_.core, &rare_.saved_syn);
  phase_ = Phase::fresh;
  urgent_ = Urgent::none;
  read_closed_ = write_closed_ = peer_closed_ = fin_queued_ = fin_sent_ = window_raised_ = false;
  written_ = fed_ = acknowledged_ = pushed_ = 0;
  read_total_ = rtt_offset_ = 0;
  rtt_us_ = rtt_variance_us_ = 0;
  rate_known_ = false;
  figures_ = {};
  rare_ = {.largest_window = rare_.largest_window, .sequence_gap = gap};
  if (!bound_) local_.address = IpAddress::v4(0);  // the port stays in the name
  peer_ = {};
  announce(ready());
}

// inet_shutdown() takes note and wakes who waits whatever it finds, and ends an attempt whatever is to be shut.
long LwipStream::shutdown(int how) noexcept {
  if (phase_ == Phase::connecting) {
    disconnect();
    return 0;
  }
  if (how != SHUT_WR) read_closed_ = true;
  if (how != SHUT_RD) write_closed_ = true;
  const bool there = connected();
  if (there && how != SHUT_RD) queue_fin();
  announce(ready());
  return there ? 0 : -ENOTCONN;
}

// tcp_shutdown(): what the state asks for, whatever had been shut before there was a connection.
void LwipStream::queue_fin() noexcept {
  if (fin_queued_) return;
  fin_queued_ = true;
  fin_first_ = !peer_closed_;
  more_ = false;
  tcp_.output.close(*this);
  mark_dirty();
}

int LwipStream::take_error() noexcept {
  const int error = error_;
  error_ = 0;
  return error;
}

bool LwipStream::resets_at_release() const noexcept {
  const bool ended = peer_closed_ && fin_queued_;  // both have said their last
  return received_bytes_ > 0 || (options_.linger_s == 0 && !ended);
}

bool LwipStream::would_lose() const noexcept { return pcb_ != nullptr && resets_at_release() && waiting_bytes() > 0; }

void LwipStream::release() noexcept {
  const bool resets = resets_at_release();
  released_ = true;
  tcp_.output.close(*this);
  drop_received();
  if (pcb_ != nullptr && pcb_->state == SYN_SENT) give_up_connecting();
  if (pcb_ != nullptr && pcb_->state == TIME_WAIT) detach();
  if (pcb_ == nullptr) {
    tcp_.free_stream(*this);
    return;
  }
  if (resets) {
    resetting_ = true;
    progress_ns_ = tcp_.now_ns();
    if (!finish_reset()) tcp_.output.owe_reset(*this);
    return;
  }
  tcp_set_flags(pcb_, TF_RXCLOSED);
  options_.cork = more_ = false;
  write_closed_ = fin_queued_ = true;
  (void)output();
}

// Linux hands to the device what windows, Nagle and cork let out in write() itself; here it may be waiting for a flush still, and goes
// first.
// What they hold is lost, as it is there. Not within a flush, whose frames refer to memory that is freed here.
bool LwipStream::finish_reset() noexcept {
  if (!output() || !tcp_.output.send_reset(*pcb_)) return false;
  tcp_pcb* const pcb = pcb_;
  detach();
  tcp_abandon(pcb, 0);
  tcp_.free_stream(*this);
  return true;
}

void LwipStream::dispose() noexcept {
  free_chunks();
  drop_received();
  free_saved_syn(tcp_.core, &rare_.saved_syn);
  DirtyLink::unlink();
  DelayedAck::unlink();
  AcceptLink::unlink();
}

bool LwipStream::ask_peer(uint32_t peer) noexcept {
  if (pcb_ == nullptr || phase_ != Phase::connected || asked_peer_ == peer) return true;
  if (tcp_keepalive(pcb_) != ERR_OK) return false;
  asked_peer_ = peer;
  return true;
}

}  // namespace netstack
