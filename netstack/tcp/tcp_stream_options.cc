// Options of a stream.
// SPDX-License-Identifier: BSD-3-Clause
#include <cerrno>
#include <cstring>
#include <linux/in.h>
#include <sys/epoll.h>

#include "netstack/lwip/ip_address.h"
#include "netstack/tcp/saved_syn.h"
#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_stream.h"
#include "zps_hooks.h"

namespace netstack {
namespace {

constexpr int kSmallestBuffer = 2304;  // Linux: SOCK_MIN_RCVBUF and SOCK_MIN_SNDBUF are of this size
constexpr int kLargestSendBuffer = 4 << 20;

constexpr int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

}  // namespace

void LwipStream::apply_options() noexcept {
  if (pcb_ == nullptr) return;
  if (options_.nodelay) {
    tcp_nagle_disable(pcb_);
  } else {
    tcp_nagle_enable(pcb_);
  }
  if (options_.keepalive) {
    ip_set_option(pcb_, SOF_KEEPALIVE);
    tcp_.timers.arm(pcb_);  // so that it is filed under keepalive when it goes idle
  } else {
    ip_reset_option(pcb_, SOF_KEEPALIVE);
  }
  pcb_->keep_idle = static_cast<u32_t>(options_.keepidle_s) * 1000;
  pcb_->keep_intvl = static_cast<u32_t>(options_.keepintvl_s) * 1000;
  pcb_->keep_cnt = static_cast<u32_t>(options_.keepcnt);
  const bool v6 = IP_IS_V6_VAL(pcb_->local_ip);
  const bool whole = options_.path_mtu_discovery == IP_PMTUDISC_WANT || options_.path_mtu_discovery == IP_PMTUDISC_DO;
  if (whole) {
    tcp_clear_flags(pcb_, ZPS_TF_MAY_BE_CUT);
  } else {
    tcp_set_flags(pcb_, ZPS_TF_MAY_BE_CUT);  // ip_dont_fragment()
  }
  const uint8_t min_ttl = v6 ? options_.min_hop_limit : options_.min_ttl;
  pcb_->tos = v6 ? options_.traffic_class : options_.tos;
  pcb_->ttl = v6 ? options_.hop_limit : options_.ttl;
  TcpDemux::note_min_ttl(pcb_, min_ttl);
  if (min_ttl != 0) {
    tcp_set_flags(pcb_, ZPS_TF_MIN_TTL);
  } else {
    tcp_clear_flags(pcb_, ZPS_TF_MIN_TTL);
  }
}

void LwipStream::bound_receiving() noexcept {
  const bool clamped = options_.window_clamp != 0 && options_.window_clamp < options_.receive_buffer;
  options_.receive_bound = clamped ? options_.window_clamp : options_.receive_buffer;
}

// By what is known of the path, and TCP_MAXSEG, at the start of a connection; what is set later is without effect on it, as on Linux
// (tcp_parse_options()). A long segment is a multiple of what a frame holds, as Linux's are (tcp_xmit_size_goal()): the wire cuts it into
// full ones, and none but the last is short.
void LwipStream::limit_segments() noexcept {
  if (pcb_->unsent != nullptr || pcb_->unacked != nullptr) return;  // lwIP trusts that none of these is longer
  const uint32_t headers = (IP_IS_V6_VAL(pcb_->remote_ip) ? IP6_HLEN : IP_HLEN) + TCP_HLEN;
  const IpAddress to = from_lwip(pcb_->remote_ip);
  if (headers == IP6_HLEN + TCP_HLEN || tcp_.path_mtu(to) < tcp_.wires_mtu()) {  // over IPv4 a segment may be longer than the wire takes
    const uint32_t most = tcp_.path_mtu(to) - headers;
    if (most < pcb_->mss) pcb_->mss = static_cast<u16_t>(most);
  }
  if (options_.max_segment != 0 && pcb_->mss > options_.max_segment) pcb_->mss = static_cast<u16_t>(options_.max_segment);
  const uint32_t payload = tcp_mss(pcb_), full = tcp_.full_payload(*pcb_);
  if (full < payload) pcb_->mss = static_cast<u16_t>(pcb_->mss - payload % full);
}

long LwipStream::set_option(TcpOption option, int value) noexcept {
  Options& o = options_;
  switch (option) {
    case TcpOption::nodelay:
      o.nodelay = value != 0;
      if (o.nodelay) push_all();  // even what a cork holds (Linux: __tcp_sock_set_nodelay())
      break;
    case TcpOption::cork:
      o.cork = value != 0;
      if (!o.cork) {
        more_ = false;
        mark_dirty();
      }
      break;
    case TcpOption::keepalive: o.keepalive = value != 0; break;
    case TcpOption::keepidle_s:
      if (value < 1 || value > 32767) return -EINVAL;
      o.keepidle_s = static_cast<uint16_t>(value);
      break;
    case TcpOption::keepintvl_s:
      if (value < 1 || value > 32767) return -EINVAL;
      o.keepintvl_s = static_cast<uint16_t>(value);
      break;
    case TcpOption::keepcnt:
      if (value < 1 || value > 127) return -EINVAL;
      o.keepcnt = static_cast<uint16_t>(value);
      break;
    case TcpOption::user_timeout_ms:
      if (value < 0) return -EINVAL;
      o.user_timeout_ms = value;
      break;
    case TcpOption::send_buffer_bytes: o.send_buffer = clamp(value, kSmallestBuffer, kLargestSendBuffer); break;
    case TcpOption::receive_buffer_bytes:
      o.receive_buffer = clamp(value, kSmallestBuffer, TCP_WND);
      bound_receiving();
      set_low_water();
      open_window();  // one that was offered is not taken back: a smaller one comes about as data arrives and is read
      break;
    case TcpOption::receive_low_water:
      o.receive_low_water = value < 1 ? 1 : value;
      set_low_water();
      if (received_bytes_ >= low_water_ || peer_closed_) announce_data();  // tcp_set_rcvlowat(): once more, as if it had just come
      break;
    case TcpOption::max_segment:
      if (value != 0 && (value < 88 || value > 32767)) return -EINVAL;
      o.max_segment = static_cast<uint16_t>(value);
      break;
    case TcpOption::linger_s: o.linger_s = value < 0 ? -1 : value; break;
    case TcpOption::shut: o.shut = value & 3; break;
    case TcpOption::reuse_address:
    case TcpOption::reuse_port:
    case TcpOption::owner_uid: (void)set_sharing(&o.sharing, option, value); break;
    case TcpOption::port_range: o.port_range = static_cast<uint32_t>(value); break;
    case TcpOption::quickack:
      o.quickack = value != 0;
      if (o.quickack && pcb_ != nullptr && tcp_is_flag_set(pcb_, TF_ACK_DELAY)) {
        tcp_ack_now(pcb_);
        mark_dirty();
      }
      break;
    case TcpOption::oob_inline: o.oob_inline = value != 0; break;
    case TcpOption::tos: o.tos = static_cast<uint8_t>(value); break;
    case TcpOption::ttl:
      if (value != -1 && (value < 1 || value > 255)) return -EINVAL;
      o.ttl = value == -1 ? 64 : static_cast<uint8_t>(value);
      break;
    case TcpOption::traffic_class: o.traffic_class = static_cast<uint8_t>(value); break;
    case TcpOption::hop_limit: o.hop_limit = value < 0 ? 64 : static_cast<uint8_t>(value); break;
    case TcpOption::min_hop_limit: o.min_hop_limit = static_cast<uint8_t>(value); break;
    case TcpOption::path_mtu_discovery: o.path_mtu_discovery = static_cast<uint8_t>(value); break;
    case TcpOption::path_mtu_discovery6: o.path_mtu_discovery6 = static_cast<uint8_t>(value); break;
    case TcpOption::defer_accept_s: o.defer_accept_s = static_cast<uint16_t>(clamp(value, 0, UINT16_MAX)); break;
    case TcpOption::syn_count: o.syn_count = static_cast<uint8_t>(value); break;
    case TcpOption::min_ttl: o.min_ttl = static_cast<uint8_t>(value); break;
    case TcpOption::save_syn: o.save_syn = static_cast<uint8_t>(value); break;
    case TcpOption::fin_wait_s: o.fin_wait_s = static_cast<int16_t>(clamp(value, -1, INT16_MAX)); break;
    case TcpOption::window_clamp:
      o.window_clamp = value;
      bound_receiving();
      set_low_water();
      open_window();
      break;
    case TcpOption::notsent_low_water:
      o.notsent_low_water = static_cast<uint32_t>(value);
      o.keeps_little_unsent = value != 0;
      look_for_room();
      break;
    case TcpOption::pacing_rate:
      o.pacing_rate = static_cast<uint32_t>(value);
      o.paced = o.pacing_rate != UINT32_MAX;
      mark_dirty();
      break;
    default: return -ENOPROTOOPT;
  }
  apply_options();
  return 0;
}

void LwipStream::note_last_sizes() noexcept {
  if (phase_ != Phase::connected || pcb_ == nullptr) return;
  rare_.last_mss = static_cast<uint16_t>(tcp_.full_payload(*pcb_));
  rare_.largest_window = pcb_->snd_wnd_max;
}

// tcp_mss_cache() of Linux, which a program that has set a limit sees once the connection is over.
int LwipStream::segment_size() const noexcept {
  constexpr int kLeast = 536;  // RFC 9293, 3.7.1, with the options that each segment has
  if (pcb_ != nullptr && connected()) return static_cast<int>(tcp_.full_payload(*pcb_));
  if (pcb_ != nullptr) return kLeast - (tcp_.facts().memory ? 0 : LWIP_TCP_OPT_LEN_TS_OUT);
  return options_.max_segment != 0 ? options_.max_segment : rare_.last_mss != 0 ? rare_.last_mss : kLeast;
}

size_t LwipStream::take_saved_syn(uint8_t* to, size_t room) noexcept {
  const SavedSyn* const saved = rare_.saved_syn;
  if (saved == nullptr) return 0;
  const size_t bytes = saved->bytes;
  if (bytes > room) return bytes;
  memcpy(to, saved->headers, bytes);
  free_saved_syn(tcp_.core, &rare_.saved_syn);
  return bytes;
}

long LwipStream::get_option(TcpOption option, int* value) const noexcept {
  const Options& o = options_;
  switch (option) {
    case TcpOption::nodelay: *value = o.nodelay; break;
    case TcpOption::cork: *value = o.cork; break;
    case TcpOption::keepalive: *value = o.keepalive; break;
    case TcpOption::keepidle_s: *value = o.keepidle_s; break;
    case TcpOption::keepintvl_s: *value = o.keepintvl_s; break;
    case TcpOption::keepcnt: *value = o.keepcnt; break;
    case TcpOption::user_timeout_ms: *value = o.user_timeout_ms; break;
    case TcpOption::send_buffer_bytes: *value = o.send_buffer; break;
    case TcpOption::receive_buffer_bytes: *value = o.receive_buffer; break;
    case TcpOption::receive_low_water: *value = o.receive_low_water; break;
    case TcpOption::max_segment: *value = segment_size(); break;
    case TcpOption::linger_s: *value = o.linger_s; break;
    case TcpOption::reuse_address: *value = o.sharing.reuse_address; break;
    case TcpOption::reuse_port: *value = o.sharing.reuse_port; break;
    case TcpOption::port_range: *value = static_cast<int>(o.port_range); break;
    case TcpOption::quickack: *value = o.quickack; break;
    case TcpOption::oob_inline: *value = o.oob_inline; break;
    case TcpOption::tos: *value = o.tos; break;
    case TcpOption::ttl: *value = o.ttl; break;
    case TcpOption::path_mtu:
      if (peer_.port_be == 0) return -ENOTCONN;
      *value = static_cast<int>(tcp_.path_mtu(peer_.address));
      break;
    default: return -ENOPROTOOPT;
  }
  return 0;
}

}  // namespace netstack
