// The memif wire: shared memory between two programs of one host, with a unix socket for the handshake.
// SPDX-License-Identifier: BSD-3-Clause
//
// DPDK's memif driver makes the connection, memif_rings.h moves the frames. What the driver leaves open is done here:
//  - Start order. Its client fails to start while no server listens. Ours starts anyway and tries again on a timer, growing to
//    kRetryMostMs, until a server is there, and again after a server has gone. Who is what: socket_path.h.
//  - Peers that come late, see control.h: the driver's sockets, event descriptors and mappings go through Control.
//  - Sleeping. The driver offers no receive interrupt, but the protocol has one: an event descriptor per ring, and a flag in the
//    ring that says "do not bother". Which ring and which descriptor is read from the handshake's messages as they pass by, so that no
//    private structure of the driver is touched.
//  - Long segments. Between two of ours a TCP segment may be longer than a buffer: it lies in a chain of them, without a copy more at
//    either end. Each that lwIP need not make, send, receive and acknowledge saves more than the copying of its bytes costs. Whether the
//    other end takes them is known when it comes (memif_peer.h); it may be a switch, which knows of smaller links.
//  - Checksums. Two of ours fill none: what lies in memory is what was written there. To any other peer they are filled, and what it sends
//    is verified (memif_peer.h tells which it is). While nobody is there they are filled as well: some frames wait for whoever comes.
//  - Waking. Who publishes frames looks at the peer's flag afterwards, behind a full barrier: else the look may come first, and a peer
//    that goes to sleep at that moment would not be woken until something else happens.
//
// A peer that dies leaves its memory mapped until the control event is run; nothing unmaps the rings under a poller, since control
// events are run under the stack's lock.
// Source: the memif protocol version 2 (messages of 128 bytes on SOCK_SEQPACKET, rings in shared memory).
#include "netstack/wires/memif/memif_wire.h"

#include <atomic>
#include <climits>
#include <cstring>
#include <new>
#include <sys/socket.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/control.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/memif/memif_peer.h"
#include "netstack/wires/memif/memif_rings.h"
#include "netstack/wires/socket_path.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kRingLog2 = 10;
constexpr uint32_t kDefaultMtu = 1500;
constexpr uint32_t kLeastBufferBytes = 2048;
// As on the default wire (veth_wire.cc), and for the same reasons.
constexpr uint16_t kLongSegment = 16320;
constexpr uint32_t kEthernetBytes = 14;
constexpr int kMostBuffers = (kLongSegment + kEthernetBytes + kLeastBufferBytes - 1) / kLeastBufferBytes;
constexpr int kRetryFirstMs = 5;
constexpr int kRetryMostMs = 160;
constexpr int kMostControlTurns = 64;

// The driver's socket that listens at the path, or -1: whoever has it open serves there.
int listening_fd() noexcept {
  for (unsigned fd = base::next_high_fd(0); fd != UINT_MAX; fd = base::next_high_fd(fd + 1)) {
    int listens = 0;
    socklen_t bytes = sizeof listens;
    if (kernel_call(SYS_getsockopt, fd, SOL_SOCKET, SO_ACCEPTCONN, as_arg(&listens), as_arg(&bytes)) == 0 && listens != 0)
      return static_cast<int>(fd);
  }
  return -1;
}

// Whether checksums are filled and verified; `automatic` leaves it to the peer.
enum class Checksums : uint8_t { automatic, on, off };

class MemifWire final : public DpdkWire {
 public:
  MemifWire(uint16_t port, FramePool* pool, Control* control, MemifPeer* peer, Checksums checksums, uint32_t frame_bytes, rte_mbuf** queue,
            uint32_t capacity) noexcept
      : DpdkWire(port, pool, control, -1, queue, capacity), peer_(peer), checksums_(checksums), frame_bytes_(frame_bytes) {
    facts_.memory = true;
    facts_.link_needs_checksum = checksums != Checksums::off;
  }

  [[nodiscard]] int receive(RxFrame* out, int capacity) noexcept override {
    if (!connected_) [[unlikely]] run_control();
    control_->catch_up();
    if (armed_) [[unlikely]] take_event_away(peer_->receive_ring().fd);
    const int taken = rings_.receive(out, capacity < kBurst ? capacity : kBurst, *pool_);
    // What is left there must wake the sleeper again.
    if (armed_ && taken > 0 && rings_.waits()) [[unlikely]] wake_by_event(peer_->receive_ring().fd);
    return taken;
  }

  // A frame that nothing waits in front of is written where the peer will read it, if the longest has room there. What has to wait leaves
  // frames to be received into: what comes may be what makes room.
  [[nodiscard]] bool allocate(TxFrame* out) noexcept override {
    control_->catch_up();
    if (backlog() == 0 && rings_.open(out, most_buffers_)) return true;
    return (most_buffers_ == 1 || pool_->free_count() > pool_->total() / 8 + most_buffers_) && DpdkWire::allocate(out);
  }
  void send(void* handle, uint32_t length) noexcept override {
    if (!rings_.is_open(handle)) [[unlikely]] return DpdkWire::send(handle, length);
    if (rings_.unpublished() >= kShownAtOnce) show();
    rings_.fill(length);
  }
  void send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept override;
  void leave_name() noexcept override {
    Control::Scope scope(control_);
    control_->catch_up();
    if (const int fd = listening_fd(); fd >= 0) control_->end_fd(fd);
  }
  void flush() noexcept override {
    show();
    DpdkWire::flush();
  }

  // Without a peer the next thing to happen is a control event.
  [[nodiscard]] int sleep_fd() noexcept override {
    control_->catch_up();
    const int fd = connected_ ? peer_->receive_ring().fd : -1;
    return fd >= 0 ? fd : control_->fd();
  }
  void arm() noexcept override {
    control_->catch_up();
    if (!connected_ || armed_) return;
    // The full barrier orders the flag before the look at the ring that follows.
    rings_.receive_flags().fetch_and(static_cast<uint16_t>(~MemifRings::kMaskInterrupt), std::memory_order_seq_cst);
    armed_ = true;
  }
  void disarm() noexcept override {
    if (!armed_) return;
    control_->catch_up();
    armed_ = false;
    if (!connected_) return;
    rings_.receive_flags().fetch_or(MemifRings::kMaskInterrupt, std::memory_order_relaxed);
  }

  // What a peer has not taken out of the ring when the channel closes, it does not look for.
  [[nodiscard]] bool delivered() const noexcept override {
    if (!connected_) return true;
    control_->catch_up();
    return backlog() == 0 && rings_.unpublished() == 0 && rings_.taken();
  }

  [[nodiscard]] int control_fd() noexcept override { return control_->fd(); }
  void run_control() noexcept override;
  void recover() noexcept override;

 private:
  static constexpr uint32_t kShownAtOnce = 32;  // the peer begins with these while the rest is written

  [[nodiscard]] bool plugged() const noexcept override { return connected_; }
  [[nodiscard]] uint16_t give_burst(rte_mbuf** frames, uint16_t count) noexcept override;
  void pushed() noexcept override { show(); }
  void release_queued(rte_mbuf* frame) noexcept override { release_chain(frame); }

  // Publishes what was filled, and wakes a peer that sleeps.
  void show() noexcept {
    if (rings_.unpublished() == 0) return;
    control_->catch_up();
    rings_.publish();
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if ((rings_.send_flags().load(std::memory_order_relaxed) & MemifRings::kMaskInterrupt) == 0) wake_by_event(peer_->send_ring().fd);
  }
  void look_at_link(bool tried) noexcept;
  void agree_on_checksums(bool connected) noexcept;
  void agree_on_segments() noexcept;

  MemifPeer* const peer_;
  const Checksums checksums_;
  const uint32_t frame_bytes_;
  MemifRings rings_;
  uint32_t most_buffers_ = 1;  // that a frame takes
  uint32_t rings_seen_ = 0;  // of peer_->rings_told, when `rings_` began
  bool connected_ = false;
  bool armed_ = false;
  int retry_ms_ = 0;
};

void MemifWire::run_control() noexcept {
  control_->catch_up();
  bool tried = false;
  for (int turn = 0; turn < kMostControlTurns; turn++) {
    const Control::Ran ran = control_->run();
    if (ran.timer && peer_->client && control_->callbacks() == 0) {
      Control::Scope scope(control_);
      (void)peer_->connect();
      tried = true;
    }
    if (ran.callbacks == 0) break;
  }
  look_at_link(tried);
  control_->publish();
}

// Link state, and the client's timer: it runs while there is no control channel, slower after each attempt.
void MemifWire::look_at_link(bool tried) noexcept {
  rte_eth_link link{};
  (void)rte_eth_link_get_nowait(port_, &link);
  const bool up = link.link_status == RTE_ETH_LINK_UP;
  if (up != connected_ || (up && rings_seen_ != peer_->rings_told)) {
    connected_ = armed_ = false;
    rings_.detach();
    const uint32_t longest = peer_->offers != 0 ? peer_->offers + kEthernetBytes : frame_bytes_;
    if (up && rings_.attach(*peer_, *control_, frame_bytes_, longest > frame_bytes_ ? longest : frame_bytes_)) {
      agree_on_checksums(true);
      agree_on_segments();
      facts_.peers++;
      connected_ = true;
    } else if (up) {
      Control::Scope scope(control_);
      peer_->disconnect();
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
    rings_seen_ = peer_->rings_told;  // last: where somebody dies before, the next one begins anew
    if (connected_) push_out();
    else drop_queued(0), agree_on_checksums(false);
  }
  if (!peer_->client) return;
  int wanted = retry_ms_;
  if (control_->callbacks() > 0) wanted = 0;
  else if (retry_ms_ == 0) wanted = kRetryFirstMs;
  else if (tried && retry_ms_ < kRetryMostMs) wanted = retry_ms_ * 2;
  if (wanted != retry_ms_) control_->set_retry_ms(wanted);
  retry_ms_ = wanted;
}

// What waits without a checksum was for a peer that wanted none, and is nothing for this one.
void MemifWire::agree_on_checksums(bool connected) noexcept {
  if (checksums_ != Checksums::automatic) return;
  const bool needed = !connected || !peer_->is_ours;
  if (needed && !facts_.link_needs_checksum) drop_queued(0);
  facts_.link_needs_checksum = needed;
}

// Both say what they take, and the ring has room for two of them.
void MemifWire::agree_on_segments() noexcept {
  const uint32_t both = facts_.link_needs_checksum ? 0 : peer_->takes < peer_->offers ? peer_->takes : peer_->offers;
  const uint32_t buffers = (both + kEthernetBytes + frame_bytes_ - 1) / frame_bytes_;
  const bool is_long = both > facts_.mtu && 2 * buffers <= rings_.send_slots();
  facts_.gso_max_size = facts_.gro_max_size = static_cast<uint16_t>(is_long ? both : 0);
  most_buffers_ = is_long ? buffers : 1;
}

// Copied at once, into the ring or, as a chain, into frames of the pool, which allocate() has left. Nobody's are dropped.
void MemifWire::send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept {
  if (rings_.is_open(handle)) [[likely]] {
    if (rings_.unpublished() >= kShownAtOnce) show();
    (void)rings_.fill_with(length, pieces, count);
    return;
  }
  auto* const first = static_cast<rte_mbuf*>(handle);
  first->data_len = static_cast<uint16_t>(length);
  if (!connected_ || !append_copies(first, pieces, count, frame_bytes_)) return release_chain(first);
  DpdkWire::send(first, first->data_len);
}

uint16_t MemifWire::give_burst(rte_mbuf** frames, uint16_t count) noexcept {
  uint16_t sent = 0;
  for (; sent < count; sent++) {
    Piece pieces[kMostBuffers];
    int parts = 0;
    for (const rte_mbuf* part = frames[sent]; part != nullptr; part = part->next) {
      pieces[parts++] = {rte_pktmbuf_mtod(part, const void*), part->data_len};
    }
    if (!rings_.copy(pieces, parts)) break;
    release_chain(frames[sent]);
  }
  return sent;
}

void MemifWire::recover() noexcept {
  DpdkWire::recover();
  if (control_->torn()) {
    // What the dead member had received from the peer went with it: begin anew, the peer sees the channel close.
    rings_.detach();
    Control::Scope scope(control_);
    peer_->disconnect();
  } else {
    control_->catch_up();
    rings_.recover();
  }
  look_at_link(false);
  control_->publish();
}

struct Choice {
  SocketPath socket{"memif", SOCK_SEQPACKET};
  Checksums checksums = Checksums::automatic;
};

struct Word {
  const char* text;
  Checksums checksums;
};
constexpr Word kWords[] = {
    {"checksum=auto", Checksums::automatic},
    {"checksum=on", Checksums::on},
    {"checksum=off", Checksums::off},
};

base::Result<Choice> parse(const char* argument) noexcept {
  Choice choice;
  const char* rest = choice.socket.take_path(argument);
  if (rest == nullptr) return base::make_error("wire memif needs an absolute path of at most 107 bytes: memif:/run/a.sock");
  while (*rest == ',') {
    const char* const text = rest + 1;
    rest = strchrnul(text, ',');
    const auto length = static_cast<size_t>(rest - text);
    bool known = choice.socket.take_role(text, length);
    for (const Word& word : kWords) {
      if (strlen(word.text) != length || memcmp(word.text, text, length) != 0) continue;
      choice.checksums = word.checksums;
      known = true;
    }
    if (!known) return base::make_error("wire memif: \"%s\" is none of role=server|client|auto, checksum=auto|on|off", text);
  }
  return choice;
}

void describe(const Opening& opening, const SocketPath& choice) noexcept {
  WireAddress& out = *opening.out;
  const uint32_t ours = kDefaultNetwork | 255U << 8 | (choice.client ? 2 : 1);
  out.address_be = opening.config.address_be != 0 ? opening.config.address_be : swap_to_wire(ours);
  out.prefix = opening.config.prefix != 0 ? opening.config.prefix : 24;
  out.gateway_be = opening.config.gateway_be;
  choose_addresses6(opening, default_network6(255, choice.client ? 2 : 1));
  memcpy(out.wire, base::make_error("memif %s (%s)", choice.path, choice.client ? "client" : "server").text, sizeof out.wire - 1);
}

}  // namespace

base::Result<Wire*> open_memif(const Opening& opening) noexcept {
  auto choice = parse(opening.argument);
  if (!choice) return choice.error();
  if (auto started = start_eal(); !started) return started.error();
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : kDefaultMtu;
  const uint32_t buffer_bytes = mtu + 18 < kLeastBufferBytes ? kLeastBufferBytes : (mtu + 18 + 63) / 64 * 64;
  auto pool = make_pool(opening, buffer_bytes);
  if (!pool) return pool.error();
  auto memory = wire_memory(opening, sizeof(MemifWire), **pool);
  if (!memory) return memory.error();
  auto control = Control::create(opening.arena);
  if (!control) return control.error();
  MemifPeer* peer = MemifPeer::create(opening.arena);
  if (peer == nullptr) return base::make_error("the stack's memory is too small for its wire");
  (*control)->memif = peer;

  Control::Scope scope(*control);
  SocketPath& socket = choice->socket;
  const FolderLock lock(socket.path);
  if (auto settled = socket.settle_role(lock); !settled) return settled.error();
  peer->client = socket.client;

  static int serial = 0;
  const base::Error name = base::make_error("net_memif%d", serial++);
  const base::Error arguments = base::make_error("role=%s,socket=%s,socket-abstract=no,bsize=%u,rsize=%d",
                                                 socket.client ? "client" : "server", socket.path, buffer_bytes, kRingLog2);
  auto port = start_port(name.text, arguments.text, *pool, 1 << kRingLog2, mtu);
  if (!port) return port.error();
  auto* wire = new (memory->object)
      MemifWire(*port, *pool, *control, peer, choice->checksums, buffer_bytes, memory->queue, memory->queue_capacity);
  WireFacts& facts = wire->mutable_facts();
  memcpy(facts.name, "memif", 6);
  random_mac(facts.mac);
  facts.mtu = static_cast<uint16_t>(mtu);
  peer->named = choice->checksums != Checksums::on;
  peer->offers = opening.config.mtu == 0 ? kLongSegment : 0;
  wire->run_control();
  describe(opening, socket);
  return wire;
}

}  // namespace netstack
