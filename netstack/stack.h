// The public face of a stack: one lwIP instance on one wire, shared by a family of forked processes.
// SPDX-License-Identifier: BSD-3-Clause
//
// A Stack and every endpoint live in memory the family shares and are made by the stack image (one loaded copy
// per stack, so that lwIP's globals exist once per stack). The classes here are abstract: the shim calls them
// through vtables that lie at one address in every member.
//
// Rules for callers:
//  1 Every method is called with the stack's lock held (StackLock), unless its comment says otherwise.
//  2 Nothing here sleeps or makes a kernel call, except through Wire::receive and Wire::flush on wires that need one.
//  3 Results are values >= 0 or negative errno. After the first byte moved the count is returned and the error kept.
//  4 Observers are called with the lock held and may only note what happened: they never call back into the stack.
//  5 Endpoints are counted by their user: made with one reference, freed by the last release().
#pragma once

#include <sys/epoll.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "base/list.h"
#include "base/biased_lock.h"
#include "netstack/socket_address.h"
#include "netstack/wire.h"

struct tcp_info;

namespace netstack {

class Pollable;

// What a stream announces beside the bits of its level: the peer has said that something is urgent (SIGURG). On a stream it never is a
// level.
inline constexpr uint32_t kUrgentAnnounced = EPOLLMSG;

// Told when a pollable's readiness gains bits (EPOLLIN, EPOLLOUT, ...) or sees a new edge of a bit it has.
class Observer : public base::ListNode {
 public:
  // `events`: the bits of this edge. With the lock held; see rule 4.
  virtual void on_ready(Pollable& source, uint32_t events) noexcept = 0;

 protected:
  ~Observer() = default;
};

// Anything with readiness. Bits are those of epoll(7), always the full current level. A stream's ready() uses no vector register: it is
// asked where none is kept.
class Pollable {
 public:
  [[nodiscard]] virtual uint32_t ready() const noexcept = 0;
  base::List<Observer> observers;

 protected:
  ~Pollable() = default;
};

enum class TcpOption {
  nodelay,           // 0/1
  cork,              // 0/1
  keepalive,         // 0/1
  keepidle_s,        //
  keepintvl_s,       //
  keepcnt,           //
  user_timeout_ms,   // 0: off
  send_buffer_bytes, // usable bytes, as the program asked (not doubled)
  receive_buffer_bytes,
  receive_low_water, // SO_RCVLOWAT: readable from so many bytes on
  max_segment,       // TCP_MAXSEG
  linger_s,          // -1: off; 0: close() resets; > 0: seconds
  reuse_address,     // 0/1
  shut,              // of a listener: 1 SHUT_RD, 2 SHUT_WR, 3 both, as its connections are from the start
  reuse_port,        // 0/1
  owner_uid,         // who may share a port by reuse_port
  port_range,        // IP_LOCAL_PORT_RANGE, for connect(); 0: the default
  quickack,          // 0/1
  oob_inline,        // 0/1: urgent bytes stay in the stream
  tos,
  ttl,
  defer_accept_s,    // TCP_DEFER_ACCEPT: 0: accept() does not wait for data
  syn_count,         // TCP_SYNCNT: how often a SYN is sent again
  fin_wait_s,        // TCP_LINGER2: how long FIN-WAIT-2 lasts when nobody holds the socket; below 0: it does not
  window_clamp,      // the receive window is not larger; 0: as large as the buffer
  notsent_low_water, // writable while less than that waits to be sent, as unsigned; 0: whatever waits
  min_ttl,           // IP_MINTTL: segments with a lower TTL are dropped
  traffic_class,     // of connections over IPv6, in place of tos
  hop_limit,         // and in place of ttl
  min_hop_limit,     // IPV6_MINHOPCOUNT, in place of min_ttl
  path_mtu_discovery,   // IP_PMTUDISC_*: whether a router's word about the path is heeded, and segments may be cut on the way
  path_mtu_discovery6,  // IPV6_PMTUDISC_*: the same over IPv6, where nothing is cut
  save_syn,          // TCP_SAVE_SYN, of a listener: 1: its connections keep the headers of their SYN; 2: the frame's as well
  pacing_rate,       // bytes per second at most, as unsigned; -1: any
  path_mtu,          // read only
};

// Ports that may be chosen for a socket that asks for none: net.ipv4.ip_local_port_range without ip_local_reserved_ports.
struct LocalPorts {
  static constexpr int kMostReserved = 32;

  struct Range {
    uint16_t first, last;
  };
  Range range{32768, 60999};  // Linux' default
  Range reserved[kMostReserved] = {};
  int reserved_count = 0;

  [[nodiscard]] bool may_choose(uint32_t port) const noexcept {
    for (int i = 0; i < reserved_count; i++) {
      if (port >= reserved[i].first && port <= reserved[i].last) return false;
    }
    return true;
  }
};

// What a socket says about sharing its port: SO_REUSEADDR, SO_REUSEPORT, and whose it is.
struct PortSharing {
  bool reuse_address = false, reuse_port = false;
  uint32_t uid = 0;
};

// What a socket asks for in bind() or listen().
struct PortRequest {
  SocketAddress local{};  // the unspecified address: all of the stack's; port 0: any
  PortSharing sharing{};
  uint32_t range = 0;     // IP_LOCAL_PORT_RANGE, for port 0
  bool is_known = false;  // it was bound before there was a stack: not compared with others
  bool is_chosen = false; // by the kernel, for a socket that asked for none: not shared with anybody
  bool v6_only = false;   // IPV6_V6ONLY: the unspecified address of IPv6 does not mean IPv4's as well
  bool for_v6 = false;    // of a socket of IPv6, whatever the address
};

// A port that bind() has given to a socket. Connections and listeners hold theirs by themselves; this is what remains beside them.
class PortBinding {
 public:
  [[nodiscard]] virtual SocketAddress local() const noexcept = 0;
  // reuse_address, reuse_port, owner_uid.
  [[nodiscard]] virtual long set_option(TcpOption option, int value) noexcept = 0;
  virtual void release() noexcept = 0;

 protected:
  ~PortBinding() = default;
};

// What newer kernels tell in tcp_info behind the last field that Linux 6.1 has, byte for byte.
struct TcpInfoTail {
  static constexpr size_t kOffset = 232;
  uint32_t rcv_wnd = 0, rehash = 0;
  uint16_t total_rto = 0, total_rto_recoveries = 0;
  uint32_t total_rto_time = 0;  // ms
};

// Where TcpStream::write_from() has bytes from.
class ByteSource {
 public:
  // Writes up to `bytes` bytes to `to`. How many, or at most 0 if no more are to be had now; must not wait.
  [[nodiscard]] virtual long take(void* to, size_t bytes) noexcept = 0;

 protected:
  ~ByteSource() = default;
};

class TcpStream : public Pollable {
 public:
  // Starts a connection. 0 when it is under way (EPOLLOUT or EPOLLERR will tell), or -EADDRNOTAVAIL,
  // -EISCONN, -EALREADY, -ENOBUFS, -EHOSTUNREACH, -ENETUNREACH. A stream that is not bound gets a random port (RFC 6056).
  [[nodiscard]] virtual long connect(const SocketAddress& peer) noexcept = 0;
  [[nodiscard]] virtual bool connected() const noexcept = 0;
  [[nodiscard]] virtual bool connecting() const noexcept = 0;

  // Copies received bytes out. Count, 0 at end of stream, -EAGAIN when there is nothing yet, -ECONNRESET once after a
  // reset, -ENOTCONN. `peek` leaves the bytes where they are.
  [[nodiscard]] virtual long read(const iovec* parts, int count, bool peek) noexcept = 0;
  // The same as a peek from `offset` bytes on (SO_PEEK_OFF): -EAGAIN if there are not more than that yet.
  [[nodiscard]] virtual long peek_at(const iovec* parts, int count, size_t offset) noexcept = 0;
  // Copies bytes into the send queue: count (may be short), -EAGAIN when it is full, -EPIPE after shutdown or reset
  // (raising SIGPIPE is the caller's), the pending error once. `more`: hold a partial segment back (MSG_MORE).
  // What was written leaves at the next Stack::flush() (the wait does it), or when a few segments are ready.
  [[nodiscard]] virtual long write(const iovec* parts, int count, bool more) noexcept = 0;
  // The same of up to `wanted` bytes of a source, which writes them where they stay until they are acknowledged: what it was asked for and
  // gave is queued. 0 if there is room and it has none.
  [[nodiscard]] virtual long write_from(ByteSource& source, size_t wanted, bool more) noexcept = 0;
  // Urgent data (RFC 6093), with Linux's meaning: the urgent byte is the one before where the pointer points, and a read ends before it.
  // One that begins there leaves it out, unless it is to stay inline.
  // The byte: 1, 0 if none will come, -EAGAIN if it is announced and not there, -EINVAL if none is, or it was read; -ENOTCONN.
  [[nodiscard]] virtual long read_urgent(char* byte, bool peek) noexcept = 0;
  // Whether the next read begins at the urgent byte; and what can be read before it (FIONREAD).
  [[nodiscard]] virtual bool at_mark() const noexcept = 0;
  [[nodiscard]] virtual size_t readable_to_mark() const noexcept = 0;
  // As write(); the last byte taken is urgent, and holds back neither for Nagle nor for a cork.
  [[nodiscard]] virtual long write_urgent(const iovec* parts, int count, bool more) noexcept = 0;
  // What write() would take now, if memory lasts. 0 does not ask to be told (ready() does).
  [[nodiscard]] virtual size_t writable_bytes() const noexcept = 0;
  // Bytes to read now (FIONREAD), and bytes in the send queue: info() knows better what of these is acknowledged.
  [[nodiscard]] virtual size_t readable_bytes() const noexcept = 0;
  [[nodiscard]] virtual size_t unsent_bytes() const noexcept = 0;
  // release() would send a reset, and lose what has not been sent.
  [[nodiscard]] virtual bool would_lose() const noexcept = 0;
  // When data last came, as base::monotonic_ns(); 0 if none has.
  [[nodiscard]] virtual uint64_t received_ns() const noexcept = 0;

  // SHUT_RD, SHUT_WR or SHUT_RDWR of shutdown(2). 0, or -ENOTCONN: noted all the same, and a connection made later begins so. An attempt
  // under way ends as by disconnect().
  [[nodiscard]] virtual long shutdown(int how) noexcept = 0;
  // What connect(2) to no address does: ends whatever there is, an established connection by a reset. ECONNRESET is pending if there was
  // any.
  virtual void disconnect() noexcept = 0;
  virtual void set_error(int error) noexcept = 0;
  // The pending error as a positive errno, cleared by the call (SO_ERROR); 0 if none.
  [[nodiscard]] virtual int take_error() noexcept = 0;

  [[nodiscard]] virtual long set_option(TcpOption option, int value) noexcept = 0;
  [[nodiscard]] virtual long get_option(TcpOption option, int* value) const noexcept = 0;
  virtual void info(tcp_info* out) const noexcept = 0;
  [[nodiscard]] virtual TcpInfoTail info_tail() const noexcept = 0;
  // The length of what is kept of the SYN that began it (TcpOption::save_syn), 0 if nothing is. If there is room for it, it is copied and
  // kept no longer.
  [[nodiscard]] virtual size_t take_saved_syn(uint8_t* to, size_t room) noexcept = 0;
  [[nodiscard]] virtual SocketAddress local() const noexcept = 0;
  [[nodiscard]] virtual SocketAddress peer() const noexcept = 0;

  // The user is gone: sends what is queued and FIN, or RST if unread bytes wait or linger_s is 0, as close(2) does.
  // The object is the stack's from here on and freed when TCP is done with it.
  virtual void release() noexcept = 0;

 protected:
  ~TcpStream() = default;
};

class TcpListener : public Pollable {
 public:
  // The next established connection, oldest first, with its own reference; nullptr and -EAGAIN in *error if none.
  [[nodiscard]] virtual TcpStream* accept(SocketAddress* peer, long* error) noexcept = 0;
  [[nodiscard]] virtual SocketAddress local() const noexcept = 0;
  virtual void set_backlog(int backlog) noexcept = 0;
  // Fills in the state, how many connections wait to be accepted (added to tcpi_unacked), and how many may (tcpi_sacked).
  virtual void info(tcp_info* out) const noexcept = 0;
  // Options that accepted streams inherit.
  [[nodiscard]] virtual long set_option(TcpOption option, int value) noexcept = 0;
  // Stops listening and resets what nobody accepted.
  virtual void release() noexcept = 0;

 protected:
  ~TcpListener() = default;
};

class UdpEndpoint;

// What must be at its start level when nothing is open. Bytes and counts.
struct PoolLevels {
  size_t arena_bytes;
  int streams, listeners, bindings, pcbs, free_frames;
  int time_wait;  // of the pcbs: those in TIME-WAIT
  int half_open;  // handshakes that wait for their last ACK
  int endpoints;  // UDP's
  bool operator==(const PoolLevels&) const = default;
};

class Stack {
 public:
  // One turn: takes what the wire has, runs the timers that are due, sends what is queued. Returns the number of
  // frames taken. `now_ns` is base::monotonic_ns().
  virtual int poll(uint64_t now_ns) noexcept = 0;
  // The next poll() takes all that the wire has, though a reader of datagrams may be behind: whoever is about to sleep on the wire has to
  // have seen what is there.
  virtual void hold_nothing_back() noexcept = 0;
  // What is due when the wire's control_fd() is readable.
  virtual void run_control() noexcept = 0;
  // Sends what is queued, without receiving.
  virtual void flush() noexcept = 0;
  // When poll() must run again though no frame comes, as base::monotonic_ns(); UINT64_MAX if nothing is pending.
  [[nodiscard]] virtual uint64_t next_timer_ns() const noexcept = 0;
  // When poll() last ran, by anybody in the family.
  [[nodiscard]] virtual uint64_t last_poll_ns() const noexcept = 0;

  // A stream with one reference, or nullptr when the pool is empty (-ENOBUFS). Not bound, not connected.
  [[nodiscard]] virtual TcpStream* make_stream() noexcept = 0;
  // A port for a socket. nullptr and -EADDRINUSE, -EADDRNOTAVAIL or -ENOBUFS in *error.
  [[nodiscard]] virtual PortBinding* bind(const PortRequest& request, long* error) noexcept = 0;
  // A UDP endpoint (netstack/udp_endpoint.h) with one reference, or nullptr when the pool is empty.
  [[nodiscard]] virtual UdpEndpoint* make_endpoint() noexcept = 0;
  // Where the stream connects from, given by bind(); port 0 is chosen at connect(). 0, -EINVAL or -EADDRNOTAVAIL.
  [[nodiscard]] virtual long bind_stream(TcpStream* stream, const SocketAddress& local) noexcept = 0;
  // Listens; connections are spread over listeners that share a port. `own`: what bind() gave to the socket that asks, or nullptr.
  // nullptr and -EADDRINUSE, -EADDRNOTAVAIL or -ENOBUFS in *error.
  [[nodiscard]] virtual TcpListener* listen(const PortRequest& request, const PortBinding* own, int backlog, long* error) noexcept = 0;

  // True if `address` is the stack's own; true if the stack is the way to it (its networks, its default route).
  [[nodiscard]] virtual bool owns(const IpAddress& address) const noexcept = 0;
  [[nodiscard]] virtual bool routes(const IpAddress& address) const noexcept = 0;
  // The stack's own address that packets to `address` come from.
  [[nodiscard]] virtual IpAddress source_for(const IpAddress& address) const noexcept = 0;

  [[nodiscard]] virtual PoolLevels levels() const noexcept = 0;
  // Nothing waits for a frame or for the wire's room that no connection would send again: true before a process may leave its stack.
  [[nodiscard]] virtual bool all_sent() const noexcept = 0;
  [[nodiscard]] Wire& wire() const noexcept { return wire_; }

  // The last process is about to end, and the wire with it: peers whose handshakes are under way get a reset, where natively they would get
  // it when they ask again.
  virtual void refuse_half_open() noexcept = 0;

  // After a member died inside the lock: resets every connection (users see ECONNRESET), keeps listeners, rebuilds
  // lwIP and the pools, and frees the endpoints that nobody holds. The caller holds the lock.
  virtual void recover() noexcept = 0;
  // Before that, by a user who keeps his own account of what he holds: nobody holds anything, and then, endpoint by endpoint, what is held.
  // False: the pointer leads to no endpoint, to one that was released, or to one that is held already; it must be forgotten. Any pointer
  // may be asked about.
  virtual void forget_holders() noexcept = 0;
  [[nodiscard]] virtual bool hold(TcpStream* stream) noexcept = 0;
  [[nodiscard]] virtual bool hold(TcpListener* listener) noexcept = 0;
  [[nodiscard]] virtual bool hold(PortBinding* binding) noexcept = 0;
  [[nodiscard]] virtual bool hold(UdpEndpoint* endpoint) noexcept = 0;

  // The family's lock around all of the above. Take it with StackLock.
  base::BiasedLock lock;

 protected:
  explicit Stack(Wire& wire) noexcept : wire_(wire) {}
  ~Stack() = default;

 private:
  Wire& wire_;
};

// Holds a stack's lock for a scope, and makes the stack whole first if the last owner died with it.
class StackLock {
 public:
  explicit StackLock(Stack& stack) noexcept : stack_(stack) {
    if (stack_.lock.lock() == base::BiasedLock::Taken::owner_died) [[unlikely]] stack_.recover();
  }
  ~StackLock() { stack_.lock.unlock(); }
  StackLock(const StackLock&) = delete;
  StackLock& operator=(const StackLock&) = delete;

 private:
  Stack& stack_;
};

}  // namespace netstack
