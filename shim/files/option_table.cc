// The rows of the option table: every option of the kernel's headers, and some that are newer, for SOL_SOCKET, TCP, IPv4 and IPv6.
// SPDX-License-Identifier: BSD-3-Clause
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "shim/files/options.h"

// Younger than the headers that this must compile with, or not in the C library's.
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#ifndef SO_DEVMEM_DONTNEED
#define SO_DEVMEM_DONTNEED 80
#endif
#ifndef SO_RCVPRIORITY
#define SO_RCVPRIORITY 82
#endif
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif
#ifndef TCP_RTO_MIN_US
#define TCP_RTO_MIN_US 45
#endif
#ifndef TCP_DELACK_MAX_US
#define TCP_DELACK_MAX_US 46
#endif
#ifndef TCP_IS_MPTCP
#define TCP_IS_MPTCP 43
#endif
#ifndef TCP_AO_ADD_KEY
#define TCP_AO_ADD_KEY 38
#endif
#ifndef TCP_AO_DEL_KEY
#define TCP_AO_DEL_KEY 39
#endif
#ifndef TCP_AO_INFO
#define TCP_AO_INFO 40
#endif
#ifndef TCP_AO_GET_KEYS
#define TCP_AO_GET_KEYS 41
#endif
#ifndef TCP_AO_REPAIR
#define TCP_AO_REPAIR 42
#endif
#ifndef IP_PROTOCOL
#define IP_PROTOCOL 52
#endif
#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND 33
#endif
#ifndef IPV6_FLOWLABEL_MGR
#define IPV6_FLOWLABEL_MGR 32
#endif
#ifndef IPV6_FLOWINFO
#define IPV6_FLOWINFO 11
#endif

namespace shim {
namespace {

using netstack::TcpOption;

constexpr TcpOption kNone = TcpOption::nodelay;

#define ROW(level, name, kind, option, note) {level, name, #name, OptionKind::kind, option, note, OptionStates::any, EINVAL}
#define ROW_IN(level, name, kind, option, states, error, note) \
  {level, name, #name, OptionKind::kind, option, note, OptionStates::states, error}
#define KEPT(level, name, note) {level, name, #name, OptionKind::stored, kNone, note, OptionStates::any, EINVAL}

constexpr OptionRow kRows[] = {
    ROW(SOL_SOCKET, SO_REUSEADDR, sharing, TcpOption::reuse_address, "on both sides"),
    ROW(SOL_SOCKET, SO_REUSEPORT, sharing, TcpOption::reuse_port, "on both sides"),
    ROW(SOL_SOCKET, SO_KEEPALIVE, integer, TcpOption::keepalive, ""),
    ROW(SOL_SOCKET, SO_LINGER, linger, TcpOption::linger_s, "close() waits; dup2(), close_range() and exit() do not"),
    ROW(SOL_SOCKET, SO_RCVBUF, half, TcpOption::receive_buffer_bytes, "reported doubled; the window has room for two segments at least"),
    ROW(SOL_SOCKET, SO_SNDBUF, half, TcpOption::send_buffer_bytes, "reported doubled"),
    ROW(SOL_SOCKET, SO_RCVTIMEO, receive_timeout, kNone, ""),
    ROW(SOL_SOCKET, SO_SNDTIMEO, send_timeout, kNone, ""),
    ROW(SOL_SOCKET, SO_ERROR, error, kNone, "one-shot"),
    ROW(SOL_SOCKET, SO_ACCEPTCONN, listening, kNone, ""),
    ROW(SOL_SOCKET, SO_TYPE, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_DOMAIN, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_PROTOCOL, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_COOKIE, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_NETNS_COOKIE, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_SNDLOWAT, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_PEERCRED, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_PEERGROUPS, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_PEERSEC, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_BPF_EXTENSIONS, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_INCOMING_NAPI_ID, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_PEERPIDFD, read_only, kNone, "the placeholder's"),
    ROW(SOL_SOCKET, SO_MEMINFO, memory, kNone, "bytes to read and bytes not acknowledged; the rest is the placeholder's"),
    ROW(SOL_SOCKET, SO_INCOMING_CPU, processor, kNone, "who reads is who receives: the caller's, unless one was set"),
    ROW(SOL_SOCKET, SO_PEERNAME, peer_name, kNone, ""),
    ROW(SOL_SOCKET, SO_RCVLOWAT, low_water, TcpOption::receive_low_water, "at most half of the window"),
    ROW(SOL_SOCKET, SO_TIMESTAMP_OLD, arrival, kNone, "recvmsg() tells when the data came"),
    ROW(SOL_SOCKET, SO_TIMESTAMPNS_OLD, arrival, kNone, "recvmsg() tells when the data came"),
    ROW(SOL_SOCKET, SO_TIMESTAMP_NEW, arrival, kNone, "recvmsg() tells when the data came"),
    ROW(SOL_SOCKET, SO_TIMESTAMPNS_NEW, arrival, kNone, "recvmsg() tells when the data came"),
    ROW(SOL_SOCKET, SO_TIMESTAMPING_OLD, arrival, kNone, "as SO_TIMESTAMP, for software receive times; none are taken of transmission"),
    ROW(SOL_SOCKET, SO_TIMESTAMPING_NEW, arrival, kNone, "as SO_TIMESTAMP, for software receive times; none are taken of transmission"),
    ROW(SOL_SOCKET, SO_PEEK_OFF, peek_offset, kNone, ""),
    ROW(SOL_SOCKET, SO_MAX_PACING_RATE, integer, TcpOption::pacing_rate, "in pieces of 40 ms"),
    KEPT(SOL_SOCKET, SO_BROADCAST, "no meaning for TCP"),
    KEPT(SOL_SOCKET, SO_NO_CHECK, "no meaning for TCP"),
    KEPT(SOL_SOCKET, SO_BSDCOMPAT, "no meaning for TCP"),
    KEPT(SOL_SOCKET, SO_PASSCRED, "no meaning for TCP"),
    KEPT(SOL_SOCKET, SO_PASSSEC, "no meaning for TCP"),
    KEPT(SOL_SOCKET, SO_PASSPIDFD, "no meaning for TCP"),
    KEPT(SOL_SOCKET, SO_PASSRIGHTS, "no meaning for TCP"),
    ROW(SOL_SOCKET, SO_OOBINLINE, integer, TcpOption::oob_inline, ""),
    KEPT(SOL_SOCKET, SO_PRIORITY, ""),
    KEPT(SOL_SOCKET, SO_MARK, ""),
    KEPT(SOL_SOCKET, SO_RCVMARK, ""),
    KEPT(SOL_SOCKET, SO_RCVPRIORITY, ""),
    KEPT(SOL_SOCKET, SO_TXTIME, ""),
    KEPT(SOL_SOCKET, SO_TXREHASH, ""),
    KEPT(SOL_SOCKET, SO_CNX_ADVICE, ""),
    KEPT(SOL_SOCKET, SO_DONTROUTE, ""),
    KEPT(SOL_SOCKET, SO_BUF_LOCK, ""),
    KEPT(SOL_SOCKET, SO_RESERVE_MEM, ""),
    KEPT(SOL_SOCKET, SO_RXQ_OVFL, ""),
    KEPT(SOL_SOCKET, SO_WIFI_STATUS, ""),
    KEPT(SOL_SOCKET, SO_NOFCS, ""),
    KEPT(SOL_SOCKET, SO_SELECT_ERR_QUEUE, ""),
    KEPT(SOL_SOCKET, SO_DEBUG, ""),
    KEPT(SOL_SOCKET, SO_LOCK_FILTER, ""),
    KEPT(SOL_SOCKET, SO_DEVMEM_DONTNEED, ""),
    KEPT(SOL_SOCKET, SO_DETACH_FILTER, ""),
    KEPT(SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, ""),
    KEPT(SOL_SOCKET, SO_BUSY_POLL, "waits poll by themselves"),
    KEPT(SOL_SOCKET, SO_PREFER_BUSY_POLL, "waits poll by themselves"),
    KEPT(SOL_SOCKET, SO_BUSY_POLL_BUDGET, "waits poll by themselves"),
    KEPT(SOL_SOCKET, SO_BINDTODEVICE, "the wire is the device"),
    KEPT(SOL_SOCKET, SO_BINDTOIFINDEX, "the wire is the device"),
    ROW_IN(SOL_SOCKET, SO_ATTACH_FILTER, refused, kNone, any, EPERM, "programs of BPF would not be run"),
    ROW_IN(SOL_SOCKET, SO_ATTACH_BPF, refused, kNone, any, EPERM, "programs of BPF would not be run"),
    ROW_IN(SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, refused, kNone, any, EPERM, "programs of BPF would not be run"),
    ROW_IN(SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, refused, kNone, any, EPERM, "programs of BPF would not be run"),
    ROW_IN(SOL_SOCKET, SO_ZEROCOPY, never, kNone, any, EOPNOTSUPP, "so that programs copy"),
    ROW(IPPROTO_TCP, TCP_NODELAY, integer, TcpOption::nodelay, ""),
    ROW(IPPROTO_TCP, TCP_CORK, integer, TcpOption::cork, ""),
    ROW(IPPROTO_TCP, TCP_KEEPIDLE, integer, TcpOption::keepidle_s, ""),
    ROW(IPPROTO_TCP, TCP_KEEPINTVL, integer, TcpOption::keepintvl_s, ""),
    ROW(IPPROTO_TCP, TCP_KEEPCNT, integer, TcpOption::keepcnt, ""),
    ROW(IPPROTO_TCP, TCP_USER_TIMEOUT, integer, TcpOption::user_timeout_ms, ""),
    ROW(IPPROTO_TCP, TCP_MAXSEG, segment_size, TcpOption::max_segment, "the connection's true value"),
    ROW(IPPROTO_TCP, TCP_QUICKACK, integer, TcpOption::quickack, ""),
    ROW(IPPROTO_TCP, TCP_INFO, info, kNone, "the stack's; 0 where it has none: sndbuf_limited, dsack_dups, reord_seen, rcv_rtt"),
    ROW(IPPROTO_TCP, TCP_DEFER_ACCEPT, integer, TcpOption::defer_accept_s, "accept() waits for data as long as that"),
    ROW(IPPROTO_TCP, TCP_SYNCNT, integer, TcpOption::syn_count, ""),
    ROW(IPPROTO_TCP, TCP_LINGER2, integer, TcpOption::fin_wait_s, "of a closed connection; -1: it ends at once"),
    ROW_IN(IPPROTO_TCP, TCP_WINDOW_CLAMP, integer, TcpOption::window_clamp, closed_if_zero, EINVAL, "reported as it was set"),
    ROW(IPPROTO_TCP, TCP_NOTSENT_LOWAT, integer, TcpOption::notsent_low_water, ""),
    ROW(IPPROTO_TCP, TCP_INQ, arrival, kNone, "recvmsg() tells what is left to read"),
    KEPT(IPPROTO_TCP, TCP_CONGESTION, "the stack has one algorithm"),
    KEPT(IPPROTO_TCP, TCP_CC_INFO, "the stack has one algorithm"),
    ROW_IN(IPPROTO_TCP, TCP_FASTOPEN, stored, kNone, unconnected, EINVAL, "no SYN carries data"),
    ROW_IN(IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, stored, kNone, unconnected, EINVAL, "no SYN carries data"),
    ROW_IN(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, stored, kNone, closed, EINVAL, "no SYN carries data"),
    KEPT(IPPROTO_TCP, TCP_FASTOPEN_KEY, "no SYN carries data"),
    ROW(IPPROTO_TCP, TCP_SAVE_SYN, integer, TcpOption::save_syn, ""),
    ROW(IPPROTO_TCP, TCP_SAVED_SYN, saved_syn, kNone, "none is kept while so many handshakes are under way that SYN cookies are sent"),
    KEPT(IPPROTO_TCP, TCP_TIMESTAMP, "the placeholder's"),
    KEPT(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, ""),
    KEPT(IPPROTO_TCP, TCP_THIN_DUPACK, ""),
    KEPT(IPPROTO_TCP, TCP_TX_DELAY, ""),
    KEPT(IPPROTO_TCP, TCP_RTO_MAX_MS, ""),
    KEPT(IPPROTO_TCP, TCP_RTO_MIN_US, ""),
    KEPT(IPPROTO_TCP, TCP_DELACK_MAX_US, ""),
    KEPT(IPPROTO_TCP, TCP_ULP, "there is none: tls is ENOTCONN"),
    ROW(IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, read_only, kNone, ""),
    ROW(IPPROTO_TCP, TCP_IS_MPTCP, read_only, kNone, ""),
    ROW_IN(IPPROTO_TCP, TCP_REPAIR, refused, kNone, closed, EPERM, "a connection of the stack is made by a handshake"),
    ROW_IN(IPPROTO_TCP, TCP_QUEUE_SEQ, stored, kNone, closed, EPERM, "as without TCP_REPAIR"),
    KEPT(IPPROTO_TCP, TCP_REPAIR_QUEUE, "as without TCP_REPAIR"),
    KEPT(IPPROTO_TCP, TCP_REPAIR_OPTIONS, "as without TCP_REPAIR"),
    KEPT(IPPROTO_TCP, TCP_REPAIR_WINDOW, "as without TCP_REPAIR"),
    ROW_IN(IPPROTO_TCP, TCP_MD5SIG, refused, kNone, any, ENOPROTOOPT, "segments are not signed"),
    ROW_IN(IPPROTO_TCP, TCP_MD5SIG_EXT, refused, kNone, any, ENOPROTOOPT, "segments are not signed"),
    ROW_IN(IPPROTO_TCP, TCP_AO_ADD_KEY, refused, kNone, any, ENOPROTOOPT, "segments are not signed"),
    ROW_IN(IPPROTO_TCP, TCP_AO_DEL_KEY, refused, kNone, any, ENOPROTOOPT, "segments are not signed"),
    ROW_IN(IPPROTO_TCP, TCP_AO_INFO, refused, kNone, any, ENOPROTOOPT, "segments are not signed"),
    ROW_IN(IPPROTO_TCP, TCP_AO_GET_KEYS, refused, kNone, any, ENOPROTOOPT, "segments are not signed"),
    ROW_IN(IPPROTO_TCP, TCP_AO_REPAIR, refused, kNone, not_listening, EPERM, "segments are not signed"),
    ROW(IPPROTO_IP, IP_TOS, integer, TcpOption::tos, ""),
    ROW(IPPROTO_IP, IP_TTL, integer, TcpOption::ttl, ""),
    ROW(IPPROTO_IP, IP_MTU, path_mtu, kNone, "the path's, as routers have told it"),
    ROW(IPPROTO_IP, IP_MTU_DISCOVER, integer, TcpOption::path_mtu_discovery, "segments are as large as the path takes"),
    KEPT(IPPROTO_IP, IP_RECVERR, "the error queue is always empty"),
    KEPT(IPPROTO_IP, IP_RECVERR_RFC4884, "the error queue is always empty"),
    KEPT(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, "in force"),
    ROW(IPPROTO_IP, IP_LOCAL_PORT_RANGE, integer, TcpOption::port_range, "within net.ipv4.ip_local_port_range"),
    KEPT(IPPROTO_IP, IP_FREEBIND, "the stack has its own addresses only"),
    KEPT(IPPROTO_IP, IP_TRANSPARENT, "the stack has its own addresses only"),
    KEPT(IPPROTO_IP, IP_PKTINFO, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_RECVOPTS, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_RETOPTS, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_PKTOPTIONS, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_RECVTOS, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_RECVTTL, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_PASSSEC, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_RECVORIGDSTADDR, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_CHECKSUM, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_RECVFRAGSIZE, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_HDRINCL, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_ROUTER_ALERT, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_NODEFRAG, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_MULTICAST_IF, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_MULTICAST_TTL, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_MULTICAST_LOOP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_MULTICAST_ALL, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_ADD_MEMBERSHIP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_DROP_MEMBERSHIP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_UNBLOCK_SOURCE, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_BLOCK_SOURCE, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_MSFILTER, "no meaning for TCP"),
    KEPT(IPPROTO_IP, MCAST_JOIN_GROUP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, MCAST_BLOCK_SOURCE, "no meaning for TCP"),
    KEPT(IPPROTO_IP, MCAST_UNBLOCK_SOURCE, "no meaning for TCP"),
    KEPT(IPPROTO_IP, MCAST_LEAVE_GROUP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP, "no meaning for TCP"),
    KEPT(IPPROTO_IP, MCAST_MSFILTER, "no meaning for TCP"),
    KEPT(IPPROTO_IP, IP_OPTIONS, "segments carry none"),
    ROW(IPPROTO_IP, IP_MINTTL, integer, TcpOption::min_ttl, "what comes from farther away is dropped"),
    KEPT(IPPROTO_IP, IP_UNICAST_IF, "the wire is the device"),
    KEPT(IPPROTO_IP, IP_IPSEC_POLICY, "not looked at"),
    KEPT(IPPROTO_IP, IP_XFRM_POLICY, "not looked at"),
    ROW(IPPROTO_IP, IP_PROTOCOL, local_port, kNone, "the port, as Linux has it"),
    ROW_IN(IPPROTO_IPV6, IPV6_V6ONLY, stored, kNone, closed, EINVAL, ""),
    ROW(IPPROTO_IPV6, IPV6_TCLASS, integer, TcpOption::traffic_class, ""),
    ROW(IPPROTO_IPV6, IPV6_MTU, path_mtu, kNone, "the path's, as routers have told it"),
    ROW(IPPROTO_IPV6, IPV6_PATHMTU, path_mtu_info, kNone, "the path's, as routers have told it"),
    KEPT(IPPROTO_IPV6, IPV6_ADDRFORM, "ENOTCONN: a socket stays of the family it was made of"),
    KEPT(IPPROTO_IPV6, IPV6_RECVERR, "the error queue is always empty"),
    KEPT(IPPROTO_IPV6, IPV6_RECVERR_RFC4884, "the error queue is always empty"),
    KEPT(IPPROTO_IPV6, IPV6_FREEBIND, "the stack has its own addresses only"),
    KEPT(IPPROTO_IPV6, IPV6_TRANSPARENT, "the stack has its own addresses only"),
    ROW(IPPROTO_IPV6, IPV6_UNICAST_HOPS, integer, TcpOption::hop_limit, ""),
    ROW(IPPROTO_IPV6, IPV6_MTU_DISCOVER, integer, TcpOption::path_mtu_discovery6, "segments are as large as the path takes"),
    KEPT(IPPROTO_IPV6, IPV6_DONTFRAG, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, "segments carry no flow label"),
    KEPT(IPPROTO_IPV6, IPV6_FLOWINFO_SEND, "segments carry no flow label"),
    KEPT(IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, "segments carry no flow label"),
    KEPT(IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, "the stack has no temporary addresses"),
    ROW(IPPROTO_IPV6, IPV6_MINHOPCOUNT, integer, TcpOption::min_hop_limit, "what comes from farther away is dropped"),
    KEPT(IPPROTO_IPV6, IPV6_UNICAST_IF, "the wire is the device"),
    KEPT(IPPROTO_IPV6, IPV6_IPSEC_POLICY, "not looked at"),
    KEPT(IPPROTO_IPV6, IPV6_XFRM_POLICY, "not looked at"),
    KEPT(IPPROTO_IPV6, IPV6_2292PKTINFO, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_2292HOPOPTS, "segments carry no extension headers"),
    KEPT(IPPROTO_IPV6, IPV6_2292DSTOPTS, "segments carry no extension headers"),
    KEPT(IPPROTO_IPV6, IPV6_2292RTHDR, "segments carry no extension headers"),
    KEPT(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_2292HOPLIMIT, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_FLOWINFO, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_RECVPKTINFO, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_PKTINFO, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_HOPLIMIT, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_RECVHOPOPTS, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_HOPOPTS, "segments carry no extension headers"),
    KEPT(IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, "segments carry no extension headers"),
    KEPT(IPPROTO_IPV6, IPV6_RECVRTHDR, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_RTHDR, "segments carry no extension headers"),
    KEPT(IPPROTO_IPV6, IPV6_RECVDSTOPTS, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_DSTOPTS, "segments carry no extension headers"),
    KEPT(IPPROTO_IPV6, IPV6_RECVPATHMTU, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_RECVTCLASS, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_RECVFRAGSIZE, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_NEXTHOP, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_CHECKSUM, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_HDRINCL, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_AUTHHDR, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_MULTICAST_IF, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_MULTICAST_ALL, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_JOIN_ANYCAST, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_LEAVE_ANYCAST, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_ROUTER_ALERT, "no meaning for TCP"),
    KEPT(IPPROTO_IPV6, IPV6_ROUTER_ALERT_ISOLATE, "no meaning for TCP"),
};

#undef KEPT
#undef ROW_IN
#undef ROW

constexpr size_t kRowCount = sizeof kRows / sizeof kRows[0];
static_assert(kRowCount <= OptionSet::kCapacity && kRowCount < UINT8_MAX);

// Row numbers, counted from one, by level and name.
constexpr int kLevels[] = {SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6};
constexpr int kMostNames = 128;
using Index = std::array<std::array<uint8_t, kMostNames>, sizeof kLevels / sizeof kLevels[0]>;

constexpr int level_index(int level) noexcept {
  for (int i = 0; i < 4; i++) {
    if (kLevels[i] == level) return i;
  }
  return -1;
}

constexpr Index kIndex = [] {
  Index index{};
  for (size_t i = 0; i < kRowCount; i++) {
    uint8_t& place = index[static_cast<size_t>(level_index(kRows[i].level))].at(static_cast<size_t>(kRows[i].name));
    if (place != 0) __builtin_unreachable();  // two rows for one option: not a constant expression
    place = static_cast<uint8_t>(i + 1);
  }
  return index;
}();

// What says the same under another name; of times that is so where time_t has 64 bits.
constexpr int plain_name(int level, int name) noexcept {
  if (level != SOL_SOCKET) return name;
  switch (name) {
    case SO_RCVTIMEO_NEW: return SO_RCVTIMEO;
    case SO_SNDTIMEO_NEW: return SO_SNDTIMEO;
    case SO_RCVBUFFORCE: return SO_RCVBUF;
    case SO_SNDBUFFORCE: return SO_SNDBUF;
    default: return name;
  }
}

}  // namespace

OptionRows option_rows() noexcept { return {kRows, kRowCount}; }

const OptionRow* find_option(int level, int name) noexcept {
  const int at = level_index(level);
  if (at < 0 || name < 0 || name >= kMostNames) return nullptr;
  const unsigned number = kIndex[static_cast<size_t>(at)][static_cast<size_t>(plain_name(level, name))];
  return number == 0 ? nullptr : &kRows[number - 1];
}

}  // namespace shim
